"""Backups of the store, and the way out of a restore.

Guarantee: a review changes nothing; automatic deletion and the operations of the time before the restore stay stopped
until an operator finishes the recovery.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

import structlog

from purveyor_server.domain.errors import Precondition, PurveyorError, Reason, Resource
from purveyor_server.domain.model import Instance, ProviderRef
from purveyor_server.domain.orphans import Standing
from purveyor_server.domain.recovery import Recovery
from purveyor_server.domain.states import Drift, InstanceState
from purveyor_server.lifecycle.admin import looking
from purveyor_server.lifecycle.admin.acts import enter, record, tell
from purveyor_server.lifecycle.admin.contract import Act, AdminParts, BackupFile, Difference, DifferenceKind
from purveyor_server.lifecycle.admin.inventories import batches, strangers
from purveyor_server.lifecycle.admin.reporting import providers
from purveyor_server.lifecycle.contract import Caller
from purveyor_server.lifecycle.door import Action
from purveyor_server.providers.contract import ProviderError
from purveyor_server.store.contract import Page
from purveyor_server.store.operating import work_place

_log = structlog.get_logger(__name__)
PAGE = 200  # rows read at once


@asynccontextmanager
async def backup(parts: AdminParts, caller: Caller) -> AsyncIterator[BackupFile]:
    """A copy of the store in a file, for the length of the block. Raises STORE_FULL, STORE_UNAVAILABLE."""
    enter(parts, caller, Action.BACKUP)
    path = parts.scratch / f"backup-{secrets.token_hex(8)}.db"
    try:
        copied = await parts.store.backup(path)
        parts.door.note(caller, Action.BACKUP, "", revision=str(copied.revision))
        yield BackupFile(path, copied)
    finally:
        path.unlink(missing_ok=True)


async def finish_recovery(parts: AdminParts, caller: Caller, act: Act) -> tuple[Recovery, int]:
    """End the recovery; what it was, and how many operations go on. Raises WRONG_STATE."""
    enter(parts, caller, Action.FINISH_RECOVERY, act)
    found = await _recovery(parts)
    if act.validate_only:
        return found, 0
    noted = record(parts, caller, Action.FINISH_RECOVERY, act, "recovery", revision=found.revision)
    await parts.store.finish_recovery(noted)
    tell(parts, caller, Action.FINISH_RECOVERY, act, "recovery")
    return found, await parts.store.unfreeze()


async def review_recovery(parts: AdminParts, caller: Caller) -> AsyncIterator[Difference]:
    """Every difference, one by one. Raises WRONG_STATE."""
    enter(parts, caller, Action.REVIEW_RECOVERY)
    found = await _recovery(parts)
    async for difference in _unfinished(parts, found):
        yield difference
    for ref in providers(parts):
        async for difference in _unknown(parts, ref, found):
            yield difference
    async for difference in _drifted(parts):
        yield difference


async def _recovery(parts: AdminParts) -> Recovery:
    found = await parts.store.recovery()
    if found is None:
        text = "there is no recovery to go through: the store was not restored, or the recovery is finished"
        raise PurveyorError(
            Reason.WRONG_STATE,
            text,
            metadata={"store": parts.store.store_id},
            resource=Resource("store", parts.store.store_id),
            preconditions=(Precondition("RECOVERY", "store", text),),
        )
    return found


async def _unfinished(parts: AdminParts, recovery: Recovery) -> AsyncIterator[Difference]:
    after = ""
    while page := await parts.store.every_unfinished(Page(PAGE, after)):
        for operation in page:
            if operation.created_at < recovery.restored_at:
                yield Difference(
                    kind=DifferenceKind.UNFINISHED,
                    provider=operation.provider,
                    resource=f"{operation.verb} of {operation.instance_id}",
                    sentence="unfinished when the backup was taken: it goes on when the recovery is finished, unless it is"
                    " cancelled or purged",
                    tenant=operation.tenant,
                    instance_id=operation.instance_id,
                    operation_id=operation.operation_id,
                )
        after = work_place(page[-1])


async def _unknown(parts: AdminParts, ref: ProviderRef, recovery: Recovery) -> AsyncIterator[Difference]:
    """Resources with our marker that no record, or only a deleted one, stands for."""
    try:
        async with aclosing(batches(parts, ref)) as listed:
            async for batch, known in listed:
                for owned, found in strangers(batch, known):
                    when = "after the backup" if recovery.was_lost(owned.revision) else "before the backup"
                    what = "is deleted here" if found.standing is Standing.REMAINS else "has no record here"
                    yield Difference(
                        kind=DifferenceKind.UNKNOWN_RESOURCE,
                        provider=ref.name,
                        resource=f"{owned.kind} {owned.name}",
                        sentence=f"made {when} and {what}; nothing deletes it by itself before the recovery is finished, then the"
                        " policy of its provider does, a grace period later",
                    )
    except Exception as error:  # noqa: BLE001 - a backend that cannot be asked is a finding, not the end of the review
        yield _unreadable(ref, error)


async def _drifted(parts: AdminParts) -> AsyncIterator[Difference]:
    after = ""
    while page := await parts.store.every_instance(Page(PAGE, after)):
        for instance in page:
            if instance.state is InstanceState.READY and (difference := await _observed(parts, instance)):
                yield difference
        after = page[-1].uid


async def _observed(parts: AdminParts, instance: Instance) -> Difference | None:
    sight = await looking.sight_of(parts, instance)
    if sight is None:
        return None
    ref: ProviderRef | None = None
    try:
        ref, known = await looking.known_of(parts, sight.instance, sight.bindings)
        seen = await parts.backends.observe(ref, known)
    except looking.MissingPlanError:
        return None
    except Exception as error:  # noqa: BLE001 - as above
        return _unreadable(ref or ProviderRef("", ""), error, instance)
    if seen.drift in {Drift.IN_SYNC, Drift.UNKNOWN}:
        return None
    missing = seen.drift is Drift.MISSING
    advice = "deprovision or purge it" if missing else "an update brings it back"
    return Difference(
        kind=DifferenceKind.MISSING if missing else DifferenceKind.DRIFTED,
        provider=ref.name,
        resource=f"instance {instance.instance_id}",
        sentence="; ".join((*seen.differences, advice)),
        tenant=instance.tenant,
        instance_id=instance.instance_id,
    )


def _unreadable(ref: ProviderRef, error: Exception, instance: Instance | None = None) -> Difference:
    said = error.message if isinstance(error, ProviderError) else type(error).__name__
    _log.warning("backend could not be reviewed", provider=ref.name, error=type(error).__name__)
    return Difference(
        kind=DifferenceKind.UNREADABLE,
        provider=ref.name,
        resource=f"instance {instance.instance_id}" if instance is not None else f"provider {ref.name}",
        sentence=f"could not be asked: {said}",
        tenant=instance.tenant if instance is not None else "",
        instance_id=instance.instance_id if instance is not None else "",
    )
