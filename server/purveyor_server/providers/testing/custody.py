"""Topics: what sweeps and operators may do with single things: quarantine, removal by marker, adoption."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Iterable

from msgspec.structs import replace

from purveyor_server.domain.model import Json
from purveyor_server.domain.states import Make
from purveyor_server.providers.contract import (
    Ability,
    Done,
    MarkerChanged,
    Outputs,
    Owned,
    Permanent,
    Retryable,
    Work,
)
from purveyor_server.providers.testing.case import Case, ContractBroken, NotOffered
from purveyor_server.providers.testing.kit import ASK_AGAIN, TRIES, Binding, Kit, opened


async def check_quarantine(case: Case) -> None:
    """Nobody gets in, all is kept and listed; `release` makes it what it was; another marker is left alone; a deprovision goes on."""
    async with opened(case) as kit:
        kit.needs(Ability.QUARANTINE)
        uid = await kit.provision()
        binding = await kit.bind(uid) if Ability.BIND in kit.provider.abilities else None
        before, things = await case.listing(), await kit.owned()
        await _refuses_other_markers(kit, things, [kit.facade.quarantine, kit.facade.release])
        await _each([*things, *things], kit.facade.quarantine)
        listed = await kit.owned()  # what lies in another thing may be out of sight with that
        if not {(one.kind, one.name) for one in listed} <= {(one.kind, one.name) for one in things} or uid not in {
            one.uid for one in listed
        }:
            raise ContractBroken("what is in quarantine is not listed as before")
        await _check_access(kit, binding, given=False)
        await _each([*things, *things], kit.facade.release)
        await kit.same(before, "after quarantine and release")
        await _check_access(kit, binding, given=True)
        if binding is not None:
            await kit.unbind(binding)
        await _each(await kit.owned(), kit.facade.quarantine)  # and what is given back now goes all the same


async def check_reclaim(case: Case) -> None:
    """Thing by thing everything of an instance goes, and nothing of another; a thing with another marker stays."""
    async with opened(case) as kit:
        kit.needs(Ability.RECLAIM)
        other = await kit.provision()
        before, kept = await case.listing(), await kit.owned()
        uid = await kit.provision()
        gone = {uid, (await kit.bind(uid)).uid} if Ability.BIND in kit.provider.abilities else {uid}
        things = [thing for thing in await kit.owned() if thing.uid in gone]
        await _refuses_other_markers(kit, things, [kit.facade.reclaim])
        for thing in await _reclaim_all(kit, things):
            raise ContractBroken(f"reclaim does not come to its end with the {thing.kind} {thing.name}")
        for known in gone:
            kit.forget(known)
        if await kit.owned() != kept:
            raise ContractBroken(f"after reclaim the list is not that of the other instance {other}")
        for thing in things:
            if await kit.facade.reclaim(thing) != Done():
                raise ContractBroken(f"reclaim of the {thing.kind} that is gone does not say Done")
        await kit.same(before, "after reclaim")


async def check_adopt(case: Case) -> None:
    """A thing that was there becomes an instance; every way back before the pivot, a take-over included, gives it back as it was."""
    async with opened(case) as kit:
        kit.needs(Ability.ADOPT)
        source = await case.stray()
        before = await case.listing()
        if (found := await kit.facade.adoptable(source)) is not None:
            raise ContractBroken(f"adoptable says that {found.uid} has what nobody has")
        steps = len(kit.facade.plan(replace(kit.new(), adopt=source), {}))
        kit.instances.clear()
        for count in range(steps + 1):
            await _give_back(kit, replace(kit.new(), adopt=source), count, before)
        work = replace(kit.new(), adopt=source)
        kit.outputs[work.instance_uid] = await kit.run(work)
        if Ability.BIND in kit.provider.abilities:
            await _check_access(kit, await kit.bind(work.instance_uid), given=True)
        await _is_taken(kit, source, work.instance_uid)


async def _give_back(kit: Kit, work: Work, count: int, before: object) -> None:
    """Do `count` steps and undo them; do them again and let a deprovision take over. Nothing past the pivot."""
    steps = kit.facade.plan(work, {})[:count]
    if not any(step.pivot for step in steps):
        await _first(kit, work, count)
        for step in reversed(steps):
            await kit.step(work, step.piece, Make.ABSENT, undo=True)
        await kit.same(before, f"after {count} steps of an adoption were undone")
        await _first(kit, work, count)
        await kit.run(kit.removal_of(work.instance_uid, was=False))
        await kit.same(before, f"after a deprovision took over from {count} steps of an adoption")
    kit.forget(work.instance_uid)


async def _first(kit: Kit, work: Work, count: int) -> None:
    done: dict[str, Outputs] = {}
    for index in range(count):
        step = kit.facade.plan(work, done)[index]
        done[step.piece.name] = (await kit.step(work, step.piece, step.make)).outputs


async def _is_taken(kit: Kit, source: dict[str, Json], uid: str) -> None:
    """Under its old name it is this instance's, or not to be found."""
    try:
        found = await kit.facade.adoptable(source)
    except Permanent:
        return
    if found is None or found.uid != uid:
        raise ContractBroken("what an instance has adopted can be adopted again")


async def _refuses_other_markers(
    kit: Kit, things: list[Owned], methods: list[Callable[[Owned], Awaitable[object]]]
) -> None:
    before = await kit.case.listing()
    for thing in things:
        for other in (replace(thing, revision=thing.revision + 1), replace(thing, uid=str(uuid.uuid4()))):
            for method in methods:
                await _refuses(other, method)
    await kit.same(before, "after what carries another marker was asked about")


async def _refuses(other: Owned, method: Callable[[Owned], Awaitable[object]]) -> None:
    try:
        await method(other)
    except MarkerChanged:
        return
    raise ContractBroken(f"a {other.kind} with another marker than was asked about is not refused (MarkerChanged)")


async def _reclaim_all(kit: Kit, things: list[Owned]) -> list[Owned]:
    """Ask for each, again and again, in whatever order they let themselves be removed; those that stay."""
    left = list(things)
    for _ in range(max(2, int(kit.case.patience / ASK_AGAIN))):
        left = [thing for thing in left if not await _is_reclaimed(kit, thing)]
        if not left:
            break
        await asyncio.sleep(ASK_AGAIN)
    return left


async def _is_reclaimed(kit: Kit, thing: Owned) -> bool:
    try:
        return isinstance(await kit.facade.reclaim(thing), Done)
    except Retryable:
        return False


async def _each(things: Iterable[Owned], method: Callable[[Owned], Awaitable[object]]) -> None:
    """Ask for each, in rounds: one may have to wait for another, or for an operation."""
    left, failure = list(things), Retryable("")
    for _ in range(TRIES):
        waiting = []
        for thing in left:
            try:
                await method(thing)
            except Retryable as error:
                waiting.append(thing)
                failure = error
        left = waiting
        if not left:
            return
        await asyncio.sleep(ASK_AGAIN)
    raise failure


async def _check_access(kit: Kit, binding: Binding | None, *, given: bool) -> None:
    if binding is None:
        return
    try:
        await kit.case.use(binding.values)
    except NotOffered:
        return
    except Exception as error:
        if given:
            raise ContractBroken(f"credentials give no access: {type(error).__name__}: {error}") from error
    else:
        if not given:
            raise ContractBroken("credentials give access to what is in quarantine")
