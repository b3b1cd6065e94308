"""Dedicated servers in quarantine, and their removal.

Guarantee: the marker is read under the lock of the server's files, which every operation takes that works on them; a server in
quarantine is stopped, and nothing starts it: not a bind, not an update, not a restart of the broker.
Limit: what an operation does inside the server at that moment is cut off, as by a server that died.
"""

from __future__ import annotations

import asyncio

from purveyor_server.providers.contract import Done, NotYet, Permanent, Retryable
from purveyor_server.providers.postgresql import process
from purveyor_server.providers.postgresql.cluster import write_private
from purveyor_server.providers.postgresql.custody import WORKED_ON, Thing, busy, changed
from purveyor_server.providers.postgresql.dedicated import Work, start_server, stop_server, work_locked
from purveyor_server.providers.postgresql.host import NAME, Cluster, Host
from purveyor_server.providers.postgresql.locks import LockedRunner
from purveyor_server.providers.postgresql.sessions import Sessions


class ClusterCustody:
    """All dedicated servers of a provider."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def sessions(self, name: str) -> Sessions:
        """Those in the server `name`. Raises Retryable when it does not run."""
        cluster = self._cluster(name)
        if not cluster.answers:
            raise Retryable("the instance's PostgreSQL server does not run", name)
        return cluster.sessions

    def is_gone(self, name: str) -> bool:
        """Whether there is no such server any more, nor what was in it."""
        return not self._cluster(name).there

    def is_held(self, name: str) -> bool:
        """Whether it is in quarantine, and with it all that is in it."""
        return self._cluster(name).quarantine.exists()

    async def quarantine(self, thing: Thing) -> None:
        """Stopped, and not to be started."""
        cluster = self._cluster(thing.title)

        def close(run: LockedRunner) -> None:
            if self._is_there(cluster, thing):
                write_private(cluster.quarantine, "")
                _stop(cluster, run)

        await self._locked(cluster, thing, close)

    async def release(self, thing: Thing) -> None:
        """Running again, unless it never was in quarantine."""
        cluster = self._cluster(thing.title)

        def open_again(run: LockedRunner) -> None:
            if self._is_there(cluster, thing) and cluster.quarantine.exists():
                cluster.quarantine.unlink()
                start_server(cluster, run, restart=False)

        await self._locked(cluster, thing, open_again)

    async def reclaim(self, thing: Thing) -> Done | NotYet:
        """Its server ended and its files removed."""
        cluster = self._cluster(thing.title)

        def remove(run: LockedRunner) -> None:
            if self._is_there(cluster, thing):
                stop_server(cluster, run)
                cluster.remove_files()

        try:
            await self._locked(cluster, thing, remove)
        except Retryable as error:
            if error.message == WORKED_ON:
                return busy()
            raise
        self._host.forget(cluster.name)
        return Done()

    async def _locked(self, cluster: Cluster, thing: Thing, work: Work) -> None:
        if not await asyncio.to_thread(lambda: self._is_there(cluster, thing)):
            return  # without the lock: its file would be made, and stay
        await cluster.sessions.close()
        if not await work_locked(cluster, work):
            raise Retryable(WORKED_ON)

    def _is_there(self, cluster: Cluster, thing: Thing) -> bool:
        """Raises MarkerChanged."""
        if not cluster.keep.exists():
            return False
        try:
            marker = (cluster.keep / "marker").read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            marker = ""
        if marker != thing.marker:
            raise changed(thing)
        return True

    def _cluster(self, name: str) -> Cluster:
        if not NAME.fullmatch(name):
            raise Permanent("no dedicated server has such a name", name)
        return self._host.cluster(name)


def _stop(cluster: Cluster, run: LockedRunner) -> None:
    """As an administrator does: what is written is kept, who is logged in is logged out."""
    state = cluster.state
    if state is not None and cluster.runs:
        user = cluster.user(state)
        process.stop(cluster.folders, cluster.host.binaries(user), user, "fast", run)
