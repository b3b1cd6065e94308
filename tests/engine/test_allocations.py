"""What a piece allocates is its owner's over retries and restarts, and free when the owner is deleted."""

from __future__ import annotations

from pathlib import Path

from purveyor_server.domain.errors import Reason
from purveyor_server.domain.states import OperationState
from purveyor_server.providers.contract import Ambiguous, Context, Done, NotYet, Retryable
from tests.engine.bench import Bench, bench
from tests.fakes.provider import WorldPiece


class PortPiece(WorldPiece):
    """Allocates the one port there is before it makes its thing."""

    async def ensure(self, ctx: Context) -> Done | NotYet:
        """The port is among the outputs."""
        port = await ctx.allocate("port", 7, 7)
        answer = await super().ensure(ctx)
        return Done({**answer.outputs, "port": port}) if isinstance(answer, Done) else answer


async def _port(b: Bench, instance_id: str) -> object:
    return (await b.instance(instance_id)).outputs["role"]["port"]


async def test_a_number_is_kept_over_retries_and_restarts(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        b.provider.pieces[0] = PortPiece(b.world, "role", "role")
        b.world.plant("role.ensure", Retryable("busy"), Ambiguous("who knows"), NotYet(0.2))
        operation = await b.provision()
        await b.until(lambda now: now.attempts > 1, operation.operation_id)
        await b.crash()
        await b.open()

        assert (await b.ended(operation)).state is OperationState.SUCCEEDED
        assert await _port(b, "one") == 7


async def test_a_full_pool_fails_for_good_until_something_is_given_back(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        b.provider.pieces[0] = PortPiece(b.world, "role", "role")
        await b.ended(await b.provision("one"))

        failed = await b.ended(await b.provision("two"))

        assert failed.state is OperationState.FAILED
        assert failed.failure is not None
        assert (failed.failure.reason, failed.failure.retryable) == (Reason.POOL_EXHAUSTED, False)
        await b.ended(await b.deprovision("one"))
        await b.ended(await b.provision("three"))
        assert await _port(b, "three") == 7


async def test_a_failed_create_gives_back_what_it_had(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        b.provider.pieces[1] = PortPiece(b.world, "space", "space")
        b.provider.pieces[2] = _Broken(b.world, "grant", "grant")
        assert (await b.ended(await b.provision("one"))).state is OperationState.FAILED
        b.provider.pieces[2] = WorldPiece(b.world, "grant", "grant")

        assert (await b.ended(await b.provision("two"))).state is OperationState.SUCCEEDED


class _Broken(WorldPiece):
    """Asks for a number that nobody has."""

    async def ensure(self, ctx: Context) -> Done | NotYet:
        await ctx.allocate("none", 1, 0)
        return await super().ensure(ctx)
