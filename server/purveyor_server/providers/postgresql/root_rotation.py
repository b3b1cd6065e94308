"""New passwords for the broker's own accounts: in the server that it was given, and in every server of its own.

Guarantee: that of `passwords`, account by account; bindings are not touched. One rotation of a provider at a time.
Limit: a dedicated server that does not run keeps its passwords, and is named among those that were left out.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from purveyor_server.kit import flock
from purveyor_server.providers.abilities import RootRotated
from purveyor_server.providers.contract import Permanent, ProviderEnvironment, Retryable
from purveyor_server.providers.postgresql.cluster import ADMIN, ADMIN_DATABASE, SUPERUSER
from purveyor_server.providers.postgresql.config import ServerConfig
from purveyor_server.providers.postgresql.host import Cluster, Host
from purveyor_server.providers.postgresql.passwords import PasswordFile, rotate
from purveyor_server.providers.postgresql.sessions import Sessions

EMBEDDED = {ADMIN: "admin.password", SUPERUSER: "superuser.password"}


class RootRotation:
    """The ability ROTATE_ROOT of one provider."""

    def __init__(
        self, server: ServerConfig | None, sessions: Sessions, host: Host | None, environment: ProviderEnvironment
    ) -> None:
        self._server = server
        self._sessions = sessions
        self._host = host
        self._environment = environment

    async def rotate(self) -> RootRotated:
        """See `abilities.RootRotating`."""
        keep = Path(self._environment.data_dir)
        lock = flock.take(keep / "rotation.lock")
        if lock is None:
            raise Retryable("the broker's passwords are being rotated already")
        try:
            accounts = await self._of_the_server(keep)
            left: list[str] = []
            for cluster in await asyncio.to_thread(self._clusters):
                if await asyncio.to_thread(lambda cluster=cluster: cluster.answers):  # type: ignore[misc] # one each
                    accounts += await self._of_cluster(cluster)
                else:
                    left.append(cluster.name)
        finally:
            (keep / "rotation.lock").unlink(missing_ok=True)
            os.close(lock)
        return RootRotated(tuple(accounts), tuple(left))

    async def _of_the_server(self, keep: Path) -> list[str]:
        address = await self._sessions.address()
        if self._server is None:
            for user, file in EMBEDDED.items():
                kept = PasswordFile(keep / file)
                await rotate(kept.address(address.host, address.port, user, address.database), kept)
            accounts = list(EMBEDDED)
        else:
            if not self._server.password.file:
                detail = "change it in the server, then where the broker gets its environment from, and restart it"
                raise Permanent("the server's password is given by the environment: it is rotated outside", detail)
            kept = PasswordFile(Path(self._server.password.file))
            kept.check_writable()
            await rotate(address._replace(password=kept.read()), kept)
            accounts = [address.user]
        self._sessions.renew()
        return accounts

    async def _of_cluster(self, cluster: Cluster) -> list[str]:
        port = cluster.need_state().port
        for user in (ADMIN, SUPERUSER):
            kept = PasswordFile(cluster.folders.password(user))
            await rotate(kept.address("127.0.0.1", port, user, ADMIN_DATABASE), kept)
        cluster.sessions.renew()
        return [f"{cluster.name}/{user}" for user in (ADMIN, SUPERUSER)]

    def _clusters(self) -> list[Cluster]:
        if self._host is None:
            return []
        ours = f"purveyor:{self._environment.store_id}:"
        return [self._host.cluster(name) for name, marker in self._host.kept() if marker.startswith(ours)]
