"""What is done to an orphan in its backend, by a sweep or by hand.

Guarantee: the record that something is about to be done commits, in the command that has judged it, before the outside call;
another record tells how it ended. A call whose end is not known leaves the sighting as it was.
Limit: between that command and the call the store may change: a uid that has neither record nor operation gets none any more,
for uids are never used again.
"""

from __future__ import annotations

from collections.abc import Callable

import structlog

from purveyor_server.domain import orphans
from purveyor_server.domain.model import Json, ProviderRef
from purveyor_server.domain.orphans import Deed, Sighting, SightingKey
from purveyor_server.kit import failpoints
from purveyor_server.lifecycle.admin.acts import record, tell
from purveyor_server.lifecycle.admin.contract import Act, AdminParts
from purveyor_server.lifecycle.admin.inventories import abilities_of
from purveyor_server.lifecycle.contract import Caller
from purveyor_server.lifecycle.door import Action
from purveyor_server.providers.contract import Ability, NotYet, Owned, ProviderError, RightsMissing
from purveyor_server.store.sightings import Glimpse, SightingChange

_log = structlog.get_logger(__name__)
ABILITIES = {
    Deed.QUARANTINE: Ability.QUARANTINE,
    Deed.RELEASE: Ability.QUARANTINE,
    Deed.REAP: Ability.RECLAIM,
}
ACTIONS = {
    Deed.QUARANTINE: Action.QUARANTINE_ORPHAN,
    Deed.RELEASE: Action.RELEASE_ORPHAN,
    Deed.REAP: Action.REAP_ORPHAN,
}


def abilities(parts: AdminParts, ref: ProviderRef) -> frozenset[Deed]:
    """What the provider can do to an orphan."""
    able = abilities_of(parts, ref)
    return frozenset(deed for deed, ability in ABILITIES.items() if ability in able)


async def perform(
    parts: AdminParts,
    caller: Caller,
    ref: ProviderRef,
    key: SightingKey,
    act: Act,
    check: Callable[[Glimpse], Deed],
) -> Sighting:
    """Do what `check` says; the sighting after it, with the failure if there was one. `check` raises what forbids it."""
    chosen: list[Deed] = []

    def begin(glimpse: Glimpse) -> SightingChange:
        chosen[:] = [check(glimpse)]
        thing, standing = glimpse.sighting.thing, str(glimpse.sighting.standing)
        facts: dict[str, Json] = {"uid": thing.uid, "revision": thing.revision, "standing": standing}
        noted = record(parts, caller, ACTIONS[chosen[0]], act, resource(key), phase="begun", **facts)
        return SightingChange(orphans.done(glimpse.sighting, Deed.NOTHING, "", glimpse.now), (noted,))

    begun = await parts.store.change_sighting(key, begin)
    deed = chosen[0]
    failure = await _call(parts, ref, deed, begun)

    def end(glimpse: Glimpse) -> SightingChange:
        noted = record(parts, caller, ACTIONS[deed], act, resource(key), phase="ended", failure=failure)
        return SightingChange(orphans.done(glimpse.sighting, deed, failure, glimpse.now), (noted,))

    found = await parts.store.change_sighting(key, end)
    tell(parts, caller, ACTIONS[deed], act, resource(key))
    return found


async def _call(parts: AdminParts, ref: ProviderRef, deed: Deed, sighting: Sighting) -> str:
    """The outside call; why it failed, "" when it did not."""
    thing = sighting.thing
    owned = Owned(thing.kind, thing.name, thing.uid, thing.revision)
    backends = parts.backends
    if failpoints.is_off(deed.lower()):  # a negative control only
        return ""
    calls = {Deed.QUARANTINE: backends.quarantine, Deed.RELEASE: backends.release, Deed.REAP: backends.reclaim}
    try:
        answer = await calls[deed](ref, owned)
    except Exception as error:  # noqa: BLE001 - whatever it was, the next sweep sees what became of it
        said = _words(error) if isinstance(error, ProviderError) else type(error).__name__
        _log.warning("orphan could not be dealt with", provider=ref.name, deed=str(deed), problem=said)
        return said or type(error).__name__
    return f"not finished: {answer.note}" if isinstance(answer, NotYet) else ""


def _words(error: ProviderError) -> str:
    """For operators: where rights are missing, with what an administrator of the backend has to do first."""
    return f"{error.message}: {error.detail}" if isinstance(error, RightsMissing) and error.detail else error.message


def resource(key: SightingKey) -> str:
    """What an audit record calls it."""
    return f"orphan/{key.provider}/{key.kind}/{key.name}"
