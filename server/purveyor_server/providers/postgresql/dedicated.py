"""The pieces of a dedicated server: its files, its settings, its process.

Guarantee: a cluster is there whole or not at all; each piece works under the cluster's lock, which an interrupted program of
an earlier run still holds, so `settle` is whether the lock is free; the server outlives the broker, and `ensure` starts it
again. A port that a stranger took is replaced while nobody knows it, and named afterwards.
Limit: a change of what needs a restart ends every session of the instance; nothing watches a server that dies while nobody
asks for it, but every bind, unbind and update, and every start of the broker, starts it again.
"""

from __future__ import annotations

import asyncio
import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from pathlib import Path

import structlog
from msgspec.structs import replace

from purveyor_server.kit.flock import is_free
from purveyor_server.providers.contract import (
    Context,
    Done,
    NotYet,
    Permanent,
    ProviderError,
    Retryable,
    Unreachable,
)
from purveyor_server.providers.postgresql import cluster as files
from purveyor_server.providers.postgresql import process, tuning
from purveyor_server.providers.postgresql.binaries import OsUser, may_enter, speaks_tls
from purveyor_server.providers.postgresql.cluster import SHARED_PLACES, Folders, write_private
from purveyor_server.providers.postgresql.host import CLUSTER, Cluster, ClusterState, Host, is_account
from purveyor_server.providers.postgresql.locks import LockedRunner, explain, holding
from purveyor_server.providers.postgresql.pieces import BUSY_SECONDS, read_wanted
from purveyor_server.providers.postgresql.ports import describe_listener
from purveyor_server.providers.postgresql.settings import DedicatedSettings, settings_of

PORT_TRIES = 50
BUSY = NotYet(BUSY_SECONDS, "an earlier run is still at work")
Work = Callable[[LockedRunner], None]

_log = structlog.get_logger(__name__)


class ClusterPiece(ABC):
    """Base of the pieces."""

    name = ""
    weight = 1.0
    mints: tuple[str, ...] = ()

    def __init__(self, host: Host) -> None:
        self._host = host

    @abstractmethod
    async def ensure(self, ctx: Context) -> Done | NotYet:
        """Make it as `ctx.want` says."""

    @abstractmethod
    async def absent(self, ctx: Context) -> Done | NotYet:
        """Make it gone."""

    async def settle(self, ctx: Context) -> bool:
        """True once no program of an earlier run is at work."""
        return await asyncio.to_thread(is_free, self._cluster(ctx).lock)

    def _cluster(self, ctx: Context) -> Cluster:
        return self._host.cluster(ctx.instance_name(CLUSTER))


async def work_locked(cluster: Cluster, work: Work) -> bool:
    """Do `work` in a thread under the cluster's lock; False when somebody else holds it. Raises ProviderError.

    A cancelled caller leaves the thread at work: it holds the lock until it ends.
    """

    def run() -> bool:
        with holding(cluster.lock, cluster.keep) as lock:
            if lock is None:
                return False
            work(LockedRunner(lock))
            return True

    try:
        return await asyncio.to_thread(run)
    except OSError as error:
        raise explain(error, "files") from error
    except Unreachable as error:  # of one server: the others are well, so the provider's circuit must not open
        raise Retryable("the instance's PostgreSQL server cannot be worked with", error.detail) from error


