"""`purveyor dev-certs`: what it makes works as it is printed, and nothing is written over."""

from __future__ import annotations

import shlex
import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from typer.testing import CliRunner

from purveyor.cli.app import app
from purveyor_server.kit.clock import SystemClock
from purveyor_server.security.certificates import read_material
from purveyor_server.security.peers import parse_peer
from purveyor_server.security.tls import TlsFiles
from tests.unit.app_process import Process, Site

USAGE = 2


def run(*arguments: str, code: int = 0) -> tuple[str, str]:
    """Standard output and standard error of `purveyor ARGUMENTS`."""
    ran = CliRunner().invoke(app, list(arguments))
    assert ran.exit_code == code, ran.output
    return ran.stdout, ran.stderr


def files(folder: Path) -> TlsFiles:
    return TlsFiles(*(folder / name for name in ("server.pem", "server.key", "ca.pem", "crl.pem")))


def test_a_broker_and_a_client_work_by_what_is_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    settings, _, commands = run("dev-certs", str(tmp_path / "my certs"), "--client", "app")[0].partition(
        "\n# for the client"
    )
    site = Site(tmp_path, settings.replace(":7443", ":0"))
    with Process(site) as broker:
        address = broker.wait_for("started")["addresses"][1]
        lines = [shlex.split(line.replace("localhost:7443", address))[1:] for line in commands.splitlines()[1:]]
        shown = [run(*line)[0] for line in lines]
        assert "database" in shown[-1]
        listed, _ = run("context", "list", "--json")
        assert str(tmp_path / "my certs" / "client-app.pem") in listed

        run("context", "set", "app", "--tls-certificate", "", "--tls-key", "")
        _, refused = run("--context", "app", "catalog", code=6)
        assert "another client certificate" in refused
        pair = [
            f"--tls-{kind}={tmp_path / 'my certs' / f'client-app.{end}'}"
            for kind, end in (("certificate", "pem"), ("key", "key"))
        ]
        run(f"--tls-ca={tmp_path / 'my certs' / 'ca.pem'}", *pair, "--address", address, "--tenant", "app", "catalog")


def test_keys_are_closed_and_everything_passes_the_servers_own_checks(tmp_path: Path) -> None:
    folder = tmp_path / "certs"

    run("dev-certs", str(folder), "--client", "a", "--client", "b=https://b.example/x", "--host", "db.example")

    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {path.name for path in folder.iterdir()} == {
        "ca.pem", "ca.key", "server.pem", "server.key", "client-a.pem", "client-a.key", "client-b.pem", "client-b.key", "crl.pem",
    }  # fmt: skip
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in folder.glob("*.key"))
    material = read_material(files(folder), datetime.now(UTC))
    assert (material.not_after - datetime.now(UTC)).days == 29
    assert parse_peer((folder / "client-a.pem").read_bytes()).spiffe_id == "spiffe://purveyor.local/tenant/a"
    assert parse_peer((folder / "client-b.pem").read_bytes()).uris == ("https://b.example/x",)
    names = x509.load_pem_x509_certificate(material.chain).extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    assert names.value.get_values_for_type(x509.DNSName) == ["localhost", "db.example"]
    assert [str(found) for found in names.value.get_values_for_type(x509.IPAddress)] == ["127.0.0.1", "::1"]


def test_what_is_there_is_kept_and_added_to(tmp_path: Path) -> None:
    folder = tmp_path / "certs"
    run("dev-certs", str(folder), "--client", "a")
    before = {path: path.read_bytes() for path in folder.iterdir()}

    _, told = run("dev-certs", str(folder), "--client", "a", "--client", "b")

    assert {path: path.read_bytes() for path in before} == before
    assert f"kept {folder / 'client-a.key'}" in told
    assert f"made {folder / 'client-b.key'}" in told
    made = x509.load_pem_x509_certificate((folder / "client-b.pem").read_bytes())
    made.verify_directly_issued_by(x509.load_pem_x509_certificate(before[folder / "ca.pem"]))

    run("dev-certs", str(folder), "--client", "a", "--force")
    assert all(path.read_bytes() != content for path, content in before.items())


def test_a_client_is_taken_back(tmp_path: Path) -> None:
    folder = tmp_path / "certs"
    run("dev-certs", str(folder), "--client", "a", "--client", "b")

    run("dev-certs", str(folder), "--revoke", "a")
    run("dev-certs", str(folder), "--revoke", "b")

    now = SystemClock().now()
    serials = {parse_peer((folder / f"client-{name}.pem").read_bytes()).serial for name in ("a", "b")}
    assert read_material(files(folder), now).lists[0].serials == serials
    assert "there is no client 'c'" in run("dev-certs", str(folder), "--revoke", "c", code=USAGE)[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--client", "A"], "--client: 'A' is not 1 to 63 of a-z"),
        (["--client", "a=no uri"], "--client: 'no uri' is no URI"),
        (["--host", "a b"], "--host: 'a b' is no DNS name or IP address"),
        (["--days", "0"], "--days: must be 1 to 825"),
    ],
)
def test_bad_options_are_named_and_make_nothing(tmp_path: Path, arguments: list[str], message: str) -> None:
    assert message in run("dev-certs", str(tmp_path / "certs"), *arguments, code=USAGE)[1]
    assert not (tmp_path / "certs").exists()


def test_a_folder_that_is_open_or_holds_something_else_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "certs"
    folder.mkdir(0o755)
    assert "chmod 700" in run("dev-certs", str(folder), code=USAGE)[1]

    folder.chmod(0o700)
    (folder / "ca.pem").write_text("mine")
    assert "are no authority of ours" in run("dev-certs", str(folder), code=USAGE)[1]
    assert (folder / "ca.pem").read_text() == "mine"

    (tmp_path / "file").touch()
    assert "purveyor: " in run("dev-certs", str(tmp_path / "file" / "x"), code=USAGE)[1]
