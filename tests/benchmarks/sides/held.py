"""Providers whose steps do nothing outside: `held` never ends one, `quick` ends each at once.

Guarantee: with `held` the engine claims as many operations as it has room for, journals their first step, and then waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime

from purveyor_server.domain.model import Json
from purveyor_server.domain.states import Drift
from purveyor_server.kit.secret import Secret
from purveyor_server.providers.contract import (
    Ability,
    Context,
    Credentials,
    Done,
    Known,
    NotYet,
    Observed,
    Outputs,
    Owned,
    PlannedStep,
    ProviderEnvironment,
    Schemas,
    Work,
)


class HeldPiece:
    """A step that waits until it is cancelled."""

    name = "thing"
    weight = 1.0
    mints: tuple[str, ...] = ()

    async def ensure(self, ctx: Context) -> Done | NotYet:
        await asyncio.Event().wait()
        return Done()

    async def absent(self, ctx: Context) -> Done | NotYet:
        return Done()

    async def settle(self, ctx: Context) -> bool:
        return True


class QuickPiece(HeldPiece):
    """A step that is done when it is asked for."""

    async def ensure(self, ctx: Context) -> Done | NotYet:
        return Done()


class HeldProvider:
    """One such piece per instance; nothing can be bound."""

    contract = "held/1"
    abilities: frozenset[Ability] = frozenset()
    schemas = Schemas()

    def __init__(self, config: Mapping[str, Json], environment: ProviderEnvironment) -> None:
        self._piece = self._made()

    def _made(self) -> HeldPiece:
        return HeldPiece()

    async def check(self) -> None:
        pass

    def plan(self, work: Work, done: Mapping[str, Outputs]) -> Sequence[PlannedStep]:
        return (PlannedStep(self._piece),)

    def credentials(self, work: Work, done: Mapping[str, Outputs], secrets: Mapping[str, Secret]) -> Credentials:
        return Credentials({})

    async def observe(self, instance: Known) -> Observed:
        return Observed(Drift.IN_SYNC, healthy=True, at=datetime.now(UTC))

    async def list_owned(self, store_id: str) -> AsyncIterator[Owned]:
        nothing: tuple[Owned, ...] = ()
        for owned in nothing:
            yield owned

    async def close(self) -> None:
        pass


class QuickProvider(HeldProvider):
    """One piece per instance that is there at once."""

    contract = "quick/1"

    def _made(self) -> HeldPiece:
        return QuickPiece()
