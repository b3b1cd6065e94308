"""The provider: plans, credentials, and what it says of itself.

Guarantee: plans are pure (see `plans`); credentials carry what client libraries expect.
Limit: contract `postgresql/1` is the names of the steps and what they mean; steps were added, none was changed.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from urllib.parse import quote, urlencode

from purveyor_server.domain.errors import PurveyorError, invalid
from purveyor_server.domain.model import Endpoint, Json
from purveyor_server.domain.names import outside_name
from purveyor_server.kit.secret import Secret
from purveyor_server.providers.abilities import RootRotated
from purveyor_server.providers.contract import (
    Ability,
    Credentials,
    Done,
    Known,
    NotYet,
    Observed,
    Outputs,
    Owned,
    Permanent,
    PlannedStep,
    ProviderEnvironment,
    RightsMissing,
    Unreachable,
    Work,
)
from purveyor_server.providers.postgresql.adoption import AdoptedPiece, SharedDatabasePiece, TakenPiece, adoptable
from purveyor_server.providers.postgresql.backup import FinalBackupPiece
from purveyor_server.providers.postgresql.common import CommonDatabasePiece
from purveyor_server.providers.postgresql.config import LimitsConfig, ProviderConfig, ServerConfig, SslMode
from purveyor_server.providers.postgresql.contents import ExtensionsPiece, SchemaPiece
from purveyor_server.providers.postgresql.custodian import Custodian
from purveyor_server.providers.postgresql.database import DatabasePiece, GroupPiece
from purveyor_server.providers.postgresql.dedicated import FilesPiece, ServerPiece, SettingsPiece, revive
from purveyor_server.providers.postgresql.embedded import EmbeddedServer
from purveyor_server.providers.postgresql.host import CLUSTER, Host
from purveyor_server.providers.postgresql.in_cluster import DedicatedLoginPiece, InCluster, LoginInCluster
from purveyor_server.providers.postgresql.inventory import list_owned
from purveyor_server.providers.postgresql.login import LoginPiece
from purveyor_server.providers.postgresql.moving import LoginsPiece, StandstillPiece, VerifiedPiece
from purveyor_server.providers.postgresql.observation import observe
from purveyor_server.providers.postgresql.own_schema import OwnSchemaPiece
from purveyor_server.providers.postgresql.passwords import PasswordFile
from purveyor_server.providers.postgresql.plans import Cluster, Pieces, moves, plan_steps
from purveyor_server.providers.postgresql.rights import check_rights
from purveyor_server.providers.postgresql.root_rotation import EMBEDDED, RootRotation
from purveyor_server.providers.postgresql.schemas import SCHEMAS
from purveyor_server.providers.postgresql.sessions import Address, Sessions, Tls
from purveyor_server.providers.postgresql.transfer import DataPiece, SourceTls
from purveyor_server.providers.postgresql.watching import observe_dedicated
from purveyor_server.providers.strict import read_configuration

EMBEDDED_SSLMODE: SslMode = "disable"  # loopback only; the wheel's server has no certificate


class PostgresProvider:
    """Databases with roles of their own in one PostgreSQL server. Raises PurveyorError(INVALID_REQUEST) for a bad `config`."""

    contract = "postgresql/1"
    abilities = frozenset(
        {
            *(Ability.BIND, Ability.UPDATE, Ability.EXPIRY, Ability.OBSERVE, Ability.LIST_OWNED),
            *(Ability.QUARANTINE, Ability.RECLAIM, Ability.ADOPT, Ability.REISSUE, Ability.ROTATE_ROOT),
        }
    )
    schemas = SCHEMAS

    def __init__(self, config: Mapping[str, Json], environment: ProviderEnvironment) -> None:
        self._config = read_configuration(ProviderConfig, config)
        self._environment = environment
        server = self._config.server
        if server is not None:
            _address(server, environment)  # a bad password or certificate is told now
        self._sessions = Sessions(self._locate, self._config.limits)
        endpoint = (
            ("", None, EMBEDDED_SSLMODE)
            if server is None
            else (server.public_host or server.host, server.public_port or server.port, server.sslmode)
        )
        limits = self._config.limits
        tls = SourceTls() if server is None else SourceTls(server.sslmode, server.sslrootcert)
        options = self._config.dedicated_options
        if options is not None and options.tls is not None:
            # Only here: reading certificates loads more than all of gRPC, and most brokers have none.
            from purveyor_server.providers.postgresql.certificates import check_server  # noqa: PLC0415 - see above

            check_server(options.tls)
        self._host = None if options is None else Host(options, environment, limits)
        self._rotation = RootRotation(server, self._sessions, self._host, environment)
        self._custodian = Custodian(self._sessions, self._host, limits, environment.store_id)
        self._pieces = Pieces(
            group=GroupPiece(self._sessions, limits),
            database=SharedDatabasePiece(self._sessions, limits),
            schema=SchemaPiece(self._sessions, limits),
            extensions=ExtensionsPiece(self._sessions, limits),
            common_database=CommonDatabasePiece(self._sessions, limits),
            own_schema=OwnSchemaPiece(self._sessions, limits),
            standstill=StandstillPiece(self._sessions, limits),
            adopted=AdoptedPiece(self._sessions, limits),
            taken=TakenPiece(self._sessions, limits),
            login=LoginPiece(self._sessions, limits, endpoint),
            cluster=None if self._host is None else partial(_cluster_pieces, self._host, limits, self._sessions, tls),
        )

    async def check(self) -> None:
        """Raise Unreachable, RightsMissing or Permanent, with the SQL that would help, unless the server can be worked with.

        Dedicated servers that do not run are started again: after a reboot of the host this is where they come back.
        """
        if self._host is not None:
            await revive(self._host, self._environment.store_id)
        await check_rights(self._sessions)

    def plan(self, work: Work, done: Mapping[str, Outputs]) -> Sequence[PlannedStep]:  # noqa: ARG002 - the protocol's
        """The steps of `work`; they do not depend on `done`."""
        return plan_steps(self._pieces, work)

    def credentials(
        self,
        work: Work,  # noqa: ARG002 - the protocol's
        done: Mapping[str, Outputs],
        secrets: Mapping[str, Secret],
    ) -> Credentials:
        """What client libraries expect: libpq URI, JDBC URI, and the parts."""
        parts = dict(done["login"])
        if "certificate" in secrets:
            return _with_certificate(parts, secrets)
        password = secrets["password"].reveal()
        host, port = str(parts["host"]), int(parts["port"])
        where = f"{_bracketed(host)}:{port}/{quote(str(parts['database']), safe='')}"
        user, secret = quote(str(parts["username"]), safe=""), quote(password, safe="")
        sslmode = str(parts["sslmode"])
        query = urlencode({"user": parts["username"], "password": password, "sslmode": sslmode})
        values: dict[str, Json] = {
            **parts,
            "password": password,
            "uri": f"postgresql://{user}:{secret}@{where}?{urlencode({'sslmode': sslmode})}",
            "jdbc_uri": f"jdbc:postgresql://{where}?{query}",
        }
        return Credentials(values, (Endpoint(host, (str(port),), "tcp"),))

    async def observe(self, instance: Known) -> Observed:
        """Look at the backend; changes nothing."""
        if instance.settings.plan.get("kind") == "dedicated":
            if self._host is None:
                raise Permanent("dedicated servers are not offered", "configure `dedicated` in the provider's config")
            return await observe_dedicated(self._host, instance)
        return await observe(self._sessions, instance)

    def reissues(self, work: Work) -> bool:
        """Only a move: host, port and perhaps the way to prove oneself are other ones."""
        return moves(work)

    def list_owned(self, store_id: str) -> AsyncIterator[Owned]:
        """Roles, databases and schemas whose comment carries the marker of `store_id`, and dedicated servers' files."""
        return list_owned(self._sessions, self._host, store_id)

    async def quarantine(self, owned: Owned) -> None:
        """A database lets nobody in, a role does not log in, a schema is closed to its group, a server is stopped."""
        await self._custodian.quarantine(owned)

    async def release(self, owned: Owned) -> None:
        """As it was before."""
        await self._custodian.release(owned)

    async def reclaim(self, owned: Owned) -> Done | NotYet:
        """Exactly that thing, while it carries the marker."""
        return await self._custodian.reclaim(owned)

    async def rotate_root(self) -> RootRotated:
        """New passwords for the broker's role, and for the superusers of its own servers."""
        return await self._rotation.rotate()

    async def adoptable(self, source: Mapping[str, Json]) -> Owned | None:
        """Whether the database that `source` names could become an instance."""
        return await adoptable(self._sessions, source, self._environment.store_id)

    async def close(self) -> None:
        """Let go of idle sessions. The servers live on."""
        await self._sessions.close()
        if self._host is not None:
            await self._host.close()

    async def _locate(self) -> Address:
        server = self._config.server
        if server is None:
            return await self._start_embedded()
        try:
            return _address(server, self._environment)
        except PurveyorError as error:
            raise RightsMissing("the PostgreSQL server's password cannot be read", error.message) from error

    async def _start_embedded(self) -> Address:
        options = self._config.embedded_options
        server = EmbeddedServer(self._environment.data_dir, cluster_dir=options.cluster_dir, os_user=options.os_user)
        # Cancelling leaves the thread at work; it is bounded by its own time-outs, and the next caller waits for its lock.
        try:
            running = await asyncio.to_thread(server.start)
        except OSError as error:
            raise Unreachable("the PostgreSQL server cannot be started", str(error)) from error
        kept = PasswordFile(Path(self._environment.data_dir) / EMBEDDED[running.user])
        return kept.address(running.host, running.port, running.user, running.database)


