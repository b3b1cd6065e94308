"""The host of dedicated servers: where each has its files, as whom it runs, with which binaries.

Guarantee: a cluster is found by its instance's name alone; only folders of such a name directly below the configured ones
are ever removed, and no link is followed; a server never runs as root.

The broker keeps `dedicated/<name>` (0700) in the provider's data directory: `cluster.json`, the passwords (0600) and the
owner's `marker`. The server's side lies in `cluster` below that, or (as root, or where `folder` says so) in `<folder>/<name>`.
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec

from purveyor_server.providers.contract import Permanent, ProviderEnvironment, Retryable, Unreachable
from purveyor_server.providers.postgresql import binaries, process
from purveyor_server.providers.postgresql.binaries import OsUser, choose_user, may_enter
from purveyor_server.providers.postgresql.cluster import (
    ADMIN,
    ADMIN_DATABASE,
    SHARED_PLACES,
    Folders,
    write_private,
)
from purveyor_server.providers.postgresql.config import DedicatedConfig, LimitsConfig
from purveyor_server.providers.postgresql.passwords import PasswordFile
from purveyor_server.providers.postgresql.sessions import Address, Sessions

CLUSTER = "clu"  # kind of outside name
NAME = re.compile(r"pv_clu_[0-9a-f]{32}")


class ClusterState(msgspec.Struct, frozen=True):
    """What `cluster.json` says: 0 for a port or user id that is not chosen; `started` is what the server was started with."""

    place: str
    port: int = 0
    uid: int = 0
    build: str = ""
    started: str = ""


class Host:
    """All dedicated servers of one provider."""

    def __init__(self, config: DedicatedConfig, environment: ProviderEnvironment, limits: LimitsConfig) -> None:
        self.config = config
        self._environment = environment
        self._limits = limits
        self._clusters: dict[str, Cluster] = {}
        self._binaries: dict[int, Path] = {}

    def cluster(self, name: str) -> Cluster:
        """The cluster of that outside name, there or not."""
        if not NAME.fullmatch(name):
            raise ValueError(name)
        if name not in self._clusters:
            self._clusters[name] = Cluster(self, name, self._limits)
        return self._clusters[name]

    def forget(self, name: str) -> None:
        """Its files are gone."""
        self._clusters.pop(name, None)

    @property
    def base(self) -> Path:
        """The broker's side of all of them."""
        return Path(self._environment.data_dir) / "dedicated"

    @property
    def user(self) -> OsUser:
        """Who makes the files, and runs servers without a user id of their own."""
        return choose_user(self.config.os_user)

    def place_of(self, name: str) -> Path:
        """The server's side of one."""
        if self.config.folder:
            return Path(self.config.folder) / name
        user, keep = self.user, self.base / name
        if not user.switch or may_enter(user, self.base.parent):
            return keep / "cluster"
        return SHARED_PLACES / name

    def binaries(self, user: OsUser) -> Path:
        """The folder of programs that `user` may run."""
        if self.config.binaries:
            return Path(self.config.binaries)
        if user.uid not in self._binaries:
            copies = (Path(self.config.folder) if self.config.folder else SHARED_PLACES) / "binaries"
            self._binaries[user.uid] = binaries.reachable_binaries(user, copies)
        return self._binaries[user.uid]

    def kept(self) -> Iterator[tuple[str, str]]:
        """Name and marker of every cluster that there is."""
        try:
            names = sorted(path.name for path in self.base.iterdir() if NAME.fullmatch(path.name))
        except OSError:
            return  # none was ever made, or the folder cannot be read: who needs one will say so
        for name in names:
            try:
                yield name, (self.base / name / "marker").read_text(encoding="utf-8").strip()
            except OSError:
                continue  # it is being made, or removed

    async def close(self) -> None:
        """Let go of the sessions; the servers live on."""
        for cluster in list(self._clusters.values()):
            await cluster.sessions.close()


