"""Topics: what the provider says of its backend (observe, list_owned) is so, and it can be changed (updates)."""

from __future__ import annotations

from purveyor_server.domain.states import Drift, Make
from purveyor_server.providers.contract import Ability, Owned, WorkSettings
from purveyor_server.providers.testing.case import Case, ContractBroken, fresh_store_id
from purveyor_server.providers.testing.context import REVISION
from purveyor_server.providers.testing.kit import Kit, opened


async def check_update(case: Case) -> None:
    """An update changes the instance, can be repeated, and is undone by ensure with the previous settings."""
    async with opened(case) as kit:
        uid = await kit.provision()
        before = await case.listing()
        work = kit.update_of(uid)
        await kit.update(work)
        changed = await case.listing()
        await kit.update(work)
        await kit.same(changed, "after an update that ran twice")
        for step in reversed(kit.facade.plan(work, {})):
            await kit.step(work, step.piece, Make.ENSURE, undo=True)
        await kit.same(before, "after an update was undone")


async def check_observe(case: Case) -> None:
    """IN_SYNC after every change, MISSING of what is gone; looking changes nothing."""
    async with opened(case) as kit:
        kit.needs(Ability.OBSERVE)
        uid = await kit.provision()
        await _says(kit, uid, Drift.IN_SYNC, "after the provision")
        if Ability.BIND in kit.provider.abilities:
            binding = await kit.bind(uid)
            await _says(kit, uid, Drift.IN_SYNC, "after a bind")
            await kit.unbind(binding)
            await _says(kit, uid, Drift.IN_SYNC, "after an unbind")
        if Ability.UPDATE in kit.provider.abilities and case.changed is not None:
            await kit.update(kit.update_of(uid))
            await _says(kit, uid, Drift.IN_SYNC, "after an update")
        settings = kit.instances[uid]
        await kit.deprovision(uid)
        await _says(kit, uid, Drift.MISSING, "after the deprovision", settings)


async def check_drift(case: Case) -> None:
    """An instance that somebody took away is MISSING; ensure makes it anew, or a deprovision ends it."""
    async with opened(case) as kit:
        kit.needs(Ability.OBSERVE)
        uid = await kit.provision()
        await case.destroy(uid)
        await _says(kit, uid, Drift.MISSING, "after it was taken away by hand")
        await kit.deprovision(uid)


async def _says(kit: Kit, uid: str, drift: Drift, when: str, settings: WorkSettings | None = None) -> None:
    before = await kit.case.listing()
    observed = await kit.observe(uid, settings)
    if observed.drift is not drift:
        said = "; ".join(observed.differences) or "no difference named"
        raise ContractBroken(f"observe says {observed.drift} {when}, not {drift} ({said})")
    if observed.healthy != (drift is Drift.IN_SYNC):
        raise ContractBroken(f"observe says healthy={observed.healthy} {when}")
    if drift is not Drift.IN_SYNC and not observed.differences:
        raise ContractBroken(f"observe says {drift} {when} and names no difference")
    await kit.same(before, f"after observe {when}, which changes nothing")


async def check_list_owned(case: Case) -> None:
    """Every instance and binding is listed with the uid and revision of its marker; nothing of another store; nothing gone."""
    async with opened(case) as kit, opened(case, fresh_store_id()) as neighbour:
        kit.needs(Ability.LIST_OWNED)
        uids = {await kit.provision(), await kit.provision()}
        if Ability.BIND in kit.provider.abilities:
            uids.add((await kit.bind(min(uids))).uid)
        theirs = await neighbour.provision()
        await _lists(kit, uids, "beside another store's instance")
        await _lists(neighbour, {theirs}, "beside another store's instances")
        if await kit.owned(fresh_store_id()):
            raise ContractBroken("list_owned names things of a store that has none")
        await kit.clear()
        await _lists(kit, set(), "after all was given back")
        await _lists(neighbour, {theirs}, "after the other store's were given back")
        await neighbour.clear()


async def _lists(kit: Kit, uids: set[str], when: str) -> None:
    listed = await kit.owned()
    found = {thing.uid for thing in listed}
    if strange := found - uids:
        raise ContractBroken(f"list_owned names {sorted(strange)[:3]} {when}, which are none of this store's")
    if missing := uids - found:
        raise ContractBroken(f"list_owned does not name {sorted(missing)[:3]} {when}: {_kinds(listed)}")
    if wrong := [thing for thing in listed if thing.revision != REVISION]:
        raise ContractBroken(f"list_owned gives the revision {wrong[0].revision}; the marker says {REVISION}")
    if len({(thing.kind, thing.name) for thing in listed}) < len(listed):
        raise ContractBroken("list_owned names a thing twice")


def _kinds(listed: list[Owned]) -> str:
    return f"it names {len(listed)} things of the kinds {sorted({thing.kind for thing in listed})}"