def _cluster_pieces(host: Host, limits: LimitsConfig, source: Sessions, tls: SourceTls, instance_uid: str) -> Cluster:
    """The pieces of an instance's own server; its database is made in there by the pieces of every database."""
    config, cluster = host.config, host.cluster(outside_name(CLUSTER, instance_uid))
    sslmode = config.tls.sslmode if config.tls else "disable"
    endpoint = (config.public_host or config.host, None, sslmode)
    database = InCluster(cluster, DatabasePiece(cluster.sessions, limits))
    return Cluster(
        final_backup=FinalBackupPiece(host),
        server=ServerPiece(host),
        cluster_settings=SettingsPiece(host),
        cluster_files=FilesPiece(host),
        group=InCluster(cluster, GroupPiece(cluster.sessions, limits)),
        database=database,
        logins=InCluster(cluster, LoginsPiece(source, cluster, limits)),
        data=DataPiece(source, tls, cluster, database),
        verified=InCluster(cluster, VerifiedPiece(source, cluster, limits)),
        itself=cluster,
        schema=InCluster(cluster, SchemaPiece(cluster.sessions, limits)),
        extensions=InCluster(cluster, ExtensionsPiece(cluster.sessions, limits)),
        login=LoginInCluster(cluster, DedicatedLoginPiece(cluster.sessions, limits, endpoint, config.tls)),
    )