class Cluster:
    """One server and its files."""

    def __init__(self, host: Host, name: str, limits: LimitsConfig) -> None:
        self.host = host
        self.name = name
        self.sessions = Sessions(self._locate, limits)

    @property
    def keep(self) -> Path:
        """The broker's side."""
        return self.host.base / self.name

    @property
    def lock(self) -> Path:
        """Who works on files or process holds this."""
        return self.host.base / f"{self.name}.lock"

    @property
    def quarantine(self) -> Path:
        """While this file is there the server is not started."""
        return self.keep / "quarantine"

    @property
    def folders(self) -> Folders:
        """Both sides."""
        state = self.state
        return Folders(self.keep, Path(state.place) if state is not None else self.host.place_of(self.name))

    @property
    def state(self) -> ClusterState | None:
        """What was recorded. Raises Permanent when it cannot be understood."""
        try:
            return msgspec.json.decode((self.keep / "cluster.json").read_bytes(), type=ClusterState)
        except FileNotFoundError:
            return None
        except msgspec.MsgspecError as error:
            raise Permanent("the state of a PostgreSQL server cannot be read", f"{self.keep}/cluster.json") from error

    def need_state(self) -> ClusterState:
        """The same, for what needs the cluster. Raises Permanent when there is none."""
        state = self.state
        if state is None or not self.folders.data.exists():
            raise Permanent("the instance's PostgreSQL server is gone", f"no cluster in {self.keep}")
        return state

    def save(self, state: ClusterState) -> None:
        """Replace `cluster.json` whole."""
        write_private(self.keep / "cluster.json", msgspec.json.encode(state).decode())

    @property
    def there(self) -> bool:
        """Whether any of its files are there, if only the lock of a run that was killed at its very beginning."""
        return self.keep.exists() or os.path.lexists(self.folders.place) or self.lock.exists()

    def user(self, state: ClusterState) -> OsUser:
        """As whom the server runs."""
        if state.uid:
            return OsUser(str(state.uid), state.uid, state.uid, switch=os.geteuid() == 0)
        return self.host.user

    def build(self, state: ClusterState) -> str:
        """Which binaries a start would use: version and a digest."""
        programs = self.host.binaries(self.user(state))
        return f"{process.version(programs)} {binaries.digest(programs / 'postgres')[:12]}"

    @property
    def runs(self) -> bool:
        """Whether its server's process is alive."""
        return process.postmaster(self.folders) is not None

    @property
    def answers(self) -> bool:
        """Whether its server takes connections."""
        state = self.state
        return state is not None and process.answers(self.folders, state.port)

    def remove_files(self) -> None:
        """Both sides, the server's first; nothing but folders of this name directly below the configured ones."""
        for folder in (self.folders.place, self.host.place_of(self.name), self.keep):
            _remove(folder, self.name)

    async def _locate(self) -> Address:
        state = self.state
        if state is None:
            raise Unreachable("the instance's PostgreSQL server is gone", str(self.keep))
        try:
            return PasswordFile(self.folders.password(ADMIN)).address("127.0.0.1", state.port, ADMIN, ADMIN_DATABASE)
        except OSError as error:
            raise Unreachable("the instance's PostgreSQL server is gone", str(error)) from error


def _remove(folder: Path, name: str) -> None:
    """`folder` is `.../<name>` or `.../<name>/cluster`. Raises Permanent for anything else, Retryable for what stays."""
    if name not in {folder.name, folder.parent.name if folder.name == "cluster" else ""}:
        raise Permanent("the files of a PostgreSQL server are not where they must be", str(folder))
    try:
        if folder.is_symlink():
            folder.unlink()  # somebody put a link there: what it points to is not ours
        elif folder.exists():
            shutil.rmtree(folder)
    except OSError as error:
        raise Retryable("the files of a PostgreSQL server cannot be removed", str(error)) from error


def is_account(uid: int) -> bool:
    """Whether somebody has that user id."""
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True
