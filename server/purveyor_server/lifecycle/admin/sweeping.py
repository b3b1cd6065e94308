"""A sweep: the backend of one provider compared with the records, and what its policy asks for.

Guarantee: nothing is done before the list has come to its end and was believed; each deed is judged again in the command that
leaves its audit record, which commits before the outside call. One that fails or breaks off leaves the sighting as it was: the
next sweep sees what became of it. Only one sweep runs at a time.
Limit: a list is walked through in one go. Two providers with one backend see the same orphans, each under its own policy.
Source: DESIGN.md section 10.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing
from datetime import datetime, timedelta

import msgspec
import structlog
from msgspec.structs import replace

from purveyor_server.domain import orphans
from purveyor_server.domain.errors import PurveyorError, Reason, Resource
from purveyor_server.domain.freezes import DELETES, REAPING, Freeze
from purveyor_server.domain.model import ProviderRef
from purveyor_server.domain.orphans import Deed, Inventory, Knowledge, Scene, Sighting, SightingState, Tally, Thing
from purveyor_server.domain.policies import OrphanMode
from purveyor_server.lifecycle.admin import deeds
from purveyor_server.lifecycle.admin.acts import enter, record, tell
from purveyor_server.lifecycle.admin.contract import Act, AdminParts
from purveyor_server.lifecycle.admin.inventories import (
    abilities_of,
    batches,
    find_provider,
    policy_of,
    refused,
    strangers,
)
from purveyor_server.lifecycle.contract import ITSELF, Caller
from purveyor_server.lifecycle.door import Action
from purveyor_server.providers.contract import Ability, Owned, ProviderError
from purveyor_server.store.sightings import Glimpse, InventoryChange

_log = structlog.get_logger(__name__)
PAGE = 200  # sightings at once
KEEP = timedelta(days=90)  # sightings that have ended


class Swept(msgspec.Struct, frozen=True):
    """How far a sweep is; `done` once, at its end."""

    inventory: Inventory
    done: bool = False


class _Run:
    """One sweep."""

    def __init__(self, parts: AdminParts, caller: Caller, ref: ProviderRef, act: Act) -> None:
        self.parts = parts
        self.caller = caller
        self.ref = ref
        self.act = act
        self.policy = policy_of(parts, ref)
        self.tally = Tally()
        self.recovering = False
        self.inventory: Inventory


async def sweep(parts: AdminParts, caller: Caller, provider: str, act: Act) -> AsyncIterator[Swept]:
    """Sweep now, as the loop does. With validate_only it only looks. Raises INVALID_REQUEST, WRONG_STATE."""
    enter(parts, caller, Action.SWEEP_INVENTORY, act)
    ref = await find_provider(parts, provider)
    if Ability.LIST_OWNED not in abilities_of(parts, ref):
        text = f"the provider {ref.name!r} cannot list what it owns"
        raise refused(text, Resource("provider", ref.name), "LIST_OWNED", provider=ref.name)
    async with parts.sweeping:
        run = _Run(parts, caller, ref, act)
        await _begin(run)
        problem = ""
        try:
            async with aclosing(batches(parts, ref)) as listed:
                async for batch, known in listed:
                    await _look(run, batch, known)
                    yield Swept(replace(run.inventory, owned=run.tally.owned, orphans=run.tally.orphans))
        except PurveyorError:
            raise  # the store's, not the backend's: the next sweep begins anew
        except Exception as error:  # noqa: BLE001 - a list that breaks off is a finding
            problem = _words(error)
            _log.warning("inventory could not be read to its end", provider=ref.name, problem=problem)
        await _close(run, problem)
        yield Swept(run.inventory, done=True)


async def _begin(run: _Run) -> None:
    store, policy, name = run.parts.store, run.policy, run.ref.name
    run.recovering = await store.recovery() is not None
    if run.act.validate_only:
        now = run.parts.clock.now()
        run.inventory = orphans.begun(await store.inventory(name), name, policy, store.epoch, now)
        return
    asked = run.caller is not ITSELF

    def begin(before: Inventory | None, now: datetime) -> InventoryChange:
        noted = record(run.parts, run.caller, Action.SWEEP_INVENTORY, run.act, f"provider/{name}")
        return InventoryChange(orphans.begun(before, name, policy, store.epoch, now), (noted,) if asked else ())

    run.inventory = await store.change_inventory(name, begin)
    if asked:
        tell(run.parts, run.caller, Action.SWEEP_INVENTORY, run.act, f"provider/{name}")


async def _look(run: _Run, batch: list[Owned], known: Mapping[str, Knowledge]) -> None:
    """Count a batch, and remember what of it has no record, or had none."""
    store, name, tally = run.parts.store, run.ref.name, run.tally
    head = store.head  # read after the list was: what was marked by this store has an older revision
    tally.owned += len(batch)
    tally.later = max([tally.later, *(owned.revision for owned in batch if owned.revision >= head)])
    strange = strangers(batch, known)
    noted = await store.sighted(name, [owned.uid for owned in batch])
    before, ignored = (
        {one.thing.uid for one in noted},
        {one.thing for one in noted if one.state is SightingState.IGNORED},
    )
    tally.orphans += sum(_thing(run, owned) not in ignored for owned, _ in strange)
    concerned = [owned for owned, _ in strange] + [owned for owned in batch if owned.uid in before & known.keys()]
    things = list({(owned.kind, owned.name): _thing(run, owned) for owned in concerned}.values())
    if things and not run.act.validate_only:
        await store.see(name, things, _remembering(run))


def _thing(run: _Run, owned: Owned) -> Thing:
    return Thing(owned.kind, owned.name, owned.uid, owned.revision, run.parts.store.store_id)


def _remembering(run: _Run) -> Callable[[Thing, Sighting | None, Knowledge, datetime], Sighting | None]:
    name, sweep, grace = run.ref.name, run.inventory.sweep, run.policy.grace

    def decide(thing: Thing, before: Sighting | None, knowledge: Knowledge, now: datetime) -> Sighting | None:
        found = orphans.seen(before, name, thing, knowledge, sweep, grace, now)
        return orphans.under_review(found) if run.recovering and found is not None else found

    return decide


async def _close(run: _Run, problem: str) -> None:
    """Judge the list, then do what may be done."""
    store, name = run.parts.store, run.ref.name
    if run.act.validate_only:
        run.inventory = orphans.listed(run.inventory, run.tally, problem, run.policy, run.parts.clock.now())
        return
    if run.tally.later > run.inventory.later:
        await _freeze(run)
    braked = run.inventory.brake

    def end(before: Inventory | None, now: datetime) -> InventoryChange:
        running = before if before is not None else run.inventory
        found = orphans.listed(running, run.tally, problem, run.policy, now)
        return InventoryChange(replace(found, later=max(running.later, run.tally.later)))

    run.inventory = await store.change_inventory(name, end)
    if run.inventory.brake is not None and braked is None:
        _log.error("sweeps are stopped", provider=name, reason=run.inventory.brake.reason)
    if run.inventory.complete:
        while await store.lose_sightings(name, run.inventory.sweep, PAGE) == PAGE:
            pass
        await store.forget_sightings(run.parts.clock.now() - KEEP, PAGE)
    if run.inventory.complete and run.inventory.brake is None and run.policy.mode is not OrphanMode.REPORT:
        await _act(run)

    def ended(before: Inventory | None, now: datetime) -> InventoryChange:
        kept = before if before is not None else run.inventory
        counts = {field: getattr(run.inventory, field) for field in ("quarantined", "reaped", "failed")}
        return InventoryChange(replace(kept, ended_at=now, **counts))

    run.inventory = await store.change_inventory(name, ended)
    _log.info(
        "inventory swept",
        provider=name,
        sweep=run.inventory.sweep,
        owned=run.inventory.owned,
        orphans=run.inventory.orphans,
        quarantined=run.inventory.quarantined,
        reaped=run.inventory.reaped,
        failed=run.inventory.failed,
    )


async def _freeze(run: _Run) -> None:
    """A marker from the future of this store: it was put back to an older state. Nothing is deleted by itself any more."""
    store, revision = run.parts.store, run.tally.later
    reason = (
        f"a resource of {run.ref.name} is marked with revision {revision}, and the store is at {store.head}:"
        " the store was put back to an older state"
    )
    _log.error("store is older than its resources", provider=run.ref.name, revision=revision, head=store.head)
    for name in (DELETES, REAPING):
        act = Act(reason=reason)
        noted = record(run.parts, ITSELF, Action.FREEZE, act, f"freeze/{name}")
        await store.freeze(Freeze(name, reason, ITSELF.subject, run.parts.clock.now()), noted)


async def _act(run: _Run) -> None:
    """At most `cap` deeds: what was never tried first, then what was tried the longest ago."""
    wanted = [SightingState.CONFIRMED]
    if run.policy.mode is OrphanMode.REAP:
        wanted.append(SightingState.QUARANTINED)
    room = run.policy.cap
    for state in wanted:
        after, began = (-1, 0), run.inventory.began_at
        while room > 0:
            page = await run.parts.store.due_sightings(run.ref.name, run.inventory.sweep, state, after, PAGE)
            for due in page:
                tried = due.sighting.tried_at
                if room > 0 and (tried is None or tried < began):
                    room -= await _try(run, due.sighting, room)
            if len(page) < PAGE:
                break
            after = (page[-1].tried, page[-1].seq)


async def _try(run: _Run, sighting: Sighting, room: int) -> bool:
    """Do what may be done to one thing; whether anything was tried."""
    able = deeds.abilities(run.parts, run.ref)
    chosen: list[Deed] = []

    def check(glimpse: Glimpse) -> Deed:
        verdict = orphans.judge(glimpse.sighting, glimpse.knowledge, scene(run, glimpse, room, able))
        if verdict.deed is Deed.NOTHING:
            raise PurveyorError(Reason.WRONG_STATE, verdict.why)
        chosen[:] = [verdict.deed]
        return verdict.deed

    act = (
        replace(run.act, reason=f"an orphan, and the policy is {run.policy.mode}") if run.caller is ITSELF else run.act
    )
    try:
        found = await deeds.perform(run.parts, run.caller, run.ref, sighting.key, act, check)
    except PurveyorError as refusal:
        if refusal.reason is not Reason.WRONG_STATE:
            raise
        return False
    counted = "failed" if found.failure else "reaped" if chosen[0] is Deed.REAP else "quarantined"
    run.inventory = replace(run.inventory, **{counted: getattr(run.inventory, counted) + 1})
    return True


def scene(run: _Run, glimpse: Glimpse, room: int, able: frozenset[Deed]) -> Scene:
    """What the judgement looks at, as one command sees it. Negative controls of the tests take parts of it out."""
    return Scene(
        store=run.parts.store.store_id,
        now=glimpse.now,
        head=glimpse.head,
        policy=run.policy,
        sweep=run.inventory.sweep,
        room=room,
        can=able,
        freezes=glimpse.freezes,
        recovering=glimpse.recovering,
        braked=glimpse.inventory is None or glimpse.inventory.brake is not None,
    )


def _words(error: Exception) -> str:
    return error.message if isinstance(error, ProviderError) else type(error).__name__