def _with_certificate(parts: dict[str, Json], secrets: Mapping[str, Secret]) -> Credentials:
    """No password and no URI that would need one: the client names its key file itself."""
    proof = {label: secrets[label].reveal() for label in ("certificate", "private_key")}
    endpoint = Endpoint(str(parts["host"]), (str(parts["port"]),), "tcp")
    return Credentials({**parts, **proof}, (endpoint,))


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else quote(host, safe=".-_")


def _address(server: ServerConfig, environment: ProviderEnvironment) -> Address:
    """Raises INVALID_REQUEST that names the key when the password or the certificate cannot be read."""
    password = environment.reference(server.password.reference)
    address = Address(server.host, server.port, server.user, password, server.admin_database, _tls(server))
    if not server.password.file:
        return address
    kept = PasswordFile(Path(server.password.file))
    return address._replace(spare=kept.spare, promote=kept.promote)


def _tls(server: ServerConfig) -> Tls:
    """What asyncpg takes. Certificates are checked against `sslrootcert`, else against those the system trusts."""
    if server.sslmode == "disable":
        return False
    if server.sslmode in {"prefer", "require"}:
        return server.sslmode
    try:
        context = ssl.create_default_context(cafile=server.sslrootcert or None)
    except OSError as error:  # ssl.SSLError is one
        raise invalid("server.sslrootcert", f"{server.sslrootcert!r} is no file of certificates") from error
    context.check_hostname = server.sslmode == "verify-full"
    return context
