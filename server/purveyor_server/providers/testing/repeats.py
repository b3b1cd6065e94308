"""Topics: whatever is done twice, at once, or to what never was, is the same as once."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence

from purveyor_server.domain.states import Make, Verb
from purveyor_server.providers.contract import Ability, BindingWork, Outputs, Piece, ProviderError, Work
from purveyor_server.providers.testing.case import Case, ContractBroken
from purveyor_server.providers.testing.kit import Kit, opened


async def check_round_trip(case: Case) -> None:
    """Provision, bind, use, unbind, deprovision: the listing shows the instance in between and nothing of it afterwards."""
    async with opened(case) as kit:
        before = await case.listing()
        uid = await kit.provision()
        with_instance = await case.listing()
        if with_instance == before:
            raise ContractBroken("an instance is there and the listing does not show it: the listing sees too little")
        if Ability.BIND in kit.provider.abilities:
            binding = await kit.bind(uid)
            await kit.unbind(binding)
            await kit.same(with_instance, "after bind and unbind")
        await kit.deprovision(uid)
        await kit.same(before, "after provision and deprovision")


async def check_ensure_twice(case: Case) -> None:
    """Every step of a create runs again after it has succeeded, and changes nothing."""
    async with opened(case) as kit:
        work = kit.new()
        kit.outputs[work.instance_uid] = first = await kit.run(work)
        once = await case.listing()
        again = await kit.run(work)
        await kit.same(once, "after every ensure of a provision ran twice")
        _same_outputs(first, again)
        if Ability.BIND in kit.provider.abilities:
            bind = kit.binding_of(work.instance_uid)
            values = (await kit.finish_bind(bind)).values
            once = await case.listing()
            if (await kit.finish_bind(bind)).values != values:
                raise ContractBroken("credentials are others after ensure ran twice")
            await kit.same(once, "after every ensure of a bind ran twice")


def _same_outputs(first: object, again: object) -> None:
    if first != again:
        raise ContractBroken(f"outputs are others after ensure ran twice: {first!r:.200} became {again!r:.200}")


async def check_absent_before_ensure(case: Case) -> None:
    """What never was can be removed, piece by piece and as a whole, once and twice."""
    async with opened(case) as kit:
        before = await case.listing()
        work = Work(Verb.PROVISION, str(uuid.uuid4()), kit.settings(), None, {})
        for _ in range(2):
            for piece in reversed(pieces_of(kit, work)):
                await kit.step(work, piece, Make.ABSENT)
            await kit.run(kit.removal_of(work.instance_uid))
            await kit.same(before, "after absent of what never was")
        if Ability.BIND in kit.provider.abilities:
            uid = await kit.provision()
            with_instance = await case.listing()
            about = BindingWork(str(uuid.uuid4()), dict(case.bind_parameters))
            for _ in range(2):
                await kit.run(Work(Verb.UNBIND, uid, kit.instances[uid], None, kit.outputs[uid], about))
            await kit.same(with_instance, "after an unbind of what never was bound")


async def check_absent_twice(case: Case) -> None:
    """What is gone can be removed again; what it was made for stays as it is."""
    async with opened(case) as kit:
        before = await case.listing()
        uid = await kit.provision()
        if Ability.BIND in kit.provider.abilities:
            with_instance = await case.listing()
            binding = await kit.bind(uid)
            for _ in range(2):
                await kit.run(kit.unbinding_of(binding))
            kit.forget(binding.uid)
            await kit.same(with_instance, "after two unbinds")
        removal = kit.removal_of(uid)
        for _ in range(2):
            await kit.run(removal)
            await kit.same(before, "after a deprovision that may have been the second")
        kit.forget(uid)


async def check_runs_at_once(case: Case) -> None:
    """Two runs of one step at the same moment (two brokers that both believe in their lease) make one thing."""
    async with opened(case) as kit:
        work = kit.new()
        finished: dict[str, Outputs] = {}
        for step in kit.facade.plan(work, {}):
            both = await asyncio.gather(
                *(kit.step(work, step.piece, step.make) for _ in range(2)), return_exceptions=True
            )
            _one_succeeded(step.piece.name, both)
            finished[step.piece.name] = (await kit.step(work, step.piece, step.make)).outputs
        kit.outputs[work.instance_uid] = finished
        once = await case.listing()
        await kit.run(work)
        await kit.same(once, "after steps that ran twice at once")


def _one_succeeded(name: str, answers: Sequence[object]) -> None:
    for answer in answers:
        if isinstance(answer, BaseException) and not isinstance(answer, ProviderError):
            raise answer
    if all(isinstance(answer, ProviderError) for answer in answers):
        raise ContractBroken(f"two runs of {name!r} at once both failed: {answers[0]}")


async def check_settle(case: Case) -> None:
    """With nothing on its way settle answers true, in time: of what never was, of what is there, of what is gone."""
    async with opened(case) as kit:
        never = Work(Verb.PROVISION, str(uuid.uuid4()), kit.settings(), None, {})
        await _all_settle(kit, never)
        before = await case.listing()
        work = kit.new()
        kit.outputs[work.instance_uid] = await kit.run(work)
        there = await case.listing()
        await _all_settle(kit, work)
        await kit.same(there, "after settle, which changes nothing")
        if Ability.BIND in kit.provider.abilities:
            binding = await kit.bind(work.instance_uid)
            bind = Work(Verb.BIND, work.instance_uid, work.want, None, kit.outputs[work.instance_uid], binding.work)
            await _all_settle(kit, bind)
            await kit.unbind(binding)
            await _all_settle(kit, bind)
        await kit.deprovision(work.instance_uid)
        await _all_settle(kit, work)
        await kit.same(before, "after settle of what is gone")


async def _all_settle(kit: Kit, work: Work) -> None:
    for piece in pieces_of(kit, work):
        await kit.settled(work, piece)


def pieces_of(kit: Kit, work: Work) -> list[Piece]:
    """The pieces that a work is about, as planned before anything is done."""
    return [step.piece for step in kit.facade.plan(work, {})]