class FilesPiece(ClusterPiece):
    """The cluster itself, with the broker's role in it."""

    name = "cluster_files"
    weight = 5.0

    async def ensure(self, ctx: Context) -> Done | NotYet:
        """Initialise it beside its place and rename it; the marker is written first."""
        settings_of(ctx.want, DedicatedSettings)
        cluster = self._cluster(ctx)
        uid = await self._choose_uid(ctx)
        ctx.report(10, "making the files of the server")
        if not cluster.folders.data.exists() or cluster.state is None:
            ctx.outside("init_cluster")
        if not await work_locked(cluster, lambda run: self._make(cluster, ctx.marker, uid, run)):
            return BUSY
        return Done({"version": await asyncio.to_thread(_major, cluster)})

    async def absent(self, ctx: Context) -> Done | NotYet:
        """Whatever is there of that name; the server is stopped first if it runs."""
        cluster = self._cluster(ctx)
        if not cluster.there:
            return Done()
        ctx.report(50, "removing the files of the server")
        ctx.outside("remove_files")
        await cluster.sessions.close()

        def remove(run: LockedRunner) -> None:
            stop_server(cluster, run)
            cluster.remove_files()

        if not await work_locked(cluster, remove):
            return BUSY
        self._host.forget(cluster.name)
        return Done()

    async def _choose_uid(self, ctx: Context) -> int:
        """A user id of its own where the broker may; 0 where it may not. No account is made, and none is used."""
        config = self._host.config
        if os.geteuid() != 0 or config.uid_low is None or config.uid_high is None:
            return 0
        taken: list[int] = []
        while is_account(uid := await ctx.allocate("uid", config.uid_low, config.uid_high, taken)):
            taken.append(uid)
        return uid

    def _make(self, cluster: Cluster, marker: str, uid: int, run: LockedRunner) -> None:
        cluster.keep.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(cluster.keep / "marker", marker + "\n")
        state = cluster.state or ClusterState(str(self._host.place_of(cluster.name)), uid=uid)
        cluster.save(state)
        folders, maker = cluster.folders, self._host.user
        _make_place(folders, maker)
        if not folders.data.exists():
            files.initialise(folders, self._host.binaries(maker), maker, run)
        user = cluster.user(state)
        if user.switch:
            _give(folders.data, user)


class SettingsPiece(ClusterPiece):
    """`purveyor.conf`, `pg_hba.conf` and the certificates."""

    name = "cluster_settings"

    async def ensure(self, ctx: Context) -> Done | NotYet:
        """Write what differs and have a running server read it; the next piece restarts it where that is needed."""
        cluster = self._cluster(ctx)
        state = cluster.need_state()
        if self._host.config.tls is not None:
            await asyncio.to_thread(_check_tls, cluster, state)
        if not state.port:
            state = replace(state, port=await free_port(ctx, self._host, ()))
        wanted = wanted_files(self._host, cluster.folders, state.port, ctx)
        if tuning.differing(cluster.folders, wanted) or state != cluster.state:
            ctx.report(50, "writing the settings of the server")
            ctx.outside("write_settings")
            if not await work_locked(cluster, lambda run: _apply(cluster, state, wanted, run)):
                return BUSY
        return Done({"connection_limit": read_wanted(ctx).connection_limit})

    async def absent(self, ctx: Context) -> Done | NotYet:  # noqa: ARG002 - the protocol's
        """They go with the files."""
        return Done()


class ServerPiece(ClusterPiece):
    """The server's process."""

    name = "server"
    weight = 2.0

    async def ensure(self, ctx: Context) -> Done | NotYet:
        """Running, with the settings that are written and the binaries that are configured."""
        cluster = self._cluster(ctx)
        state = cluster.need_state()
        build = await asyncio.to_thread(cluster.build, state)
        wanted = wanted_settings(self._host, cluster.folders, state.port, ctx)
        stale = (state.build, state.started) != (build, tuning.restart_digest(wanted))
        if not stale and await asyncio.to_thread(lambda: cluster.answers):
            return self._done(cluster)
        if not cluster.runs:
            state = await self._free_port(ctx, cluster, state)
        ctx.report(30, "starting the server")
        ctx.outside("restart_server" if cluster.runs else "start_server")
        lines = wanted_files(self._host, cluster.folders, state.port, ctx)
        if not await work_locked(cluster, lambda run: _start_as_wanted(cluster, lines, run, stale=stale)):
            return BUSY
        return self._done(cluster)

    async def absent(self, ctx: Context) -> Done | NotYet:
        """Stopped at once: what it holds goes away."""
        cluster = self._cluster(ctx)
        if not cluster.there or not cluster.runs:
            return Done()
        ctx.report(50, "stopping the server")
        ctx.outside("stop_server")
        return Done() if await work_locked(cluster, lambda run: stop_server(cluster, run)) else BUSY

    def _done(self, cluster: Cluster) -> Done:
        state = cluster.need_state()
        return Done({"port": state.port, "build": state.build})

    async def _free_port(self, ctx: Context, cluster: Cluster, state: ClusterState) -> ClusterState:
        """While the instance is being made nobody knows the port: one that was taken meanwhile is replaced."""
        if ctx.work.was is not None or ctx.work.verb != "PROVISION" or files.port_is_free(state.port):
            return state
        moved = replace(state, port=await free_port(ctx, self._host, (state.port,)))
        wanted = wanted_files(self._host, cluster.folders, moved.port, ctx)
        if not await work_locked(cluster, lambda run: _apply(cluster, moved, wanted, run)):
            raise Retryable("an earlier run is still at work on the server")
        return moved


