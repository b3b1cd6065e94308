"""Keys of a serving broker: everything is sealed again, whatever is written or breaks off meanwhile, and old keys can go."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import sys
from collections.abc import Sequence
from contextlib import aclosing
from typing import Any

import pytest

import purveyor
from purveyor.admin import AdminClient
from purveyor.errors import FailedPreconditionError, InvalidRequestError
from purveyor_server.domain.errors import PurveyorError, Reason
from purveyor_server.domain.model import SealedSecret
from purveyor_server.domain.principal import Principal
from purveyor_server.lifecycle.admin.contract import Act, AdminParts
from purveyor_server.lifecycle.admin.keys import BATCH, retire_key, rotate_keys
from purveyor_server.lifecycle.contract import Caller
from purveyor_server.security.keyfile import KeyFile
from purveyor_server.security.keyring import unlock
from purveyor_server.security.keytext import KeyFileError, KeyTrouble
from purveyor_server.security.sealing import label_of
from purveyor_server.store.contract import SYSTEM, Accept, Decision, Situation, Store, Writes
from purveyor_server.store.operating import Resealed
from tests.rpc.whole import Whole

TENANT, ACT = "t", Act(reason="yearly")
OPERATOR = Caller(Principal(subject="op", roles=frozenset({"OPERATOR"}), tenants=None))
MANY = 2 * BATCH + 10
RUN_SECONDS = 60


@pytest.fixture
def source(broker: Whole) -> KeyFile:
    found = broker.admin_parts.keys.source
    assert isinstance(found, KeyFile)
    return found


async def put(parts: AdminParts, name: str, count: int = 1, clear: bytes = b"clear") -> None:
    """Seal values and store them, in one command."""
    seal = parts.keys.sealer.seal
    rows = tuple(SealedSecret(f"u{n:05}", name, seal(f"u{n:05}", name, clear)) for n in range(count))

    def decide(_situation: Situation) -> Decision:
        return Decision(Writes(secrets=rows))

    await parts.store.accept(Accept(SYSTEM, TENANT, "filler", decide))


async def rows(store: Store) -> list[SealedSecret]:
    """Every sealed value."""
    found: list[SealedSecret] = []
    after = ("", "")
    while page := await store.sealed(after, 500):
        found += page
        after = (page[-1].owner, page[-1].name)
    return found


async def labels(store: Store) -> set[str]:
    return {label_of(row.sealed) for row in await rows(store)}


async def rotated(parts: AdminParts, act: Act = ACT) -> int:
    """How many values a whole rotation sealed again."""
    told = [part async for part in rotate_keys(parts, OPERATOR, act)]
    assert [part.done for part in told][-1]
    return told[-1].resealed


async def test_everything_is_sealed_again_while_serving(broker: Whole, admin: AdminClient, source: KeyFile) -> None:
    async with purveyor.Client(broker.address, tenant=TENANT) as client:
        await (await client.provision("svc", "big", instance_id="orders", wait=20)).result()
        bound = await (await client.bind("orders", binding_id="app", wait=20)).result()
        await put(broker.admin_parts, "filler", MANY)
        source.add()

        told = [part async for part in admin.rotate_keys("yearly")]

        assert await client.credentials("orders", "app") == bound.credentials
        after = await (await client.bind("orders", binding_id="next", wait=20)).result()
        assert await client.credentials("orders", "next") == after.credentials
    assert (told[-1].label, told[-1].done, told[-1].unreadable) == ("k2", True, 0)
    assert told[-1].resealed >= MANY + 1
    assert await labels(broker.store) == {"k2"}
    found = {key.label: key for key in await admin.keys()}
    assert (found["k1"].values, found["k1"].primary, found["k1"].present) == (0, False, True)
    assert (found["k2"].primary, found["k2"].present) == (True, True)
    assert found["k2"].values >= MANY + 3
    parts = [record.details.get("part") async for record in admin.audit() if record.action == "RotateKeys"]
    assert parts == ["end", "begin"]


async def test_the_old_key_can_go_and_the_stores_own_keys_stay(
    broker: Whole, admin: AdminClient, source: KeyFile
) -> None:
    before = broker.admin_parts.keys
    source.add()
    with pytest.raises(FailedPreconditionError, match="it seals what is new"):
        await admin.retire_key("k1", "too early")
    async for _ in admin.rotate_keys("yearly"):
        pass

    assert await admin.retire_key("k1", "rotated")
    assert not await admin.retire_key("k1", "again")

    assert list(source.load()) == ["k2"]
    again = await unlock(broker.store, source)
    assert (again.digest_key, again.page_key) == (before.digest_key, before.page_key)  # tokens live on


async def test_an_old_key_may_be_taken_away_by_hand_once_the_rotation_is_over(
    broker: Whole, admin: AdminClient, source: KeyFile
) -> None:
    await put(broker.admin_parts, "filler", 3)
    source.add()
    async for _ in admin.rotate_keys("yearly"):
        pass

    source.remove("k1")

    again = await unlock(broker.store, source)
    assert (repr(again.sealer), again.older) == ("Sealer(k2)", ())


async def test_the_command_line_shows_and_rotates(broker: Whole, source: KeyFile) -> None:
    async def purveyor_keys(*words: str) -> tuple[int, str]:
        command = (sys.executable, "-m", "purveyor.cli", "keys", *words, "--admin", broker.address)
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        out, _ = await asyncio.wait_for(process.communicate(), RUN_SECONDS)
        assert process.returncode is not None
        return process.returncode, out.decode()

    await put(broker.admin_parts, "filler", 3)
    source.add()

    assert await purveyor_keys("retire", "k1", "--reason", "too early") == (5, "")
    code, out = await purveyor_keys("rotate", "--reason", "yearly")
    assert (code, out) == (0, "everything sealed with k2: 3 values, 3 sealed again\n")
    code, out = await purveyor_keys("list", "--json")
    assert [(key["label"], key["values"], key["primary"]) for key in json.loads(out)] == [
        ("k2", 7, True),  # two of them for the chain of audit records
        ("k1", 0, False),
    ]
    assert await purveyor_keys("retire", "k1", "--reason", "over") == (0, "taken out of the key file: k1\n")
    code, out = await purveyor_keys("list")
    assert out.split()[-4:] == ["k2", "7", "yes", "yes"]


async def test_a_key_in_use_is_neither_retired_nor_missed_in_silence(
    broker: Whole, admin: AdminClient, source: KeyFile
) -> None:
    source.add()
    async for _ in admin.rotate_keys("yearly"):
        pass
    source.add()
    ring = await unlock(broker.store, source)
    late = dataclasses.replace(broker.admin_parts, keys=ring)
    await put(late, "late")

    with pytest.raises(PurveyorError, match="1 values are sealed with it") as caught:
        await retire_key(broker.admin_parts, OPERATOR, "k3", ACT)
    assert caught.value.reason is Reason.IN_USE
    source.remove("k3")
    with pytest.raises(KeyFileError) as lost:
        await unlock(broker.store, source)
    assert lost.value.trouble is KeyTrouble.LOST
    assert "'k3'" in lost.value.message


async def test_what_broke_off_goes_on_with_the_next_call(broker: Whole, source: KeyFile) -> None:
    """As a crash leaves it: a process of its own, which knows nothing but the key file and the store."""
    parts = broker.admin_parts
    await put(parts, "filler", MANY)
    source.add()
    broken = dataclasses.replace(parts, store=Failing(parts.store, calls=2), rotating=parts.rotating)

    with pytest.raises(ConnectionError):
        await rotated(broken)

    counted = [label_of(row.sealed) for row in await rows(broker.store)]
    assert counted.count("k2") == BATCH
    fresh = dataclasses.replace(parts, keys=await unlock(broker.store, source))
    assert fresh.keys.sealer.primary == "k2"
    assert await rotated(fresh) == MANY - BATCH
    assert await labels(broker.store) == {"k2"}
    assert await rotated(fresh) == 0


async def test_what_is_written_meanwhile_is_not_overwritten(broker: Whole, source: KeyFile) -> None:
    parts = broker.admin_parts
    await put(parts, "changing", clear=b"before")
    source.add()
    racing = Racing(parts.store, parts)

    await rotated(dataclasses.replace(parts, store=racing))

    assert racing.raced
    (row,) = [row for row in await rows(broker.store) if row.name == "changing"]
    assert parts.keys.sealer.open(row.owner, row.name, row.sealed) == b"after"
    assert label_of(row.sealed) == "k2"


async def test_a_value_that_cannot_be_opened_keeps_its_key_in_use(broker: Whole, source: KeyFile) -> None:
    parts = broker.admin_parts
    moved = parts.keys.sealer.seal("elsewhere", "x", b"clear")

    def decide(_situation: Situation) -> Decision:
        return Decision(Writes(secrets=(SealedSecret("u", "x", moved),)))

    await parts.store.accept(Accept(SYSTEM, TENANT, "filler", decide))
    await put(parts, "filler", 3)
    source.add()

    told = [part async for part in rotate_keys(parts, OPERATOR, ACT)]

    assert (told[-1].resealed, told[-1].unreadable) == (3, 1)
    with pytest.raises(PurveyorError, match="1 values are sealed with it"):
        await retire_key(parts, OPERATOR, "k1", ACT)


async def test_checks_alone_change_nothing(broker: Whole, admin: AdminClient, source: KeyFile) -> None:
    await put(broker.admin_parts, "filler", 3)
    source.add()

    told = [part async for part in admin.rotate_keys("only a look", validate_only=True)]

    assert [(part.label, part.done, part.resealed) for part in told] == [("k2", True, 0)]
    assert broker.admin_parts.keys.sealer.primary == "k1"
    assert await labels(broker.store) == {"k1"}
    assert [record async for record in admin.audit()] == []


async def test_one_rotation_at_a_time(broker: Whole, source: KeyFile) -> None:
    await put(broker.admin_parts, "filler", 3)
    source.add()
    async with aclosing(rotate_keys(broker.admin_parts, OPERATOR, ACT)) as first:  # type: ignore[type-var] # a generator
        await anext(aiter(first))
        with pytest.raises(PurveyorError) as caught:
            await retire_key(broker.admin_parts, OPERATOR, "k1", ACT)
    assert caught.value.reason is Reason.OPERATION_IN_PROGRESS


async def test_keys_that_cannot_be_right_are_refused(broker: Whole, admin: AdminClient, source: KeyFile) -> None:
    whole = source.path.read_bytes()
    for text, words in (
        (b"", "holds no keys"),
        (b"purveyor-keys 1\nk9 " + b"A" * 43 + b"=\n", "the key 'k1' is missing"),
        (b"purveyor-keys 1\nk1 " + b"A" * 43 + b"=\n", "is not the one that this store is sealed with"),
    ):
        source.path.write_bytes(text)
        with pytest.raises(FailedPreconditionError, match=words):
            async for _ in admin.rotate_keys("yearly"):
                pass
    source.path.write_bytes(whole)
    assert broker.admin_parts.keys.sealer.primary == "k1"
    with pytest.raises(InvalidRequestError, match="label"):
        await admin.retire_key("No Label", "wrong")


async def test_consumers_may_not(broker: Whole) -> None:
    consumer = Caller(Principal(subject="app", roles=frozenset({"CONSUMER", "VIEWER"}), tenants=frozenset({TENANT})))
    for call in (
        anext(aiter(rotate_keys(broker.admin_parts, consumer, ACT))),
        retire_key(broker.admin_parts, consumer, "k1", ACT),
    ):
        with pytest.raises(PurveyorError) as caught:
            await call
        assert caught.value.reason is Reason.PERMISSION_DENIED


class Around:
    """A store whose answers a test bends."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


class Failing(Around):
    """The connection to it is lost at the given re-sealing command."""

    def __init__(self, store: Store, calls: int) -> None:
        super().__init__(store)
        self._calls = calls

    async def reseal(self, changes: Sequence[Resealed]) -> int:
        self._calls -= 1
        if not self._calls:
            raise ConnectionError
        return await self._store.reseal(changes)


class Racing(Around):
    """Somebody writes between the look at a value and the command that replaces it."""

    def __init__(self, store: Store, parts: AdminParts) -> None:
        super().__init__(store)
        self._parts = parts
        self.raced = False

    async def reseal(self, changes: Sequence[Resealed]) -> int:
        if not self.raced:
            self.raced = True
            await put(self._parts, "changing", clear=b"after")
        return await self._store.reseal(changes)
