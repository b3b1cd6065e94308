"""Topic: a call that outlives its broker. Settle must not say true while it can still take effect.

Guarantee: for each piece that the case can hold, the call is sent, the broker dies, a new provider object asks. Either settle
says false while the call is held, and neither ensure nor absent ends; or it says true, and then the backend refuses the call
when it is let go (a fence: a version that has moved on, a connection that was ended). Afterwards absent removes all.
Limit: a call that takes effect more than WATCH_SECONDS after it was let go is not seen.
"""

from __future__ import annotations

import asyncio

from purveyor_server.domain.states import Make
from purveyor_server.providers.contract import Ability, Done, Piece, ProviderError, Work
from purveyor_server.providers.testing.case import Case, ContractBroken, Held, NotOffered
from purveyor_server.providers.testing.kit import ASK_AGAIN, Kit, difference, opened

LOOKS = 5  # at settle while the call is held
WATCH_SECONDS = 1.0  # after a call was let go that settle had declared dead


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
        if await _says_true(kit, work, again):
            await _never(kit, work, again, call)
        else:
            await _not_yet(kit, work, again)
            await call.release()
    await kit.settled(work, again)
    await kit.step(work, again, Make.ABSENT)


async def _says_true(kit: Kit, work: Work, piece: Piece) -> bool:
    for _ in range(LOOKS):
        if await kit.facade.settle(piece, kit.context(work, piece, Make.ABSENT)):
            return True
        await asyncio.sleep(0)
    return False


async def _never(kit: Kit, work: Work, piece: Piece, call: Held) -> None:
    """Settle said true of a call that is held: whatever is done now, the call must not take effect any more."""
    lie = f"settle of {piece.name!r} says true while a call of it can still take effect"
    try:
        await kit.step(work, piece, Make.ABSENT)
    except (ContractBroken, ProviderError) as error:
        raise ContractBroken(f"{lie}: absent does not end") from error
    gone = await kit.case.listing()
    await call.release()
    for _ in range(int(WATCH_SECONDS / ASK_AGAIN)):
        await asyncio.sleep(ASK_AGAIN)
        if (now := await kit.case.listing()) != gone:
            raise ContractBroken(f"{lie}: after absent it was let go, and the listing changed: {difference(gone, now)}")


async def _not_yet(kit: Kit, work: Work, piece: Piece) -> None:
    for make in (Make.ENSURE, Make.ABSENT):
        try:
            answer = await kit.facade.make(piece, make, kit.context(work, piece, make))
        except ProviderError:
            continue
        if isinstance(answer, Done):
            raise ContractBroken(f"{make} of {piece.name!r} is done while an earlier call of it can still take effect")
