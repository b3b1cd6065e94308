"""A provider that gossips: it puts every secret parameter that it gets into its log lines, sentences and errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import structlog

from purveyor_server.domain.model import Json
from purveyor_server.domain.states import Make, Verb
from purveyor_server.providers.contract import (
    Ability,
    Context,
    Done,
    NotYet,
    Outputs,
    Permanent,
    PlannedStep,
    ProviderEnvironment,
    Work,
)
from tests.fakes.provider import AdoptedPiece, ScriptedProvider, World, WorldPiece

_log = structlog.get_logger("gossip")
LEGACY = "legacy"  # what may be adopted


class Gossip(WorldPiece):
    """Says all it knows."""

    async def ensure(self, ctx: Context) -> Done | NotYet:
        """Make it; with the parameter `fail` refuse, in words that hold the secret."""
        given: Mapping[str, Any] = ctx.want.parameters if ctx.want is not None else {}
        if ctx.work.binding is not None:
            given = ctx.work.binding.parameters
        secret = str(given.get("password", ""))
        _log.debug("gossip", note=f"it is {secret}", all=dict(given), quoted=f"x='{secret}'")
        ctx.report(50, f"trying {secret}")
        if given.get("fail"):
            _fail(secret)
        self._world.things[ctx.name(self._kind)] = dict(given)
        self._world.markers[ctx.name(self._kind)] = ctx.marker
        return Done({"name": ctx.name(self._kind)})


def _fail(secret: str) -> None:
    try:
        int(secret)  # says in its error what it was given
    except ValueError as error:
        _log.exception("gossip failed", error=error)
        message = f"cannot set {secret}"
        raise Permanent(message, f"the server said: {secret} is weak") from error


class GossipProvider(ScriptedProvider):
    """One piece for an instance, one with a minted password for a binding; there is a thing to adopt, and all move."""

    abilities = ScriptedProvider.abilities | {Ability.EXPIRY}

    def __init__(self, _config: Mapping[str, Json], _environment: ProviderEnvironment) -> None:
        super().__init__(World(), ())
        self.pieces = [Gossip(self.world, "thing", "thing")]
        self.login = Gossip(self.world, "login", "login", ("password",))
        self.adopted = AdoptedPiece(self.world, "adopted", "thing")
        self.world.things[LEGACY] = {}
        self.moves = True

    def plan(self, work: Work, done: Mapping[str, Outputs]) -> Sequence[PlannedStep]:
        """As its base; a binding makes its login, again for what is done to it later."""
        if work.verb in {Verb.BIND, Verb.RENEW, Verb.REISSUE}:
            return (PlannedStep(self.login, Make.ENSURE),)
        if work.adopt is not None and work.verb is Verb.PROVISION:
            return (PlannedStep(self.adopted, Make.ENSURE),)
        return super().plan(work, done)
