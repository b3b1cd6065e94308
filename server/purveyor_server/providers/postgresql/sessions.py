"""The broker's own sessions in the server: bounded, timed, locked, and never left to an interrupted run.

Guarantee: a piece works on a session that holds the piece's advisory lock; a session whose last word is unknown is dropped,
never reused; no statement runs through objects that a tenant made (search_path is pg_catalog alone).

How `settled` works. Advisory locks belong to one database, so all locks are taken in the admin database, where no tenant
can come and hold them. DDL on roles and databases runs on the very session that holds the lock: while the backend of a
killed broker still executes, the lock is held. Work inside a tenant's database needs a second session there, and its
backend may outlive the first: it carries the lock's key in its application_name from its first message on, and settled
means: the lock is free, and no session of the broker's role with that name is left in any database.
Limit: the connection must be direct: behind a pooler that shares sessions the locks mean nothing. A backend that waits for something else than its client (a lock, the disk) ends by its statement time-out at last.
"""

from __future__ import annotations

import asyncio
import hashlib
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias

import asyncpg

from purveyor_server.kit import failpoints
from purveyor_server.kit.secret import Secret
from purveyor_server.providers.contract import (
    Ambiguous,
    Permanent,
    ProviderError,
    Retryable,
    RightsMissing,
    Unreachable,
)
from purveyor_server.providers.postgresql.config import LimitsConfig
from purveyor_server.providers.postgresql.failures import INVALID_PASSWORD, explain

NAME = "purveyor"
CLIENT_CHECK_SECONDS = 2  # how soon a busy backend notices that its client is gone
KEEPALIVE_SECONDS = 15  # the same for an idle one whose host vanished
CLIENT_MARGIN_SECONDS = 5.0  # the server's statement time-out comes first
UNLOCK = "SELECT pg_advisory_unlock($1)"
LOCK = "SELECT pg_try_advisory_lock($1)"
LEFT = """
SELECT count(*) FROM pg_stat_activity
 WHERE application_name = $1 AND usename = current_user AND pid <> pg_backend_pid()
"""

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
Tls = ssl.SSLContext | Literal[False, "prefer", "require", "verify-ca", "verify-full"]


class Address(NamedTuple):
    """Where the server is and who the broker is there. `tls` is what asyncpg's `ssl` takes."""

    host: str
    port: int
    user: str
    password: Secret
    database: str
    tls: Tls = False
    spare: Secret | None = None  # the other password that may be the right one, while one is being rotated
    promote: Callable[[], None] = lambda: None  # called when it was


class Actor(Protocol):
    """For whom the work is done: names and the announcement of calls. A piece's context is one."""

    def name(self, kind: str, limit: int = 63) -> str:
        """The opaque outside name of its thing `kind`."""
        ...

    def outside(self, call: str) -> None:
        """Announce a call that changes the backend."""
        ...


class Session:
    """One session. `ask` reads, `change` changes; both raise ProviderError only."""

    def __init__(self, connection: Connection, timeout: float) -> None:
        self._connection = connection
        self._timeout = timeout

    async def ask(self, statement: str, *arguments: Any) -> list[asyncpg.Record]:
        """Rows of a query that changes nothing."""
        try:
            return await self._connection.fetch(statement, *arguments, timeout=self._timeout)
        except Exception as error:
            raise explain(error, "ask", changing=False) from error

    async def value(self, statement: str, *arguments: Any) -> Any:
        """First column of the first row, None without rows."""
        rows = await self.ask(statement, *arguments)
        return rows[0][0] if rows else None

    async def change(self, ctx: Actor, call: str, *statements: str) -> None:
        """Announce `call`, then run the statements as one message: one transaction, all or nothing."""
        ctx.outside(call)
        try:
            await self._connection.execute(";\n".join(statements), timeout=self._timeout)
        except Exception as error:
            raise explain(error, call, changing=True) from error

    def drop(self) -> None:
        """Break the connection off."""
        self._connection.terminate()

    @property
    def usable(self) -> bool:
        """Whether the connection may serve again."""
        return not self._connection.is_closed() and not self._connection.is_in_transaction()


