"""Topics: plans are pure and stable, removals need nothing but the uid, and the schemas say what is so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

import jsonschema_rs

from purveyor_server.domain.states import Make, Verb
from purveyor_server.providers.contract import Ability, Outputs, PlannedStep, Provider, Work
from purveyor_server.providers.testing.case import Case, ContractBroken
from purveyor_server.providers.testing.kit import Kit, opened


async def check_pure_plan(case: Case) -> None:
    """Asked twice, by two objects, with more and more finished: the same steps; and nothing is touched by asking."""
    async with opened(case) as kit:
        stranger = case.open(kit.store_id)
        work = kit.new()
        try:
            before = await case.listing()
            await _grows(kit, stranger, work, run=False)
            await kit.same(before, "after a plan was asked for")
            kit.outputs[work.instance_uid] = await _grows(kit, stranger, work)
            if Ability.UPDATE in kit.provider.abilities and case.changed is not None:
                await _grows(kit, stranger, kit.update_of(work.instance_uid))
            if Ability.BIND in kit.provider.abilities:
                bind = kit.binding_of(work.instance_uid)
                assert bind.binding is not None
                await _grows(kit, stranger, bind)
                await _grows(kit, stranger, kit.unbinding_of(kit.bindings[bind.binding.uid]))
                kit.forget(bind.binding.uid)
            await _grows(kit, stranger, kit.removal_of(work.instance_uid))
            kit.forget(work.instance_uid)
        finally:
            await stranger.close()


async def _grows(kit: Kit, stranger: Provider, work: Work, *, run: bool = True) -> dict[str, Outputs]:
    """Run `work`, asking for the plan again and again."""
    finished: dict[str, Outputs] = {}
    known = _asked(kit, stranger, work, finished)
    while run and len(finished) < len(steps := kit.facade.plan(work, finished)):
        step = steps[len(finished)]
        finished[step.piece.name] = (await kit.step(work, step.piece, step.make)).outputs
        now = _asked(kit, stranger, work, finished)
        if now[: len(finished)] != known[: len(finished)]:
            raise ContractBroken(f"the finished part of the plan of {work.verb} became another: {known} became {now}")
        known = now
    return finished


def _asked(kit: Kit, stranger: Provider, work: Work, finished: Mapping[str, Outputs]) -> list[tuple[str, Make, bool]]:
    kept = deepcopy((work, finished))
    first = _lines(kit.facade.plan(work, finished))
    for again in (kit.facade.plan(work, finished), stranger.plan(work, finished)):
        if _lines(again) != first:
            raise ContractBroken(f"the plan of {work.verb} is not pure: {first}, and asked again {_lines(again)}")
    if kept != (work, finished):
        raise ContractBroken(f"plan changes its arguments ({work.verb})")
    return first


def _lines(steps: Sequence[PlannedStep]) -> list[tuple[str, Make, bool]]:
    return [(step.piece.name, step.make, step.pivot) for step in steps]


async def check_removal_plan(case: Case) -> None:
    """A removal consists of removals, and it removes all: also when nothing is known but the uid, and after an update."""
    async with opened(case) as kit:
        before = await case.listing()
        for updated in (False, True):
            if updated and (Ability.UPDATE not in kit.provider.abilities or case.changed is None):
                continue
            uid = await kit.provision()
            if updated:
                await kit.update(kit.update_of(uid))
            removal = kit.removal_of(uid, was=False)
            _only_removals(kit.facade.plan(removal, {}))
            await kit.run(removal)
            kit.forget(uid)
            await kit.same(before, "after a deprovision that knew only the uid")


def _only_removals(steps: Sequence[PlannedStep]) -> None:
    if not steps:
        raise ContractBroken(f"the plan of {Verb.DEPROVISION} has no step")
    if made := [step.piece.name for step in steps if step.make is not Make.ABSENT]:
        raise ContractBroken(f"the plan of {Verb.DEPROVISION} makes {', '.join(made)}")


async def check_schemas(case: Case) -> None:
    """Settings, outputs and credentials have schemas, fit them, and the marked fields exist."""
    async with opened(case) as kit:
        schemas = kit.provider.schemas
        _fits("schemas.settings", schemas.settings, dict(case.settings))
        uid = await kit.provision()
        for name, outputs in kit.outputs[uid].items():
            _fits(f"schemas.outputs[{name!r}]", schemas.outputs.get(name, {}), outputs)
        if Ability.BIND in kit.provider.abilities:
            binding = await kit.bind(uid)
            for name, outputs in kit.bound[binding.uid].items():
                _fits(f"schemas.outputs[{name!r}]", schemas.outputs.get(name, {}), outputs)
            _fits("schemas.credentials", schemas.credentials, binding.values)
            for mark in ("secret_fields", "unique_fields"):
                known = binding.values.keys() | schemas.credentials.get("properties", {}).keys()
                if absent := sorted(getattr(schemas, mark) - known):
                    raise ContractBroken(f"schemas.{mark} names {', '.join(absent)}: no such field in the credentials")
        if not kit.provider.contract:
            raise ContractBroken("`contract` is empty: it is the version that stored operations are held to")


def _fits(what: str, schema: dict[str, Any], value: Any) -> None:
    if not schema:
        raise ContractBroken(f"{what} is empty: what it describes would never be checked")
    try:
        jsonschema_rs.meta.validate(schema)
        validator = jsonschema_rs.validator_for(schema)
    except ValueError as error:
        raise ContractBroken(f"{what} is no JSON Schema: {error}") from error
    for misfit in validator.iter_errors(value):
        where = "/".join(str(part) for part in misfit.instance_path) or "(whole)"
        raise ContractBroken(f"a value does not fit {what} at {where}")