async def wake(ctx: Context, cluster: Cluster) -> None:
    """Start a server that was stopped or killed, as it was. Raises ProviderError."""
    cluster.need_state()
    if await asyncio.to_thread(lambda: cluster.answers):
        return
    ctx.outside("start_server")
    if not await work_locked(cluster, lambda run: start_server(cluster, run, restart=False)):
        raise Retryable("the instance's PostgreSQL server is being worked on")


async def revive(host: Host, store_id: str) -> None:
    """Start every server of ours that is not running; what fails is logged and left to the next who needs it."""
    for name, marker in await asyncio.to_thread(lambda: list(host.kept())):
        cluster = host.cluster(name)
        if not marker.startswith(f"purveyor:{store_id}:") or not cluster.folders.data.exists() or cluster.runs:
            continue
        if cluster.quarantine.exists():
            continue
        try:
            await work_locked(cluster, partial(_start_as_it_was, cluster))
        except ProviderError as error:
            _log.warning("dedicated server does not start", cluster=name, detail=error.detail)


def end_all(host: Host, *, remove: bool) -> int:
    """Blocking: stop every server of the host, whosever, and remove its files where asked; how many there were."""
    names = [name for name, _ in host.kept()]
    for name in names:
        cluster = host.cluster(name)
        with holding(cluster.lock, cluster.keep) as lock:
            if lock is None:
                raise Retryable("somebody is at work on a dedicated PostgreSQL server", name)
            stop_server(cluster, LockedRunner(lock))
            if remove:
                cluster.remove_files()
    return len(names)


def _start_as_wanted(cluster: Cluster, wanted: dict[str, str], run: LockedRunner, *, stale: bool) -> None:
    """An update is undone from its end: the server is restarted before the piece that writes the settings has its turn."""
    state = cluster.need_state()
    if stale:
        tuning.write_files(cluster.folders, wanted, cluster.user(state))
    start_server(cluster, run, restart=stale)


def _start_as_it_was(cluster: Cluster, run: LockedRunner) -> None:
    start_server(cluster, run, restart=False)


def start_server(cluster: Cluster, run: LockedRunner, *, restart: bool) -> None:
    """Blocking, under the lock. Raises Permanent for files of another version, Retryable for a port that is taken."""
    state, folders = cluster.need_state(), cluster.folders
    if not state.port:
        raise Permanent("the instance's PostgreSQL server has no settings yet")
    if cluster.quarantine.exists():
        raise Permanent("the instance's PostgreSQL server is in quarantine", f"release it first: {cluster.name}")
    user = cluster.user(state)
    binaries = cluster.host.binaries(user)
    process.check_version(folders, binaries)
    if cluster.runs:
        if not restart and cluster.answers:
            return
        process.stop(folders, binaries, user, "fast", run)
    if not files.port_is_free(state.port):
        raise Retryable("the port of the instance's PostgreSQL server is taken", describe_listener(state.port))
    files.make_folder(folders.sockets, user)
    started = tuning.restart_digest(read_settings_file(folders))
    process.start(folders, binaries, user, run)
    cluster.save(replace(state, build=cluster.build(state), started=started))
    _log.info("dedicated server started", cluster=cluster.name, port=state.port, os_user=user.name)


