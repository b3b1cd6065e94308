"""A provider that is bad in every way is survived: a named end, a neighbour that is served, and nothing left behind."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import structlog
from msgspec import MsgspecError
from msgspec.structs import replace

from purveyor_server.domain.errors import PurveyorError, Reason
from purveyor_server.domain.model import Operation
from purveyor_server.domain.states import BindingState, InstanceState, Make, OperationState, Verb, Waiting
from purveyor_server.kit.backoff import Backoff
from purveyor_server.kit.watchdog import Watchdog
from purveyor_server.providers.contract import Ambiguous, Done, Schemas
from purveyor_server.providers.facade import FacadeSettings, ProviderFacade
from purveyor_server.providers.testing import TOPICS, ContractBroken
from tests.engine.bench import PLAN_NEXT_DOOR, REF, SETTINGS, Bench
from tests.engine.misdeeds import ROWS, Row, does, gives, sibling_credentials
from tests.fakes.provider import ScriptedProvider
from tests.provider_contract.memory import MemoryCase

HASTY = replace(SETTINGS, max_attempts=2, retry=Backoff(first=0.01, factor=1.0, ceiling=0.01))
PARKED = {OperationState.RUNNING, OperationState.ROLLING_BACK}


@asynccontextmanager
async def misused(folder: Path, row: Row, facade: type[ProviderFacade] = ProviderFacade) -> AsyncIterator[Bench]:
    """A bench whose provider is spoilt; for a BIND there is an instance, and a binding of another's that is well."""
    bench = Bench(folder, HASTY)
    bench.facade = facade
    bench.facade_settings = FacadeSettings(call=row.call, settle=0.3, grace=0.05)
    if row.verb is not Verb.BIND:
        row.spoil(bench)
    await bench.open()
    try:
        if row.verb is Verb.BIND:
            await bench.ended(await bench.provision())
            row.spoil(bench)
            if row.name == "a sibling's credentials":
                await bench.ended(await bench.bind("b0"))
        yield bench
    finally:
        await bench.close()


async def misdo(bench: Bench, row: Row) -> Operation:
    """The operation of the row as it ended or was parked."""
    begun = await (bench.bind() if row.verb is Verb.BIND else bench.provision())
    return await bench.until(lambda now: now.done or _parked(now), begun.operation_id)


def _parked(operation: Operation) -> bool:
    return operation.waiting is Waiting.HELD


async def judge(bench: Bench, row: Row) -> None:
    """The end that the row names, and a neighbour that was served meanwhile."""
    ended, neighbour = await asyncio.gather(misdo(bench, row), _neighbour(bench))
    assert neighbour.state is OperationState.SUCCEEDED
    assert ended.state is row.state, (ended.state, ended.failure, ended.waiting_detail)
    assert 0 <= ended.percent <= 100
    if row.state in PARKED:
        assert re.search(row.words, ended.waiting_detail)
    elif row.reason is None:
        assert ended.failure is None
    else:
        assert ended.failure is not None
        assert (ended.failure.reason, bool(re.search(row.words, ended.failure.message))) == (row.reason, True), (
            ended.failure
        )
        assert len(ended.failure.message) <= 700


async def _neighbour(bench: Bench) -> Operation:
    return await bench.ended(await bench.provision("beside", plan=PLAN_NEXT_DOOR))


async def leave_nothing(bench: Bench, row: Row) -> None:
    """The provider is mended; what it began is taken away, and the record says so."""
    honest = ScriptedProvider(bench.world)
    bench.provider.pieces, bench.provider.login = honest.pieces, honest.login
    for name in ("plan", "credentials"):
        vars(bench.provider).pop(name, None)
    if row.state in PARKED:
        found = await bench.instance()
        over = await bench.operation(found.last_operation)
        await bench.ended(over)
    instance = await bench.cleaned()
    if row.verb is Verb.BIND:
        assert (await bench.binding()).state is BindingState.FAILED
        assert (
            not [name for name in bench.world.things if "login" in name and "b0" not in row.name]
            or "sibling" in row.name
        )
    if instance.state is not InstanceState.FAILED:
        if "sibling" in row.name:
            await bench.ended(await bench.unbind("b0"))
        await bench.ended(await bench.deprovision())
    assert bench.world.things == {}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
