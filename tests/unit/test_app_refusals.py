"""A start that cannot go well is refused with its own exit code and one message that says what to do."""

from __future__ import annotations

import os
import socket
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from purveyor_server.app import new_key_command
from purveyor_server.security.issuing import Authority
from tests.unit.app_process import CATALOG, Process, Site

CONFIG, STORE, LISTEN = 2, 3, 4
DAY = timedelta(days=1)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@pytest.fixture
def used(site: Site) -> Site:
    """A site whose broker has run before."""
    with Process(site):
        pass
    return site


def test_a_second_broker_on_the_same_data_is_refused(site: Site) -> None:
    with Process(site) as first:
        assert f"is held by the process {first.pid}" in site.refused(STORE)


def test_a_corrupt_database_is_refused_and_left_as_it_is(used: Site) -> None:
    database = used.data / "purveyor.db"
    database.write_bytes(b"this is no database at all, whatever its name says")

    assert "the store cannot be opened" in used.refused(STORE)
    assert database.read_bytes().startswith(b"this is no database")


def test_a_newer_database_is_refused(used: Site) -> None:
    with closing(sqlite3.connect(used.data / "purveyor.db")) as connection:
        connection.execute("PRAGMA user_version = 999")

    assert "start a newer program" in used.refused(STORE)


def test_a_lost_key_file_is_refused_and_not_made_anew(used: Site) -> None:
    (used.data / "keys").unlink()

    message = used.refused(STORE)

    assert "KEY_LOST" in message
    assert "the key 'k1' is missing" in message
    assert "put the key back" in message
    assert not (used.data / "keys").exists()


def test_a_key_of_the_right_label_that_is_another_is_refused(used: Site) -> None:
    path = used.data / "keys"
    path.write_text(f"purveyor-keys 1\nk1 {'A' * 43}=\n")

    message = used.refused(STORE)

    assert "KEY_MISMATCH" in message
    assert f"the key 'k1' of the key file {path}" in message
    assert "AAAA" not in message


def test_a_new_key_takes_over_at_the_start_and_the_old_one_is_missed(
    used: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    assert new_key_command(config=used.config) == 0
    assert capsys.readouterr().out == "k2\n"
    with Process(used) as process:
        assert process.wait_for("older keys are in use: rotate")["primary"] == "k2"
    path = used.data / "keys"
    path.write_text("\n".join(line for line in path.read_text().splitlines() if not line.startswith("k1")))

    assert "the key 'k1' is missing" in used.refused(STORE)


def test_keys_from_a_command_open_the_store_and_a_broken_one_is_named(
    used: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = used.folder / "copy"
    (used.data / "keys").rename(copy)
    settings = used.config.read_text()
    used.config.write_text(f'{settings}[keys]\nsource = "command"\ncommand = ["/bin/cat", "{copy}"]\n')
    with Process(used):
        pass
    copy.unlink()

    assert "the key command /bin/cat ended with code 1" in used.refused(STORE)
    assert new_key_command(config=used.config) == CONFIG
    assert "is not for this command" in capsys.readouterr().err


def test_a_key_file_open_to_others_is_refused(used: Site) -> None:
    (used.data / "keys").chmod(0o644)

    assert "chmod 600" in used.refused(STORE)


def test_a_data_folder_open_to_others_is_refused(site: Site) -> None:
    site.data.mkdir(mode=0o755)

    assert f"chmod 700 {site.data}" in site.refused(STORE)
    assert list(site.data.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_data_folder_of_another_user_is_refused(site: Site) -> None:
    site.data.mkdir(mode=0o700)
    os.chown(site.data, 12345, -1)

    assert "belongs to uid 12345" in site.refused(STORE)


def test_a_port_in_use_is_refused(tmp_path: Path) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        site = Site(tmp_path, f'[listen]\naddresses = ["127.0.0.1:{port}"]\n')

        assert f"cannot listen on 127.0.0.1:{port}: the port is in use" in site.refused(LISTEN)


def test_a_socket_in_use_is_refused_and_not_taken_over(site: Site, tmp_path: Path) -> None:
    (tmp_path / "second").mkdir()
    second = Site(tmp_path / "second", f'[listen]\naddresses = ["{site.socket}"]\n')

    with Process(site):
        assert "a living server uses this socket" in second.refused(LISTEN)


def test_a_listener_that_others_could_reach_is_refused(tmp_path: Path) -> None:
    site = Site(tmp_path, '[listen]\naddresses = ["0.0.0.0:7070"]\n')

    assert "listen.addresses[0]: a listener without TLS must be a loopback address" in site.refused(CONFIG)
    assert not site.data.exists()


def test_bad_files_of_a_listener_with_tls_are_refused_all_at_once(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    authority = Authority.make("ours", now - DAY, now + DAY)
    old = authority.server("s", ["localhost"], now - DAY, now - DAY / 2)
    for name, content in (("old.pem", old.pem), ("old.key", old.key_pem)):
        (tmp_path / name).touch(0o600)
        (tmp_path / name).write_bytes(content)
    site = Site(
        tmp_path,
        """
[[listen.tls]]
address = "0.0.0.0:0"
certificate = "old.pem"
key = "old.key"
[[admin.tls]]
address = "127.0.0.1:0"
certificate = "none.pem"
key = "none.key"
""",
    )

    message = site.refused(CONFIG)

    assert f"listen.tls[0].certificate: {tmp_path / 'old.pem'}: has expired at" in message
    assert f"admin.tls[0].certificate: {tmp_path / 'none.pem'}: no such file or directory" in message
    assert not site.data.exists()
    assert site.run("config", "check", "--config", str(site.config)).returncode == CONFIG


def test_a_catalog_with_duplicate_ids_is_refused_with_both_lines(tmp_path: Path) -> None:
    site = Site(tmp_path, catalog=CATALOG + CATALOG[CATALOG.index("      - {id: p1") :])

    message = site.refused(CONFIG)

    assert f"{site.catalog}:12: services[0].plans[1].id: the plan id 'p1' is taken already (line 11)" in message
    assert f"{site.catalog}:12: services[0].plans[1].name: the plan name 'small' is taken already (line 11)" in message
    assert not site.data.exists()


def test_what_a_provider_refuses_is_refused_at_its_line(tmp_path: Path) -> None:
    catalog = CATALOG.replace("port: 1,", "port: many,").replace("{kind: shared}", "{kind: own}")
    site = Site(tmp_path, catalog=catalog)

    assert f"{site.catalog}:2: providers.main: " in site.refused(CONFIG)

    site.catalog.write_text(CATALOG.replace("{kind: shared}", "{kind: own}"))
    assert f"{site.catalog}:11: services[0].plans[0].settings: " in site.refused(CONFIG)


def test_a_provider_that_is_not_installed_is_named(tmp_path: Path) -> None:
    site = Site(tmp_path, catalog=CATALOG.replace("kind: postgresql", "kind: oracle"))

    assert "no provider of the kind 'oracle' is installed (installed: " in site.refused(CONFIG)


def test_config_check_judges_without_starting(site: Site) -> None:
    good = site.run("config", "check", "--config", str(site.config))
    site.catalog.write_text("services: []\n")
    bad = site.run("config", "check", "--config", str(site.config))

    assert (good.returncode, good.stdout) == (0, f"the configuration is good: 1 service, 1 plan in {site.catalog}\n")
    assert (bad.returncode, bad.stdout) == (CONFIG, "")
    assert f"{site.catalog}:1: providers: is required" in bad.stderr
    assert not site.data.exists()


def test_without_a_catalog_the_way_out_is_named(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.config.write_text("")

    assert "catalog: is required" in site.refused(CONFIG)
