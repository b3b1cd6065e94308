"""Answers that are kept: the same bytes again until something changes, and never after it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from purveyor_server.domain.errors import PurveyorError, Reason
from purveyor_server.domain.model import Instance, Operation
from purveyor_server.lifecycle.kept import LARGEST, SECONDS, Kept
from purveyor_server.store.contract import Commit
from tests.fakes.broker import Broker, deprovision, open_broker, provision, update
from tests.fakes.situations import INSTANCE, LOCAL, TENANT, somebody

KEY = ("acme", "orders")


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Broker]:
    async with open_broker(tmp_path) as opened:
        yield opened


class Counted:
    """An encoder that counts its work."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self, instance: Instance, last: Operation | None) -> bytes:
        self.times += 1
        return msgspec.json.encode((instance, last))


class Backend:
    """What `Kept` reads from, one read at a time on demand."""

    def __init__(self, answer: bytes = b"old") -> None:
        self.answer = answer
        self.reads = 0
        self.gate: asyncio.Event | None = None
        self.begun = asyncio.Event()

    async def read(self) -> tuple[bytes, bool]:
        answer, self.reads = self.answer, self.reads + 1
        self.begun.set()
        if self.gate is not None:
            await self.gate.wait()
        return answer, True


def commit(broker_operation: Operation) -> Commit:
    return Commit(1, (), (broker_operation,), due=False)


async def test_what_did_not_change_is_read_and_encoded_once(lab: Broker) -> None:
    await lab.end((await lab.door.provision(LOCAL, provision())).operation)
    encode = Counted()

    answers = {await lab.door.view_instance(LOCAL, TENANT, INSTANCE, encode) for _ in range(3)}

    assert (len(answers), encode.times) == (1, 1)


async def test_every_commit_about_it_is_seen_by_the_next_reader(lab: Broker) -> None:
    encode = Counted()

    async def states() -> tuple[str, str]:
        shown, last = msgspec.json.decode(await lab.door.view_instance(LOCAL, TENANT, INSTANCE, encode))
        return shown["state"], last["state"]

    made = await lab.door.provision(LOCAL, provision())
    assert await states() == ("PROVISIONING", "PENDING")
    await lab.end(made.operation)
    assert await states() == ("READY", "SUCCEEDED")
    changed = await lab.door.update(LOCAL, update(parameters={"size": 2}))
    assert await states() == ("UPDATING", "PENDING")
    await lab.end(changed.operation)
    assert await states() == ("READY", "SUCCEEDED")
    gone = await lab.door.deprovision(LOCAL, deprovision())
    assert await states() == ("DEPROVISIONING", "PENDING")
    await lab.end(gone.operation)
    with pytest.raises(PurveyorError) as refused:
        await states()
    assert refused.value.reason is Reason.INSTANCE_NOT_FOUND


async def test_what_is_kept_is_behind_the_door_like_everything(lab: Broker) -> None:
    await lab.door.provision(LOCAL, provision())
    encode = Counted()
    await lab.door.view_instance(LOCAL, TENANT, INSTANCE, encode)

    for caller in (somebody(tenants=frozenset({"others"})), somebody(roles=frozenset())):
        with pytest.raises(PurveyorError) as refused:
            await lab.door.view_instance(caller, TENANT, INSTANCE, encode)
        assert refused.value.reason is Reason.PERMISSION_DENIED
    with pytest.raises(PurveyorError) as missing:
        await lab.door.view_instance(LOCAL, "others", INSTANCE, encode)
    assert missing.value.reason is Reason.INSTANCE_NOT_FOUND


async def test_what_changes_while_it_is_read_is_not_kept(lab: Broker) -> None:
    operation = (await lab.door.provision(LOCAL, provision())).operation
    assert operation is not None
    kept, backend = Kept(1000), Backend()
    backend.gate = asyncio.Event()
    key = (operation.tenant, operation.instance_id)
    first = asyncio.create_task(kept.answer(key, bytes, backend.read))
    await backend.begun.wait()
    kept.on_commit(commit(operation))
    backend.answer = b"new"
    backend.gate.set()

    assert await first == b"old"  # it was the truth when the read began
    assert len(kept) == 0
    assert await kept.answer(key, bytes, backend.read) == b"new"
    assert (len(kept), backend.reads) == (1, 2)


async def test_a_read_that_fails_leaves_nothing() -> None:
    kept, backend = Kept(1000), Backend()

    async def fails() -> tuple[bytes, bool]:
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        await kept.answer(KEY, bytes, fails)
    assert await kept.answer(KEY, bytes, backend.read) == b"old"
    assert (len(kept), len(kept._reading)) == (1, 0)


async def test_it_is_bounded_in_bytes_and_in_time() -> None:
    now = [0.0]
    kept, backend = Kept(25, lambda: now[0]), Backend(b"x" * 10)
    for name in ("a", "b", "c"):
        await kept.answer(("acme", name), bytes, backend.read)
    assert len(kept) == 2
    await kept.answer(("acme", "b"), bytes, backend.read)
    assert backend.reads == 3
    await kept.answer(("acme", "a"), bytes, backend.read)  # pushed out by c; now c goes, b was asked for later
    await kept.answer(("acme", "b"), bytes, backend.read)
    assert backend.reads == 4
    now[0] = SECONDS
    await kept.answer(("acme", "b"), bytes, backend.read)
    assert backend.reads == 5

    whole = Kept(10 * LARGEST)
    backend.answer = b"x" * (LARGEST + 1)
    await whole.answer(KEY, bytes, backend.read)
    assert len(whole) == 0
