"""What goes wrong gets the right name, in our words, and is no worse afterwards."""

from __future__ import annotations

import asyncio
import re
import struct
import uuid

import asyncpg
import pytest

from purveyor_server.domain.states import Make, Verb
from purveyor_server.providers.contract import (
    Ambiguous,
    BindingWork,
    Permanent,
    ProviderError,
    Retryable,
    RightsMissing,
    Unreachable,
)
from purveyor_server.providers.postgresql import PostgresProvider
from purveyor_server.providers.postgresql.failures import explain
from purveyor_server.providers.postgresql.roles import STARTING
from tests.postgres_server import TestServer
from tests.provider_contract.shop import Shop, until

SERVER_TEXT = "text of the server about pv_usr_x"


@pytest.mark.parametrize(
    ("error", "changing", "kind"),
    [
        (asyncpg.InsufficientPrivilegeError, True, RightsMissing),
        (asyncpg.InvalidPasswordError, False, RightsMissing),
        (asyncpg.TooManyConnectionsError, False, Retryable),
        (asyncpg.ObjectInUseError, True, Retryable),
        (asyncpg.LockNotAvailableError, True, Retryable),
        (asyncpg.SerializationError, True, Retryable),
        (asyncpg.DeadlockDetectedError, True, Retryable),
        (asyncpg.QueryCanceledError, True, Retryable),
        (asyncpg.DependentObjectsStillExistError, True, Retryable),
        (asyncpg.DiskFullError, True, Retryable),
        (asyncpg.UndefinedObjectError, True, Permanent),
        (asyncpg.InvalidParameterValueError, True, Permanent),
        (asyncpg.AdminShutdownError, True, Ambiguous),
        (asyncpg.AdminShutdownError, False, Unreachable),
        (asyncpg.CannotConnectNowError, False, Unreachable),
        (asyncpg.ConnectionDoesNotExistError, True, Ambiguous),
        (asyncpg.ConnectionDoesNotExistError, False, Unreachable),
        (asyncpg.InterfaceError, False, Unreachable),
        (ConnectionResetError, True, Ambiguous),
        (ConnectionRefusedError, False, Unreachable),
        (TimeoutError, True, Ambiguous),
        (TimeoutError, False, Unreachable),
        (ValueError, False, Ambiguous),
    ],
)
def test_every_error_has_its_name(error: type[Exception], changing: bool, kind: type[ProviderError]) -> None:  # noqa: FBT001 - a table
    failure = explain(error(SERVER_TEXT), "a_call", changing=changing)

    assert type(failure) is kind
    assert SERVER_TEXT not in failure.message
    assert SERVER_TEXT in failure.detail


def test_a_race_on_one_tuple_is_retried() -> None:
    failure = explain(asyncpg.InternalServerError("tuple concurrently updated"), "open_database", changing=True)

    assert type(failure) is Retryable


@pytest.mark.postgres
async def test_a_session_that_is_cut_after_a_change_was_sent_is_ambiguous(shop: Shop) -> None:
    work = shop.work_of_new()
    group, database = list(shop.provider.plan(work, {}))[:2]
    await shop.step(group.piece, Make.ENSURE, work)
    await shop.step(database.piece, Make.ENSURE, work)

    async with shop.server.superuser() as superuser:
        name = shop.context(work).instance_name("db")
        await superuser.execute("BEGIN")
        await superuser.execute(f"COMMENT ON DATABASE {name} IS 'held'; ALTER DATABASE {name} CONNECTION LIMIT 9")
        running = shop.start(database.piece.ensure(shop.context(work)))
        await until(shop.waits_for_lock)
        await superuser.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1".replace(
                "$1", f"'{shop.server.running.user}'"
            )
        )
        with pytest.raises(Ambiguous):
            await running
        await superuser.execute("ROLLBACK")
    await until(lambda: database.piece.settle(shop.context(work)))
    await shop.step(database.piece, Make.ENSURE, work)


