"""Pieces of a database, done in a dedicated server.

Guarantee: a server that was stopped or killed is started again before anything is done in it; one server that cannot be
worked with is a fault of its instance, not of the provider (no circuit opens).
"""

from __future__ import annotations

from purveyor_server.domain.errors import PurveyorError
from purveyor_server.kit.secret import Secret
from purveyor_server.providers.contract import Context, Done, NotYet, Permanent, Piece, Retryable, Unreachable
from purveyor_server.providers.postgresql.config import LimitsConfig, TlsConfig
from purveyor_server.providers.postgresql.dedicated import wake
from purveyor_server.providers.postgresql.host import Cluster
from purveyor_server.providers.postgresql.login import LoginPiece, Proof, by_password
from purveyor_server.providers.postgresql.pieces import login_parameters
from purveyor_server.providers.postgresql.roles import NO_RIGHTS
from purveyor_server.providers.postgresql.sessions import Session, Sessions
from purveyor_server.providers.postgresql.sql import ident
from purveyor_server.providers.postgresql.tuning import CERTIFICATE_ROLE

GROUP_EXISTS = "SELECT count(*) FROM pg_roles WHERE rolname = $1"


class InCluster:
    """A piece of an instance in its own server. It goes with the server's files: `absent` has nothing to do."""

    def __init__(self, cluster: Cluster, inner: Piece) -> None:
        self._cluster = cluster
        self._inner = inner
        self.name = inner.name
        self.weight = inner.weight
        self.mints = inner.mints

    async def ensure(self, ctx: Context) -> Done | NotYet:
        """As the piece does."""
        await wake(ctx, self._cluster)
        try:
            return await self._inner.ensure(ctx)
        except Unreachable as error:
            raise _of_one(error) from error

    async def absent(self, ctx: Context) -> Done | NotYet:  # noqa: ARG002 - the protocol's
        """Nothing: the files are next."""
        return Done()

    async def settle(self, ctx: Context) -> bool:
        """True when the server does not run, else as the piece says."""
        if not self._cluster.runs:
            return True
        try:
            return await self._inner.settle(ctx)
        except Unreachable as error:
            raise _of_one(error) from error


class LoginInCluster(InCluster):
    """A login outlives nothing but its binding: it is taken out of the server."""

    async def absent(self, ctx: Context) -> Done | NotYet:
        """As the piece does; without a server there is no login."""
        if self._cluster.state is None or not self._cluster.folders.data.exists():
            return Done()
        await wake(ctx, self._cluster)
        try:
            return await self._inner.absent(ctx)
        except Unreachable as error:
            raise _of_one(error) from error


class DedicatedLoginPiece(LoginPiece):
    """A login role that may prove itself by a client certificate, where there is a CA for that."""

    def __init__(
        self, sessions: Sessions, limits: LimitsConfig, endpoint: tuple[str, int | None, str], tls: TlsConfig | None
    ) -> None:
        super().__init__(sessions, limits, endpoint)
        self._tls = tls

    async def _proof(self, ctx: Context, session: Session, role: str) -> Proof:
        authority = self._tls.root() if self._tls is not None else ""
        outputs = {"ca_certificate": authority} if authority else {}
        if login_parameters(ctx).credentials == "password":
            return by_password(ctx, role)._replace(outputs=outputs)
        if self._tls is None or not self._tls.client_ca_key:
            raise Permanent("credentials: this plan offers passwords only")
        from purveyor_server.providers.postgresql.certificates import mint  # noqa: PLC0415 - loads more than all of gRPC

        await self._make_certificate_role(ctx, session)
        expires = ctx.work.binding.expires_at if ctx.work.binding is not None else None
        try:
            made = mint(self._tls, role, expires)
        except PurveyorError as error:
            raise Permanent("credentials: the client CA cannot be used", error.message) from error
        member = f"GRANT {ident(CERTIFICATE_ROLE)} TO {ident(role)} WITH ADMIN FALSE, INHERIT FALSE, SET FALSE"
        secrets = {"certificate": Secret(made.certificate), "private_key": Secret(made.private_key)}
        return Proof("NULL", (member,), secrets, outputs)

    async def _make_certificate_role(self, ctx: Context, session: Session) -> None:
        if not await session.value(GROUP_EXISTS, CERTIFICATE_ROLE):
            await session.change(
                ctx, "make_certificate_role", f"CREATE ROLE {ident(CERTIFICATE_ROLE)} NOLOGIN {NO_RIGHTS}"
            )


def _of_one(error: Unreachable) -> Retryable:
    return Retryable("the instance's PostgreSQL server does not answer", error.detail)