def stop_server(cluster: Cluster, run: LockedRunner) -> None:
    """Blocking, under the lock: at once, without a word to those who are logged in."""
    state = cluster.state
    if state is None or not cluster.runs:
        return
    user = cluster.user(state)
    process.stop(cluster.folders, cluster.host.binaries(user), user, "immediate", run)
    _log.info("dedicated server stopped", cluster=cluster.name)


async def free_port(ctx: Context, host: Host, avoid: tuple[int, ...]) -> int:
    """A port of the pool that nobody listens on. Raises PoolExhausted."""
    taken = list(avoid)
    for _ in range(PORT_TRIES):
        port = await ctx.allocate("port", host.config.port_low, host.config.port_high, taken)
        if files.port_is_free(port):
            return port
        taken.append(port)
    raise Retryable("no free port for the instance's PostgreSQL server", f"{len(taken)} were taken by strangers")


def wanted_settings(host: Host, folders: Folders, port: int, ctx: Context) -> dict[str, str]:
    """The settings of what this run works towards."""
    plan = settings_of(ctx.want, DedicatedSettings)
    return tuning.wanted_settings(host.config, folders, port, plan, read_wanted(ctx).connection_limit)


def wanted_files(host: Host, folders: Folders, port: int, ctx: Context) -> dict[str, str]:
    """The files of what this run works towards."""
    return tuning.files_of(host.config, wanted_settings(host, folders, port, ctx))


def read_settings_file(folders: Folders) -> dict[str, str]:
    """What `purveyor.conf` says, for the record of what a server was started with."""
    text = (folders.data / "purveyor.conf").read_text(encoding="utf-8")
    lines = (line.partition(" = ") for line in text.splitlines() if " = " in line)
    return {key: value[1:-1].replace("''", "'") for key, _, value in lines}


def _check_tls(cluster: Cluster, state: ClusterState) -> None:
    program = cluster.host.binaries(cluster.user(state)) / "postgres"
    if not speaks_tls(program):
        detail = f"{program} is built without TLS: name others by dedicated.binaries, or leave out dedicated.tls"
        raise Permanent("dedicated PostgreSQL servers cannot be given certificates here", detail)


def _major(cluster: Cluster) -> str:
    return (cluster.folders.data / "PG_VERSION").read_text(encoding="utf-8").strip()


def _apply(cluster: Cluster, state: ClusterState, wanted: dict[str, str], run: LockedRunner) -> None:
    user = cluster.user(state)
    tuning.write_files(cluster.folders, wanted, user)
    cluster.save(state)
    if cluster.runs:
        command = [str(cluster.host.binaries(user) / "pg_ctl"), "-D", str(cluster.folders.data), "-s", "reload"]
        run(command, user, cluster.folders.place)


def _make_place(folders: Folders, user: OsUser) -> None:
    place = folders.place
    if place.is_relative_to(SHARED_PLACES):
        SHARED_PLACES.mkdir(mode=0o755, parents=True, exist_ok=True)
    if place.is_symlink():
        raise Permanent("the files of a PostgreSQL server are not where they must be", f"{place} is a link")
    place.mkdir(mode=0o711, exist_ok=True)
    place.chmod(0o711)
    if user.switch and not may_enter(user, place):
        detail = f"dedicated.folder: user {user.name} may not enter {place}"
        raise Permanent("dedicated PostgreSQL servers have no place for their files", detail)


def _give(folder: Path, user: OsUser) -> None:
    """Everything in the cluster to its user; links are given, not followed."""
    for parent, _, names in os.walk(folder):
        for name in (".", *names):
            os.chown(Path(parent) / name, user.uid, user.gid, follow_symlinks=False)
