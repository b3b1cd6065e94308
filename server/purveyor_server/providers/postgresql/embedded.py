"""A PostgreSQL server of the broker's own, for when none is configured.

Guarantee: the server runs as an unprivileged user, asks everybody for a password (SCRAM-SHA-256), listens on loopback and a
private unix socket only, keeps its port for life, and lives on when the broker dies. Starting is idempotent: a running
server is used as it is; two starters wait for each other.
Limit: one server per data directory; nothing here restarts a server that dies while nobody asks for it: the provider
calls `start` again when it finds the server gone.

    python -m purveyor_server.providers.postgresql start|stop|status|remove DIR
"""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import structlog

from purveyor_server.kit.secret import Secret
from purveyor_server.providers.contract import Permanent, Unreachable
from purveyor_server.providers.postgresql import cluster
from purveyor_server.providers.postgresql.binaries import OsUser, choose_user, reachable_binaries
from purveyor_server.providers.postgresql.cluster import ADMIN, ADMIN_DATABASE, Folders, State
from purveyor_server.providers.postgresql.ports import describe_listener

START_SECONDS = 60
STOP_SECONDS = 60
PROBE_SECONDS = 2.0
LOG_BYTES = 10 * 1024 * 1024  # a longer log is set aside at the next start; one is kept
SSL_REQUEST = b"\x00\x00\x00\x08\x04\xd2\x16\x2f"  # PostgreSQL answers it with one byte, S or N

_log = structlog.get_logger(__name__)


class Running(NamedTuple):
    """How to reach a server that runs."""

    host: str
    port: int
    user: str
    password: Secret
    database: str


