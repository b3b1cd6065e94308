"""Orphans in the hands of operators: listed, quarantined, released, reaped, ignored; and sweeps that go on after a brake.

Guarantee: what the store has a record or an unfinished operation of is refused with the list of them, whatever the operator
says; so is what no sweep has seen. A freeze of everything, or of the provider, holds for operators too.
Limit: an operator may act on what no grace period has passed for, and on what an adopted instance left behind.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import aclosing
from datetime import datetime

import structlog
from msgspec.structs import replace

from purveyor_server.domain import orphans
from purveyor_server.domain.errors import Precondition, PurveyorError, Reason, Resource, invalid
from purveyor_server.domain.model import ProviderRef
from purveyor_server.domain.orphans import (
    ENDED,
    Deed,
    Inventory,
    Knowledge,
    Sighting,
    SightingKey,
    SightingState,
    Standing,
)
from purveyor_server.lifecycle.admin import deeds
from purveyor_server.lifecycle.admin.acts import enter, record, tell
from purveyor_server.lifecycle.admin.contract import Act, AdminParts
from purveyor_server.lifecycle.admin.inventories import batches, find_provider, refused
from purveyor_server.lifecycle.contract import Caller, PageOf
from purveyor_server.lifecycle.door import Action
from purveyor_server.lifecycle.paging import Question, read_token, write_token
from purveyor_server.providers.contract import ProviderError
from purveyor_server.store.contract import Page
from purveyor_server.store.sightings import Glimpse, InventoryChange, SightingChange

_log = structlog.get_logger(__name__)
DEFAULT_PAGE, MAX_PAGE = 100, 1000


async def list_orphans(
    parts: AdminParts,
    caller: Caller,
    provider: str,
    states: frozenset[SightingState],
    page_size: int,
    page_token: str,
) -> PageOf:
    """A page of `Sighting`, in the order of their first being seen; without states those that have not ended.

    Raises INVALID_PAGE_TOKEN, INVALID_REQUEST.
    """
    enter(parts, caller, Action.LIST_ORPHANS)
    if page_size < 0:
        raise invalid("page_size", "must not be negative")
    size = min(page_size or DEFAULT_PAGE, MAX_PAGE)
    wanted = states or orphans.OPEN
    question = Question(
        "orphans", provider, "", ",".join(sorted(wanted)), show_deleted=False, store=parts.store.store_id
    )
    after = read_token(parts.token_key, question, page_token) if page_token else ""
    found = await parts.store.sightings(Page(size + 1, after), provider, wanted)
    items = tuple([sighting for _, sighting in found[:size]])
    return PageOf(items, write_token(parts.token_key, question, found[size - 1][0]) if len(found) > size else "")


async def quarantine(parts: AdminParts, caller: Caller, key: SightingKey, act: Act) -> Sighting:
    """Make one unusable, and keep it. Raises ORPHAN_NOT_FOUND, IN_USE, WRONG_STATE, INVALID_REQUEST."""
    return await _do(parts, caller, key, act, Deed.QUARANTINE)


async def release(parts: AdminParts, caller: Caller, key: SightingKey, act: Act) -> Sighting:
    """Make a quarantined one usable; from then on sweeps leave it alone. Raises as `quarantine`, but never IN_USE."""
    return await _do(parts, caller, key, act, Deed.RELEASE)


async def reap(parts: AdminParts, caller: Caller, key: SightingKey, act: Act) -> Sighting:
    """Remove one for good. Raises as `quarantine`."""
    return await _do(parts, caller, key, act, Deed.REAP)


async def ignore(parts: AdminParts, caller: Caller, key: SightingKey, act: Act, *, undo: bool) -> Sighting:
    """From now on leave one alone; `undo` has it begin anew. Raises ORPHAN_NOT_FOUND, WRONG_STATE, INVALID_REQUEST."""
    enter(parts, caller, Action.IGNORE_ORPHAN, act)

    def decide(glimpse: Glimpse) -> SightingChange:
        sighting = glimpse.sighting
        noted = record(parts, caller, Action.IGNORE_ORPHAN, act, deeds.resource(key), undo=undo)
        if sighting.state in ENDED or (sighting.state is SightingState.QUARANTINED and not undo):
            raise _wrong_state(sighting, "looked after again" if undo else "ignored")
        if undo is not (sighting.state is SightingState.IGNORED):
            return SightingChange(sighting)  # it is so already
        if not undo:
            return SightingChange(replace(sighting, state=SightingState.IGNORED), (noted,))
        anew = replace(sighting, state=SightingState.SEEN, first_seen=sighting.last_seen, sweeps=1)
        return SightingChange(anew, (noted,))

    return await _change(parts, caller, Action.IGNORE_ORPHAN, key, act, decide)


async def resume(parts: AdminParts, caller: Caller, provider: str, act: Act) -> tuple[Inventory | None, bool]:
    """Take the brake off a provider's sweeps: what the last one has shown may pass, more may not. Whether it was on.

    Raises INVALID_REQUEST.
    """
    enter(parts, caller, Action.RESUME_SWEEP, act)
    found = await parts.store.inventory(provider)
    if found is None:
        await find_provider(parts, provider)
    if found is None or found.brake is None or act.validate_only:
        return found, found is not None and found.brake is not None
    resource = f"provider/{provider}"
    taken: list[bool] = []

    def decide(before: Inventory | None, _now: datetime) -> InventoryChange:
        running = before or found
        taken[:] = [running.brake is not None]
        why = running.brake.reason if running.brake is not None else ""
        noted = record(parts, caller, Action.RESUME_SWEEP, act, resource, stopped_for=why)
        return InventoryChange(orphans.resumed(running) if taken[0] else running, (noted,))

    now = await parts.store.change_inventory(provider, decide)
    tell(parts, caller, Action.RESUME_SWEEP, act, resource)
    return now, taken[0]


async def _do(parts: AdminParts, caller: Caller, key: SightingKey, act: Act, deed: Deed) -> Sighting:
    enter(parts, caller, deeds.ACTIONS[deed], act)
    ref = await find_provider(parts, key.provider)
    if deed not in deeds.abilities(parts, ref):
        text = f"the provider {ref.name!r} cannot {deed.lower()} things"
        raise refused(text, Resource("provider", ref.name), "ABILITY", provider=ref.name)

    def check(glimpse: Glimpse) -> Deed:
        check_by_hand(glimpse, key, deed)
        return deed

    try:
        if act.validate_only:
            return await _tried(parts, key, check)
        return await deeds.perform(parts, caller, ref, key, act, check)
    except PurveyorError as refusal:
        if refusal.reason is Reason.ORPHAN_NOT_FOUND and (knowledge := await _user(parts, ref, key)) is not None:
            raise _in_use(key, knowledge) from refusal
        raise


async def _user(parts: AdminParts, ref: ProviderRef, key: SightingKey) -> Knowledge | None:
    """What the store has of a thing that no sweep had to remember: whoever names one that is in use is told by what."""
    try:
        async with aclosing(batches(parts, ref)) as listed:
            async for batch, known in listed:
                for owned in batch:
                    if (owned.kind, owned.name) == (key.kind, key.name):
                        found = known.get(owned.uid, orphans.NOTHING)
                        return found if found.standing is Standing.KNOWN else None
    except ProviderError as error:
        _log.warning("backend could not be asked about a thing", provider=ref.name, problem=error.message)
    return None


def check_by_hand(glimpse: Glimpse, key: SightingKey, deed: Deed) -> None:
    """What forbids an operator to do it. Raises IN_USE, WRONG_STATE."""
    sighting = glimpse.sighting
    if deed is not Deed.RELEASE and glimpse.knowledge.standing is Standing.KNOWN:
        raise _in_use(key, glimpse.knowledge)
    if stop := orphans.forbidding(glimpse.freezes, key.provider):
        text = f"frozen: {stop.name}: {stop.reason}"
        raise refused(text, _resource(key), "FREEZE", freeze=stop.name)
    quarantined = sighting.state is SightingState.QUARANTINED
    right = quarantined if deed is Deed.RELEASE else sighting.state not in ENDED
    if not right or (deed is Deed.QUARANTINE and quarantined):
        raise _wrong_state(sighting, {Deed.RELEASE: "released", Deed.REAP: "reaped"}.get(deed, "quarantined"))


async def _change(
    parts: AdminParts,
    caller: Caller,
    action: Action,
    key: SightingKey,
    act: Act,
    decide: Callable[[Glimpse], SightingChange],
) -> Sighting:
    if act.validate_only:
        return await _tried(parts, key, decide)
    found = await parts.store.change_sighting(key, decide)
    tell(parts, caller, action, act, deeds.resource(key))
    return found


async def _tried(parts: AdminParts, key: SightingKey, check: Callable[[Glimpse], object]) -> Sighting:
    """As it would be judged now; nothing is written."""

    def decide(glimpse: Glimpse) -> SightingChange:
        check(glimpse)
        raise _ValidatedError(glimpse.sighting)

    try:
        return await parts.store.change_sighting(key, decide)
    except _ValidatedError as validated:
        return validated.sighting


class _ValidatedError(Exception):
    """Undoes a command that was only to be judged."""

    def __init__(self, sighting: Sighting) -> None:
        super().__init__("validated")
        self.sighting = sighting


def _resource(key: SightingKey) -> Resource:
    return Resource("orphan", f"{key.provider}/{key.kind}/{key.name}")


def _in_use(key: SightingKey, knowledge: Knowledge) -> PurveyorError:
    users = ([f"{knowledge.resource} ({knowledge.state})"] if knowledge.resource else []) + [
        f"operation {operation}" for operation in knowledge.operations
    ]
    text = f"the {key.kind} {key.name!r} is in use by {', '.join(users)}"
    return PurveyorError(
        Reason.IN_USE,
        text,
        metadata={"provider": key.provider, "kind": key.kind, "name": key.name, "used_by": ", ".join(users)},
        resource=_resource(key),
        preconditions=tuple(Precondition("IN_USE", user, "it stands for this resource") for user in users),
    )


def _wrong_state(sighting: Sighting, what: str) -> PurveyorError:
    key = sighting.key
    text = f"the {key.kind} {key.name!r} is {sighting.state} and cannot be {what}"
    return refused(text, _resource(key), "STATE", state=str(sighting.state))
