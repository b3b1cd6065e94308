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
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import structlog

from purveyor_server.kit.secret import Secret
from purveyor_server.providers.contract import Unreachable
from purveyor_server.providers.postgresql import cluster, process
from purveyor_server.providers.postgresql.binaries import OsUser, choose_user, reachable_binaries
from purveyor_server.providers.postgresql.cluster import ADMIN, ADMIN_DATABASE, Folders, State
from purveyor_server.providers.postgresql.ports import describe_listener

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
            if not process.answers(folders, state.port):
                state = self._launch(folders, state, user)
            return self._running(folders, state)

    def stop(self, mode: str = "fast") -> bool:
        """Stop the server if it runs; True if it did. `mode` is pg_ctl's: smart, fast or immediate."""
        state = cluster.load_state(self._keep)
        if state is None:
            return False
        with self._locked():
            folders = Folders(self._keep, Path(state.place))
            if process.postmaster(folders) is None:
                return False
            user = choose_user(self._os_user)
            process.stop(folders, self._binaries(folders, user), user, mode)
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
        if state is None or not process.answers(Folders(self._keep, Path(state.place)), state.port):
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
        process.check_version(folders, binaries)
        if not cluster.port_is_free(state.port):
            raise Unreachable("the PostgreSQL server cannot be started", describe_listener(state.port))
        cluster.make_folder(folders.sockets, user)
        cluster.write_settings(folders, user, cluster.base_settings(folders, state.port))
        process.start(folders, binaries, user)
        _log.info("embedded server started", data_dir=str(self._keep), port=state.port, os_user=user.name)
        return state

    def _fresh_port(self, state: State) -> State:
        """No credentials carry the port yet, so one that was taken meanwhile may be changed."""
        if cluster.port_is_free(state.port):
            return state
        state = State(state.place, cluster.choose_port())
        cluster.save_state(self._keep, state)
        return state

    def _running(self, folders: Folders, state: State) -> Running:
        password = Secret(folders.password(ADMIN).read_text(encoding="utf-8").strip())
        return Running("127.0.0.1", state.port, ADMIN, password, ADMIN_DATABASE)


def stop(data_dir: str | Path) -> bool:
    """Stop the server that belongs to `data_dir`, if it runs; True if it did."""
    return EmbeddedServer(data_dir).stop()