async def test_a_misdeed_is_survived(tmp_path: Path, row: Row) -> None:
    """See the table."""
    async with misused(tmp_path, row) as bench:
        await judge(bench, row)
        await leave_nothing(bench, row)


class Credulous(ProviderFacade):
    """A guard that believes whatever comes back."""

    def _checked_plan(self, planned: Any) -> Any:
        return tuple(planned)

    def _checked_answer(self, piece: str, make: Make, answer: Any) -> Any:
        return answer

    def _checked_credentials(self, answer: Any) -> Any:
        return answer


UNGUARDED = [
    "answers None",
    "outputs are no JSON",
    "outputs are large",
    "secrets are a text",
    "a secret is in clear",
    "a weight of NaN",
    "a weight of text",
    "two steps of one name",
    "credentials are none",
    "credentials are large",
    "credentials of nobody",
]


@pytest.mark.parametrize("name", UNGUARDED)
async def test_without_the_guard_the_row_is_red(tmp_path: Path, name: str) -> None:
    """Negative control: the table finds that a check was taken out."""
    row = next(row for row in ROWS if row.name == name)
    with pytest.raises(
        (AssertionError, TimeoutError, PurveyorError, MsgspecError)
    ):  # the last: a value that poisons the store
        async with misused(tmp_path, row, Credulous) as bench, asyncio.timeout(2):
            await judge(bench, row)


async def test_a_blocked_loop_is_told_and_then_all_go_on(tmp_path: Path) -> None:
    """Nobody can end the block; the watchdog names it, and whoever waited is served afterwards."""
    told = threading.Event()

    async def block(_ctx: Any) -> Done:
        assert told.wait(10)
        return Done()

    dog = Watchdog(0.1)
    dog.on_blocked = told.set
    row = Row("blocks the loop", does(block), call=10.0, reason=None, state=OperationState.SUCCEEDED)
    with structlog.testing.capture_logs() as lines:
        dog.start()
        try:
            async with misused(tmp_path, row) as bench:
                await judge(bench, row)
        finally:
            dog.stop()

    assert (
        next(line["busy_with"] for line in lines if line["event"] == "event loop is blocked")
        == "provider main: space.ensure"
    )


async def test_a_run_that_was_given_up_has_no_say_any_more(tmp_path: Path) -> None:
    """It ignored its cancellation and lives on; what it asks of its context is refused."""
    refused: list[str] = []
    go_on, done = asyncio.Event(), asyncio.Event()

    async def cling(ctx: Any) -> Done:
        while not go_on.is_set():
            with suppress(asyncio.CancelledError):
                await go_on.wait()
        for ask, asked in ((ctx.outside, ("x",)), (ctx.report, (1, "x"))):
            try:
                ask(*asked)
            except Ambiguous as error:
                refused.append(error.message)
        for call in (ctx.save(1), ctx.allocate("pool", 1, 2)):
            try:
                await call
            except Ambiguous as error:
                refused.append(error.message)
        done.set()
        return Done()

    row = Row("clings", does(cling), "did not answer", Reason.PROVIDER_TIMEOUT)
    async with misused(tmp_path, row) as bench:
        await judge(bench, row)
        go_on.set()
        await asyncio.wait_for(done.wait(), 5)

        assert set(refused) == {"this run of the step was given up"}
        assert len(refused) % 4 == 0


async def test_shared_credentials_without_unique_fields_are_for_the_suite_to_find(tmp_path: Path) -> None:
    """The limit of the broker: it cannot know which fields may not be shared. The contract suite refuses such a provider."""
    row = Row("shares", gives(sibling_credentials), reason=None, verb=Verb.BIND, state=OperationState.SUCCEEDED)
    async with misused(tmp_path, row) as bench:
        facade = bench.registry.facade(REF)
        facade.schemas = Schemas()
        await bench.ended(await bench.bind("b0"))
        await judge(bench, row)

    with pytest.raises(ContractBroken, match="unique_fields names nothing"):
        await TOPICS["unique credentials"](MemoryCase(tmp_path, "sibling", "marks nothing"))