class EmbeddedServer:
    """The server that belongs to the folder `keep` (the provider's data directory, 0700). Every method blocks: use a thread."""

    def __init__(
        self, keep: str | Path, *, cluster_dir: str = "", os_user: str = "", installation: Path | None = None
    ) -> None:
        self._keep = Path(keep).absolute()
        self._cluster_dir = cluster_dir
        self._os_user = os_user
        self._installation = installation

    def start(self) -> Running:
        """Use the server that runs, or make and start it. Raises Unreachable or Permanent, with the reason in `detail`."""
        with self._locked():
            user = choose_user(self._os_user)
            state = cluster.load_state(self._keep) or self._begin(user)
            folders = Folders(self._keep, Path(state.place))
            if not self._answers(folders, state):
                state = self._launch(folders, state, user)
            return self._running(folders, state)

    def stop(self, mode: str = "fast") -> bool:
        """Stop the server if it runs; True if it did. `mode` is pg_ctl's: smart, fast or immediate."""
        state = cluster.load_state(self._keep)
        if state is None:
            return False
        with self._locked():
            folders = Folders(self._keep, Path(state.place))
            if _postmaster(folders) is None:
                return False
            user = choose_user(self._os_user)
            program = str(self._binaries(folders, user) / "pg_ctl")
            command = [program, "-D", str(folders.data), "-m", mode, "-w", "-t", str(STOP_SECONDS), "stop"]
            cluster.run(command, user, folders.place, seconds=STOP_SECONDS + 5)
            _log.info("embedded server stopped", data_dir=str(self._keep))
            return True

    def remove(self) -> bool:
        """Stop the server and delete its data, for ever; True if there was any. Raises Permanent for a place of somebody else."""
        state = cluster.load_state(self._keep)
        if state is None:
            return False
        self.stop("immediate")
        with self._locked():
            cluster.remove(Folders(self._keep, Path(state.place)))
        return True

    def status(self) -> State | None:
        """Where the server is, if it runs and answers."""
        state = cluster.load_state(self._keep)
        if state is None or not self._answers(Folders(self._keep, Path(state.place)), state):
            return None
        return state

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One starter or stopper at a time, over processes; the lock goes with its holder."""
        self._keep.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (self._keep / "embedded.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _begin(self, user: OsUser) -> State:
        place = cluster.choose_place(self._keep, user, self._cluster_dir)
        state = State(str(place), cluster.choose_port())
        cluster.save_state(self._keep, state)
        return state

    def _binaries(self, folders: Folders, user: OsUser) -> Path:
        copies = folders.place / "binaries"
        copies.mkdir(mode=0o755, exist_ok=True)
        return reachable_binaries(user, copies, self._installation)

    def _launch(self, folders: Folders, state: State, user: OsUser) -> State:
        binaries = self._binaries(folders, user)
        if not folders.data.exists():
            cluster.initialise(folders, binaries, user)
            state = self._fresh_port(state)
        _check_version(folders, binaries)
        if not cluster.port_is_free(state.port):
            raise Unreachable("the PostgreSQL server cannot be started", describe_listener(state.port))
        _forget_stale_pid(folders)
        cluster.write_settings(folders, state.port, user)
        _prepare_log(folders, user)
        # pg_ctl starts the server in a session of its own and leaves: it is nobody's child and outlives the broker.
        command = [str(binaries / "pg_ctl"), "-D", str(folders.data), "-l", str(folders.log), "-s", "-w"]
        try:
            cluster.run([*command, "-t", str(START_SECONDS), "start"], user, folders.place, seconds=START_SECONDS + 5)
        except Unreachable as error:
            raise Unreachable(error.message, f"{error.detail}; {_tail(folders.log)}") from error
        _log.info("embedded server started", data_dir=str(self._keep), port=state.port, os_user=user.name)
        return state

    def _fresh_port(self, state: State) -> State:
        """No credentials carry the port yet, so one that was taken meanwhile may be changed."""
        if cluster.port_is_free(state.port):
            return state
        state = State(state.place, cluster.choose_port())
        cluster.save_state(self._keep, state)
        return state

    def _answers(self, folders: Folders, state: State) -> bool:
        return _postmaster(folders) is not None and _speaks_postgres(state.port)

    def _running(self, folders: Folders, state: State) -> Running:
        password = Secret(folders.password(ADMIN).read_text(encoding="utf-8").strip())
        return Running("127.0.0.1", state.port, ADMIN, password, ADMIN_DATABASE)


def _postmaster(folders: Folders) -> int | None:
    """The process id of the server of this cluster, if it is alive."""
    try:
        pid = int((folders.data / "postmaster.pid").read_text(encoding="utf-8").split("\n", 1)[0])
    except (OSError, ValueError):
        return None
    return pid if _is_ours(pid, folders) else None


def _is_ours(pid: int, folders: Folders) -> bool:
    """Whether `pid` is alive and, where the system can tell, was started for this cluster (a process id may be used again)."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except FileNotFoundError:
        if Path("/proc/self/cmdline").exists():
            return False
        return _is_alive(pid)
    return str(folders.data).encode() in words


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _forget_stale_pid(folders: Folders) -> None:
    """A process id that now belongs to another program would keep the server from starting."""
    if _postmaster(folders) is None:
        (folders.data / "postmaster.pid").unlink(missing_ok=True)


def _speaks_postgres(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=PROBE_SECONDS) as connection:
            connection.sendall(SSL_REQUEST)
            return connection.recv(1) in {b"S", b"N"}
    except OSError:
        return False


def _check_version(folders: Folders, binaries: Path) -> None:
    made_by = (folders.data / "PG_VERSION").read_text(encoding="utf-8").strip()
    share = binaries.parent / "share" / "postgres.bki"
    with share.open(encoding="utf-8") as file:
        binary = file.readline().strip().removeprefix("# PostgreSQL ")
    if binary != made_by:
        detail = f"{folders.data} was made by PostgreSQL {made_by}, the binaries are {binary}: dump and restore, or pg_upgrade"
        raise Permanent("the embedded PostgreSQL server is of another version", detail)


def _prepare_log(folders: Folders, user: OsUser) -> None:
    if folders.log.exists() and folders.log.stat().st_size > LOG_BYTES:
        folders.log.replace(folders.log.with_suffix(".log.1"))
    descriptor = os.open(folders.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
    try:
        if user.switch:
            os.fchown(descriptor, user.uid, user.gid)
    finally:
        os.close(descriptor)


def _tail(log: Path) -> str:
    try:
        return log.read_text(encoding="utf-8", errors="replace")[-1500:]
    except OSError:
        return ""


def stop(data_dir: str | Path) -> bool:
    """Stop the server that belongs to `data_dir`, if it runs; True if it did."""
    return EmbeddedServer(data_dir).stop()
