"""A full disk: nothing half done, the innocent are served, and it goes on when there is room."""

from __future__ import annotations

import asyncio

import pytest

from purveyor_server.domain.errors import PurveyorError, Reason
from purveyor_server.domain.model import Operation
from purveyor_server.kit import failpoints
from purveyor_server.kit.clock import ManualClock
from purveyor_server.store.contract import Advance, Store, Writes
from tests.store_contract import records
from tests.store_contract.backends import Backend
from tests.store_contract.checks import faults
from tests.store_contract.conftest import OpenStore
from tests.store_contract.records import claim, finishing, look, provision, write


@pytest.fixture(autouse=True)
def _needs_a_disk_to_fill(backend: Backend) -> None:
    if not backend.can_fill:
        pytest.skip(f"the disk of {backend.name} cannot be made full from here")


async def big(store: Store, number: int, size: int = 300_000) -> Operation:
    """A provision whose row needs many new pages."""
    return await provision(store, "acme", f"big{number}", sentence="x" * size)


async def test_a_command_that_does_not_fit_is_refused_and_leaves_nothing(store: Store, backend: Backend) -> None:
    await provision(store)
    with backend.full():
        with pytest.raises(PurveyorError) as caught:
            await big(store, 1)
        assert caught.value.reason is Reason.STORE_FULL
        assert len((await look(store)).operations) == 1  # reads and small things go on
    assert await faults(store, ["acme"]) == []
    await big(store, 2)
    await store.ping()


async def crowd(store: Store, backend: Backend) -> list[object]:
    """One command that does not fit among small ones that do, all at once."""
    await provision(store)
    made = (await look(store)).instance
    assert made is not None
    quiet = [records.operation(made, request=None) for _ in range(3)]
    await write(store, Writes(operations=tuple(quiet)))
    with backend.full():
        small = [write(store, Writes(quiet=(records.parked(one, None),))) for one in quiet]
        return list(await asyncio.gather(small[0], big(store, 1), small[1], small[2], return_exceptions=True))


async def test_the_innocent_commands_of_a_lost_batch_are_run_again(store: Store, backend: Backend) -> None:
    answers = await crowd(store, backend)
    failed = [answer for answer in answers if isinstance(answer, BaseException)]
    assert [getattr(error, "reason", None) for error in failed] == [Reason.STORE_FULL]
    assert answers.index(failed[0]) == 1
    assert (await store.backlog()).parked == 3
    assert await faults(store, ["acme"]) == []


async def test_a_batch_that_is_not_run_again_is_found(store: Store, backend: Backend) -> None:
    """Negative control of the test above."""
    failpoints.arm("store.rerun=off")
    answers = await crowd(store, backend)
    assert sum(isinstance(answer, BaseException) for answer in answers) > 1


async def test_below_the_low_water_mark_only_new_things_are_refused(
    open_store: OpenStore, backend: Backend, clock: ManualClock
) -> None:
    store = await open_store(low_water_bytes=1000)
    await provision(store)
    backend.free = 999  # type: ignore[attr-defined]  # a knob of backends that watch a disk
    clock.advance(2)
    with pytest.raises(PurveyorError) as caught:
        await write(store, Writes(instances=(records.instance(instance_id="new"),)), creates=True)
    assert caught.value.reason is Reason.STORE_FULL
    assert (await write(store, Writes(), creates=True)).writes == Writes()  # a replay is answered
    (claimed,) = await claim(store)
    await store.advance(Advance(claimed.fence, finishing))
    backend.free = 1000  # type: ignore[attr-defined]  # as above
    clock.advance(2)
    await write(store, Writes(instances=(records.instance(instance_id="new"),)), creates=True)
