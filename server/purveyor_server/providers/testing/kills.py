"""Topics: the broker dies at every point of a verb; what it began is settled, then finished, undone, or taken over.

Guarantee: each verb dies at every point (see `context`), and each way on from there is tried on an instance of its own (the
ways take turns where the case says `every_way = False`); afterwards the listing is what it must be, and what was left
behind could be found by `list_owned`. A bind that was finished can be used, where the case knows how.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from enum import StrEnum
from typing import Any

from purveyor_server.domain.states import Drift, Make, Verb
from purveyor_server.providers.contract import Ability, Outputs, PlannedStep, Work
from purveyor_server.providers.testing.case import Case, ContractBroken, NotOffered
from purveyor_server.providers.testing.context import Fuse
from purveyor_server.providers.testing.kit import Kit, opened

MAX_POINTS = 200  # of one verb
FEWEST_POINTS = 1


class Way(StrEnum):
    """How it goes on after a death."""

    FINISH = "finish"
    UNDO = "undo"
    TAKE_OVER = "take over"


async def check_kills_provision(case: Case) -> None:
    """Kill a provision at every point; finish it, undo it by names, or let a deprovision take it over."""

    async def one(kit: Kit, at: int, way: Way) -> None:
        work = kit.new()
        await _killed(kit, work, at, way)
        if way is Way.FINISH:
            await kit.deprovision(work.instance_uid)
        kit.forget(work.instance_uid)

    async with opened(case) as kit:
        probe = kit.new()
        points = await _points(kit, probe)
        await _everywhere(kit, points, tuple(Way), one)


async def check_kills_update(case: Case) -> None:
    """Kill an update at every point; finish it, undo it (the previous settings are back), or deprovision."""

    async def one(kit: Kit, at: int, way: Way) -> None:
        uid = await kit.provision()
        await _killed(kit, kit.update_of(uid), at, way)
        if way is not Way.TAKE_OVER:
            await kit.deprovision(uid)
        kit.forget(uid)

    async with opened(case) as kit:
        probe = await kit.provision()
        points = await _points(kit, kit.update_of(probe))
        await _everywhere(kit, points, tuple(Way), one)


async def check_kills_bind(case: Case) -> None:
    """Kill a bind at every point; finish it, or undo it by names, which an unbind that takes over does too."""

    async def one(kit: Kit, at: int, way: Way, uid: str) -> None:
        work = kit.binding_of(uid)
        assert work.binding is not None
        await _killed(kit, work, at, way)
        if way is Way.FINISH:
            binding = kit.bindings[work.binding.uid]
            with suppress(NotOffered):
                await kit.case.use(binding.values)
            await kit.unbind(binding)
        kit.forget(work.binding.uid)

    async with opened(case) as kit:
        kit.needs(Ability.BIND)
        uid = await kit.provision()
        with_instance = await case.listing()
        probe = kit.binding_of(uid)
        points = await _points(kit, probe)
        assert probe.binding is not None
        await kit.unbind(kit.bindings[probe.binding.uid])
        await _everywhere(kit, points, tuple(Way), lambda kit, at, way: one(kit, at, way, uid))
        await kit.same(with_instance, "after binds that died everywhere")


async def check_kills_unbind(case: Case) -> None:
    """Kill an unbind at every point; it goes only forward."""

    async def one(kit: Kit, at: int, way: Way, uid: str) -> None:
        binding = await kit.bind(uid)
        await _killed(kit, kit.unbinding_of(binding), at, way)
        kit.forget(binding.uid)

    async with opened(case) as kit:
        uid = await kit.provision()
        with_instance = await case.listing()
        probe = await kit.bind(uid)
        points = await _points(kit, kit.unbinding_of(probe))
        kit.forget(probe.uid)
        await _everywhere(kit, points, (Way.FINISH,), lambda kit, at, way: one(kit, at, way, uid))
        await kit.same(with_instance, "after unbinds that died everywhere")


async def check_kills_deprovision(case: Case) -> None:
    """Kill a deprovision at every point; it goes only forward."""

    async def one(kit: Kit, at: int, way: Way) -> None:
        uid = await kit.provision()
        await _killed(kit, kit.removal_of(uid), at, way)
        kit.forget(uid)

    async with opened(case) as kit:
        probe = await kit.provision()
        points = await _points(kit, kit.removal_of(probe))
        kit.forget(probe)
        await _everywhere(kit, points, (Way.FINISH,), one)


async def _points(kit: Kit, work: Work) -> list[str]:
    """The points of a verb, from a run that does not die."""
    fuse = Fuse()
    await kit.die(work, fuse)
    if len(fuse.points) > MAX_POINTS:
        raise ContractBroken(
            f"{work.verb} has {len(fuse.points)} points at which the broker can die, at most {MAX_POINTS}"
        )
    if len(fuse.points) <= FEWEST_POINTS or not any("outside(" in point for point in fuse.points):
        raise ContractBroken(f"{work.verb} announces no outside call (ctx.outside), so nothing can be tested about it")
    return fuse.points


async def _everywhere(
    kit: Kit, points: list[str], ways: tuple[Way, ...], one: Callable[[Kit, int, Way], Coroutine[Any, Any, None]]
) -> None:
    """Every point with every way, `parallel` at a time."""
    slots = asyncio.Semaphore(kit.case.parallel)

    async def bounded(at: int, way: Way) -> None:
        async with slots:
            try:
                await one(kit, at, way)
            except Exception as error:
                raise ContractBroken(f"killed at {points[at]}, then {way}: {error}") from error

    answers = await asyncio.gather(
        *(bounded(at, way) for at, way in _deaths(kit, points, ways)), return_exceptions=True
    )
    failed = [answer for answer in answers if isinstance(answer, BaseException)]
    if failed:
        raise (
            failed[0]
            if len(failed) == 1
            else ContractBroken(f"{len(failed)} deaths of {len(answers)}, such as: {failed[0]}")
        )


def _deaths(kit: Kit, points: list[str], ways: tuple[Way, ...]) -> list[tuple[int, Way]]:
    if kit.case.every_way:
        return [(at, way) for at in range(len(points)) for way in ways]
    return [(at, ways[at % len(ways)]) for at in range(len(points))]


async def _killed(kit: Kit, work: Work, at: int, way: Way) -> None:
    begun, finished = await kit.die(work, Fuse(at))
    if len(begun) > len(finished):  # else it ran to its end on this instance: that point was never met
        await kit.settled(work, begun[-1].piece)
    await _findable(kit, work, finished)
    match way:
        case Way.FINISH:
            await _finish(kit, work, begun, finished)
        case Way.UNDO:
            await _undo(kit, work, begun)
        case Way.TAKE_OVER:
            await _take_over(kit, work)


async def _finish(kit: Kit, work: Work, begun: list[PlannedStep], finished: Mapping[str, Outputs]) -> None:
    """The step that died runs again, then the rest; finished ones do not."""
    index = min(len(begun), len(finished))
    if work.verb is Verb.BIND:
        await kit.finish_bind(work, index, finished)
        return
    outputs = await kit.run(work, index, finished)
    if work.want is not None and work.binding is None:
        kit.outputs[work.instance_uid] = {**kit.outputs.get(work.instance_uid, {}), **outputs}
        kit.instances[work.instance_uid] = work.want
        await _in_sync(kit, work.instance_uid)


async def _undo(kit: Kit, work: Work, begun: list[PlannedStep]) -> None:
    """What was begun, in reverse, by names alone; of an update: the previous settings again."""
    make = Make.ENSURE if work.verb is Verb.UPDATE else Make.ABSENT
    for step in reversed(begun):
        await kit.step(work, step.piece, make, undo=True)
    if work.verb is Verb.UPDATE:
        await _in_sync(kit, work.instance_uid)
    else:
        await _nothing_owned(kit, work)


async def _take_over(kit: Kit, work: Work) -> None:
    """A removal that knows nothing but the uid and perhaps the settings."""
    if work.binding is not None:
        await kit.run(kit.unbinding_of(kit.bindings[work.binding.uid]))
    else:
        kit.outputs.pop(work.instance_uid, None)
        await kit.run(kit.removal_of(work.instance_uid, was=work.verb is Verb.UPDATE))
    await _nothing_owned(kit, work)


async def _in_sync(kit: Kit, uid: str) -> None:
    if Ability.OBSERVE not in kit.provider.abilities:
        return
    observed = await kit.observe(uid)
    if observed.drift is not Drift.IN_SYNC:
        raise ContractBroken(f"observe says {observed.drift} ({'; '.join(observed.differences)})")


async def _nothing_owned(kit: Kit, work: Work) -> None:
    if await _owned(kit, work):
        raise ContractBroken(f"list_owned still names things of {work.verb}")


async def _findable(kit: Kit, work: Work, finished: Mapping[str, Outputs]) -> None:
    """A create with a finished step has made something: an orphan search must be able to find it."""
    if work.verb not in {Verb.PROVISION, Verb.BIND} or not finished or Ability.LIST_OWNED not in kit.provider.abilities:
        return
    if not await _owned(kit, work):
        raise ContractBroken(
            f"list_owned does not name what the steps {', '.join(finished)} of {work.verb} left behind"
        )


async def _owned(kit: Kit, work: Work) -> bool:
    if Ability.LIST_OWNED not in kit.provider.abilities:
        return False
    uid = work.binding.uid if work.binding is not None else work.instance_uid
    return any(thing.uid == uid for thing in await kit.owned())