def lock_key(ctx: Actor, piece: str) -> int:
    """The advisory lock of `piece` of this incarnation: 64 bits of a hash."""
    digest = hashlib.sha256(f"{piece}:{ctx.name('lock')}".encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


def common_key(what: str) -> int:
    """The advisory lock of a thing that instances share."""
    return int.from_bytes(hashlib.sha256(f"common:{what}".encode()).digest()[:8], "big", signed=True)


@asynccontextmanager
async def holding(session: Session, key: int) -> AsyncIterator[bool]:
    """The advisory lock `key` on `session`, if it is free; let go at the end, with the session when its last word is unknown."""
    locked = bool(await session.value(LOCK, key))
    try:
        yield locked
    except ProviderError as error:
        if locked and not isinstance(error, Ambiguous | Unreachable):
            await session.value(UNLOCK, key)
        raise
    if locked and not await session.value(UNLOCK, key):
        session.drop()


class Sessions:
    """All sessions of one provider. `locate` finds the server (and starts an embedded one); it is asked again after a failure."""

    def __init__(self, locate: Callable[[], Awaitable[Address]], limits: LimitsConfig) -> None:
        self._locate = locate
        self._limits = limits
        self._address: Address | None = None
        self._locating = asyncio.Lock()
        # Two bounds: a run that holds a session of the first kind may wait for one of the second, never the reverse.
        self._inside_slots = asyncio.Semaphore(limits.connections // 2)
        self._admin_slots = asyncio.Semaphore(limits.connections - limits.connections // 2)
        self._idle: list[tuple[float, Session]] = []
        self._pruning: asyncio.TimerHandle | None = None
        self._closed = False

    async def address(self) -> Address:
        """Where the server is."""
        async with self._locating:
            if self._address is None:
                self._address = await self._locate()
            return self._address

    @asynccontextmanager
    async def work(self, ctx: Actor, piece: str) -> AsyncIterator[Session | None]:
        """A session in the admin database that holds the lock of `piece`; None while another run holds it."""
        async with self.admin() as session, holding(session, lock_key(ctx, piece)) as locked:
            yield session if locked or failpoints.is_off("settle") else None  # off: a negative control only

    async def settled(self, ctx: Actor, piece: str) -> bool:
        """True once no earlier run of `piece` is still at work in the server."""
        key = lock_key(ctx, piece)
        async with self.admin() as session:
            if not await session.value(LOCK, key):
                return False
            left = await session.value(LEFT, tag(key))
            return bool(await session.value(UNLOCK, key)) and not left

    @asynccontextmanager
    async def admin(self) -> AsyncIterator[Session]:
        """A session in the admin database. It is kept for the next unless its last word is unknown."""
        async with self._slot(self._admin_slots):
            session = self._take_idle() or await self._open(None, NAME)
            keep = False
            try:
                yield session
                keep = True
            except (Ambiguous, Unreachable):
                raise
            except ProviderError:
                keep = True
                raise
            finally:
                self._give_back(session, keep=keep)

    @asynccontextmanager
    async def inside(self, database: str, ctx: Actor | None = None, piece: str = "") -> AsyncIterator[Session]:
        """A session of its own in `database`, named after the lock of `piece`. Raises Retryable when the database is full."""
        name = tag(lock_key(ctx, piece)) if ctx is not None else NAME
        async with self._slot(self._inside_slots):
            session = await self._open(database, name)
            try:
                yield session
            finally:
                await self._end(session)

    def renew(self) -> None:
        """Open every session anew from now on, with the address as it is then; those at work end with their work."""
        self._address = None
        while self._idle:
            self._idle.pop()[1].drop()

    async def close(self) -> None:
        """Let go of idle sessions; those at work end with their work."""
        self._closed = True
        if self._pruning is not None:
            self._pruning.cancel()
        while self._idle:
            await self._end(self._idle.pop()[1])

    @asynccontextmanager
    async def _slot(self, slots: asyncio.Semaphore) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._limits.connect_timeout_seconds):
                await slots.acquire()
        except TimeoutError as error:
            raise Retryable(
                "the broker's sessions in the PostgreSQL server are all at work", "limits.connections"
            ) from error
        try:
            yield
        finally:
            slots.release()

    async def _open(self, database: str | None, name: str) -> Session:
        address = await self.address()
        try:
            connection = await self._let_in(address, database, name)
        except Exception as error:
            failure = _explain_connect(error)
            if isinstance(failure, Unreachable | RightsMissing):
                self._address = None  # found again next time, with the password as it is by then
            raise failure from error
        return Session(connection, self._limits.statement_timeout_seconds + CLIENT_MARGIN_SECONDS)

    async def _let_in(self, address: Address, database: str | None, name: str) -> Connection:
        """A connection by the password; when it is refused, by what it has become since it was read."""
        try:
            return await self._connect(address, address.password, database, name)
        except asyncpg.PostgresError as error:
            if error.sqlstate not in INVALID_PASSWORD:
                raise
            self._address = None
            fresh = await self.address()
            if fresh.password.reveal() != address.password.reveal():
                return await self._connect(fresh, fresh.password, database, name)
            if fresh.spare is None:
                raise
            connection = await self._connect(fresh, fresh.spare, database, name)
            fresh.promote()
            self._address = None
            return connection

    async def _connect(self, address: Address, password: Secret, database: str | None, name: str) -> Connection:
        return await asyncpg.connect(
            host=address.host,
            port=address.port,
            user=address.user,
            password=password.reveal(),
            database=database or address.database,
            ssl=address.tls,
            timeout=self._limits.connect_timeout_seconds,
            command_timeout=self._limits.statement_timeout_seconds + CLIENT_MARGIN_SECONDS,
            statement_cache_size=0,
            server_settings=self._settings(name),
        )

    def _settings(self, name: str) -> dict[str, str]:
        return {
            "application_name": name,
            "search_path": "pg_catalog, pg_temp",
            "standard_conforming_strings": "on",
            "statement_timeout": f"{self._limits.statement_timeout_seconds * 1000:.0f}",
            "lock_timeout": f"{self._limits.lock_timeout_seconds * 1000:.0f}",
            "idle_in_transaction_session_timeout": f"{self._limits.statement_timeout_seconds * 1000:.0f}",
            "client_connection_check_interval": f"{CLIENT_CHECK_SECONDS * 1000}",
            "tcp_keepalives_idle": f"{KEEPALIVE_SECONDS}",
            "tcp_keepalives_interval": f"{KEEPALIVE_SECONDS}",
            "tcp_keepalives_count": "3",
            "createrole_self_grant": "set, inherit",
        }

    def _take_idle(self) -> Session | None:
        while self._idle:
            _, session = self._idle.pop()
            if session.usable:
                return session
            session.drop()
        return None

    def _give_back(self, session: Session, *, keep: bool) -> None:
        if not keep or self._closed or not session.usable or self._limits.idle_seconds == 0:
            session.drop()
            return
        self._idle.append((time.monotonic(), session))
        if self._pruning is None:
            self._pruning = asyncio.get_running_loop().call_later(self._limits.idle_seconds, self._prune)

    def _prune(self) -> None:
        oldest = time.monotonic() - self._limits.idle_seconds
        for entry in [entry for entry in self._idle if entry[0] <= oldest]:
            self._idle.remove(entry)
            entry[1].drop()
        self._pruning = None
        if self._idle:
            self._pruning = asyncio.get_running_loop().call_later(self._limits.idle_seconds, self._prune)

    async def _end(self, session: Session) -> None:
        """Say good-bye, so that the backend is gone when this returns as far as the client can tell; else break off."""
        try:
            await session._connection.close(timeout=CLIENT_MARGIN_SECONDS)  # noqa: SLF001 - same module
        except Exception:  # noqa: BLE001 - whatever it is, breaking off is the answer
            session.drop()


def tag(key: int) -> str:
    """The application_name of sessions that work under the lock `key`."""
    return f"{NAME} {key & 0xFFFF_FFFF_FFFF_FFFF:016x}"


def _explain_connect(error: Exception) -> ProviderError:
    if isinstance(error, asyncpg.PostgresError) and error.sqlstate in {"42704", "22023"}:
        return Permanent("the PostgreSQL server is too old: version 16 or newer is needed", str(error))
    if isinstance(error, asyncpg.PostgresError) and error.sqlstate == "55000":
        return NotAcceptingError("the database takes no connections", str(error))
    if isinstance(error, asyncpg.PostgresError) and error.sqlstate == "3D000":
        return NotAcceptingError("the database does not exist", str(error))
    if isinstance(error, asyncpg.TooManyConnectionsError):
        return FullError("there are too many sessions in the PostgreSQL server", str(error))
    if isinstance(error, ssl.SSLError):
        return RightsMissing("the PostgreSQL server's certificate was refused", str(error))
    return explain(error, "connect", changing=False)


class NotAcceptingError(Retryable):
    """The database is closed, or not there."""


class FullError(Retryable):
    """No session is free: in the server, or in the database by its connection limit."""