@pytest.mark.postgres
async def test_a_cancelled_call_leaves_no_session_at_work(shop: Shop) -> None:
    work = shop.work_of_new()
    group, database = list(shop.provider.plan(work, {}))[:2]
    await shop.step(group.piece, Make.ENSURE, work)

    async with shop.server.superuser() as superuser:
        await superuser.execute("BEGIN")
        await superuser.execute("ALTER DATABASE template0 RENAME TO template_zero")
        running = shop.start(database.piece.ensure(shop.context(work)))
        await until(shop.waits_for_lock)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        await until(lambda: database.piece.settle(shop.context(work)))
        await superuser.execute("ROLLBACK")

    await shop.step(database.piece, Make.ENSURE, work)


@pytest.mark.postgres
async def test_a_server_without_free_sessions_is_retried(postgres: TestServer, shop: Shop) -> None:
    """The broker has sessions reserved; here they are taken away from it by a limit of its own role."""
    provider = PostgresProvider(postgres.config, postgres.environment())
    async with postgres.superuser() as superuser:
        await superuser.execute("ALTER ROLE purveyor_admin CONNECTION LIMIT 0")
        try:
            with pytest.raises(Retryable) as refused:
                await provider.check()
        finally:
            await superuser.execute("ALTER ROLE purveyor_admin CONNECTION LIMIT -1")
    assert not isinstance(refused.value, Unreachable)
    await provider.close()


@pytest.mark.postgres
async def test_a_session_of_a_superuser_is_not_ended_by_force(shop: Shop) -> None:
    """Somebody with more rights is at work in the database: an operator must decide; nothing hangs."""
    uid = await shop.provision()
    database = shop.context(shop.work(Verb.PROVISION, uid)).instance_name("db")

    async with shop.server.superuser(database):
        with pytest.raises((RightsMissing, Retryable)):
            await shop.deprovision(uid)

    async def gone() -> bool:
        async with shop.server.superuser() as superuser:
            sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = $1"
            return not await superuser.fetchval(sql, database)

    await until(gone)


@pytest.mark.postgres
async def test_more_work_than_sessions_waits_its_turn(shop: Shop) -> None:
    uid = await shop.provision()

    bound = await asyncio.gather(*(shop.bind(uid) for _ in range(20)))
    await asyncio.gather(*(shop.unbind(uid, binding.uid) for binding, _ in bound))

    assert len({credentials["password"] for _, credentials in bound}) == 20


@pytest.mark.postgres
async def test_instances_are_made_side_by_side(shop: Shop) -> None:
    uids = await asyncio.gather(*(shop.provision() for _ in range(6)))
    await asyncio.gather(*(shop.deprovision(uid) for uid in uids))


@pytest.mark.postgres
async def test_a_login_in_the_making_is_waited_for_but_not_for_long(shop: Shop) -> None:
    """A session that passed the check for NOLOGIN is in no view yet; it holds a virtual transaction. So does a stranger who
    does not say his password, and that must not keep an unbind from its end."""
    uid = await shop.provision()
    binding, credentials = await shop.bind(uid)
    reader, writer = await asyncio.open_connection("127.0.0.1", shop.server.port)
    words = f"user\0{credentials['username']}\0database\0{credentials['database']}\0\0".encode()
    writer.write(struct.pack("!ii", len(words) + 8, 196608) + words)
    assert (await asyncio.wait_for(reader.readexactly(1), 10)) == b"R"  # it asks for the password

    async with shop.server.superuser() as superuser:
        seen = [row["pid"] for row in await superuser.fetch(STARTING)]
        await asyncio.wait_for(shop.unbind(uid, binding.uid), 10)
        assert len(seen) >= 1

    writer.close()
    await writer.wait_closed()


@pytest.mark.postgres
async def test_messages_hold_no_names_of_the_server(shop: Shop) -> None:
    work = shop.work(Verb.BIND, str(uuid.uuid4()), binding=BindingWork(str(uuid.uuid4()), {}))
    (step,) = shop.provider.plan(work, {})

    with pytest.raises(Permanent) as refused:
        await step.piece.ensure(shop.context(work))
    assert not re.search(r"pv_|role \"|127\.0\.0\.1", refused.value.message)
