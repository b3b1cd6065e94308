"""Topic: a call that outlives its broker. Settle must not say true while it can still take effect.

Guarantee: for each piece that the case can hold, the call is sent, the broker dies, a new provider object asks; while the call
is held settle says false, and neither ensure nor absent ends; once it was let go settle says true and absent removes all.
"""

from __future__ import annotations

import asyncio

from purveyor_server.domain.states import Make
from purveyor_server.providers.contract import Ability, Done, Piece, ProviderError, Work
from purveyor_server.providers.testing.case import Case, ContractBroken, NotOffered
from purveyor_server.providers.testing.kit import Kit, opened

LOOKS = 5  # at settle while the call is held


async def check_late_effects(case: Case) -> None:
    """Every piece of a provision and a bind, held up in the backend while its broker dies."""
    held: list[str] = []
    refused: list[str] = []
    async with opened(case) as kit:
        before = await case.listing()
        provision = kit.new()
        for name in [step.piece.name for step in kit.facade.plan(provision, {})]:
            await _held(kit, provision, name, held, refused)
            outputs = (await kit.step(provision, _piece(kit, provision, name), Make.ENSURE)).outputs
            kit.outputs[provision.instance_uid] = {**kit.outputs.get(provision.instance_uid, {}), name: outputs}
        if Ability.BIND in kit.provider.abilities:
            bind = kit.binding_of(provision.instance_uid)
            for name in [step.piece.name for step in kit.facade.plan(bind, {})]:
                await _held(kit, bind, name, held, refused)
                await kit.step(bind, _piece(kit, bind, name), Make.ENSURE)
        await kit.clear()
        await kit.same(before, "after late calls took effect and were removed")
    if not held:
        raise NotOffered(refused[0])


def _piece(kit: Kit, work: Work, name: str) -> Piece:
    return next(step.piece for step in kit.facade.plan(work, {}) if step.piece.name == name)


async def _held(kit: Kit, work: Work, name: str, held: list[str], refused: list[str]) -> None:
    try:
        holding = kit.case.hold(name)
    except NotOffered as reason:
        refused.append(str(reason))
        return
    held.append(name)
    piece = _piece(kit, work, name)
    async with holding as call:
        doomed = asyncio.ensure_future(piece.ensure(kit.context(work, piece)))
        async with kit.in_time(f"waiting for a held call of {name!r}"):
            await call.reached()
        doomed.cancel()
        await asyncio.wait({doomed}, timeout=kit.case.patience)
        await kit.restart()
        again = _piece(kit, work, name)
        await _not_yet(kit, work, again)
        await call.release()
    await kit.settled(work, again)
    await kit.step(work, again, Make.ABSENT)


async def _not_yet(kit: Kit, work: Work, piece: Piece) -> None:
    for _ in range(LOOKS):
        if await kit.facade.settle(piece, kit.context(work, piece, Make.ABSENT)):
            raise ContractBroken(f"settle of {piece.name!r} says true while a call of it can still take effect")
        await asyncio.sleep(0)
    for make in (Make.ENSURE, Make.ABSENT):
        try:
            answer = await kit.facade.make(piece, make, kit.context(work, piece, make))
        except ProviderError:
            continue
        if isinstance(answer, Done):
            raise ContractBroken(f"{make} of {piece.name!r} is done while an earlier call of it can still take effect")
