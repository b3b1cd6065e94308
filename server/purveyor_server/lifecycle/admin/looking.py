"""Looking at the backend of an instance, now or in its turn, and what is made of that.

Guarantee: a look changes nothing in a backend and deletes nothing. What it finds is kept only while the instance is still as it
was when the look began: an operation that began meanwhile wins. The record changes, and is told as an event, only when the
drift does; everything else of a look is kept beside it.
Limit: an instance on which an operation runs, its bindings' included, is not looked at.
"""

from __future__ import annotations

import structlog
from msgspec.structs import replace

from purveyor_server.domain.audit import AuditRecord
from purveyor_server.domain.drift import Look, Observation, first, judge
from purveyor_server.domain.errors import Precondition, PurveyorError, Reason, Resource, instance_not_found, invalid
from purveyor_server.domain.model import Binding, Instance, ProviderRef
from purveyor_server.domain.names import check_id, check_tenant
from purveyor_server.domain.records import touch
from purveyor_server.domain.states import BindingState, Drift, InstanceState
from purveyor_server.lifecycle.admin.acts import enter, record, tell
from purveyor_server.lifecycle.admin.contract import Act, AdminParts
from purveyor_server.lifecycle.contract import Caller, PageOf
from purveyor_server.lifecycle.door import Action
from purveyor_server.lifecycle.paging import Question, read_token, write_token
from purveyor_server.lifecycle.veiling import opened, unveil
from purveyor_server.providers.contract import Ability, Ambiguous, Known, ProviderError, Unreachable, WorkSettings
from purveyor_server.store.contract import SYSTEM, Page
from purveyor_server.store.observing import Drifted, Seen, Sight

_log = structlog.get_logger(__name__)
DEFAULT_PAGE, MAX_PAGE = 100, 1000
# Bindings of which the backend may have something; of the others nothing is left, or an operation runs.
THERE = frozenset({BindingState.ACTIVE, BindingState.EXPIRED, BindingState.REVOCATION_BLOCKED})


class BackendDownError(Exception):
    """The backend does not answer: nobody else of this provider need be looked at now."""


class MissingPlanError(Exception):
    """A plan snapshot that a record names is not in the store."""


async def observe_instance(parts: AdminParts, caller: Caller, tenant: str, instance_id: str, act: Act) -> Drifted:
    """Look now; what is known then. Raises INSTANCE_NOT_FOUND, WRONG_STATE, OPERATION_IN_PROGRESS."""
    enter(parts, caller, Action.OBSERVE_INSTANCE, act)
    check_tenant(tenant)
    check_id(instance_id, "instance_id")
    instance = await parts.store.instance(SYSTEM, tenant, instance_id)
    if instance is None or instance.state is InstanceState.DELETED:
        raise instance_not_found(tenant, instance_id)
    sight = await _sight(parts, instance.uid)
    if sight is None or not _quiet(sight):
        raise _not_now(instance)
    try:
        look = await _look(parts, sight)
    except BackendDownError as error:
        look = Look(None, problem=str(error))
    resource = f"instance/{instance_id}"
    if act.validate_only:
        observation = judge(_before(sight), look, parts.clock.now(), parts.pace)
        return Drifted(instance, observation)
    noted = record(parts, caller, Action.OBSERVE_INSTANCE, act, resource, tenant)
    seen = await _keep(parts, sight, look, noted)
    if seen is None:
        raise _not_now(instance)
    tell(parts, caller, Action.OBSERVE_INSTANCE, act, resource, tenant)
    return Drifted(seen.instance or instance, seen.observation)


async def look_in_turn(parts: AdminParts, caller: Caller, instance: Instance) -> None:
    """One look of the broker's own. Raises BackendDownError, having postponed this one."""
    parts.door.enter_operator(caller, Action.OBSERVE_INSTANCE)
    sight = await _sight(parts, instance.uid)
    if sight is None:
        return
    if not _quiet(sight):
        await postpone(parts, instance, soon=True)
        return
    try:
        look = await _look(parts, sight)
    except BackendDownError as error:
        await _keep(parts, sight, Look(None, problem=str(error)))
        raise
    if await _keep(parts, sight, look) is None:
        await postpone(parts, instance, soon=True)


async def postpone(parts: AdminParts, instance: Instance, *, soon: bool = False) -> None:
    """Do not look at it now; nothing else of what is known changes."""

    def decide(sight: Sight) -> Seen:
        pause = parts.pace.confirm if soon else parts.pace.every
        return Seen(replace(_before(sight), look_at=sight.now + pause))

    await parts.store.observe(instance.uid, decide)


async def list_drift(parts: AdminParts, caller: Caller, page_size: int, page_token: str) -> PageOf:
    """A page of `Drifted`, of every tenant. Raises INVALID_PAGE_TOKEN, INVALID_REQUEST."""
    enter(parts, caller, Action.LIST_DRIFT)
    if page_size < 0:
        raise invalid("page_size", "must not be negative")
    size = min(page_size or DEFAULT_PAGE, MAX_PAGE)
    question = Question("drift", "", "", "", show_deleted=False, store=parts.store.store_id)
    after = read_token(parts.token_key, question, page_token) if page_token else ""
    found = await parts.store.drifted(Page(limit=size + 1, after=after))
    items = found[:size]
    more = write_token(parts.token_key, question, items[-1].instance.uid) if len(found) > size else ""
    return PageOf(items, more)


async def known_of(parts: AdminParts, instance: Instance, bindings: tuple[Binding, ...]) -> tuple[ProviderRef, Known]:
    """An instance as its provider is asked about it. Raises MissingPlanError, SealError."""
    applied = instance.present
    plan = await parts.store.plan(applied.plan)
    if plan is None:
        raise MissingPlanError(applied.plan)
    clear = await opened(parts.store, parts.keys.sealer, instance.uid, applied.sealed)
    parameters = unveil(applied.parameters, applied.sealed, clear)
    settings = WorkSettings(applied.service_id, applied.plan_id, plan.settings, parameters)
    there = tuple(binding.uid for binding in bindings if binding.state in THERE or binding.cleanup_required)
    return plan.provider, Known(instance.uid, settings, instance.outputs, there)


async def sight_of(parts: AdminParts, instance: Instance) -> Sight | None:
    """An instance with its bindings and operations, as of one moment; None when nothing can be said of it now."""
    sight = await _sight(parts, instance.uid)
    return sight if sight is not None and _quiet(sight) else None


async def _sight(parts: AdminParts, uid: str) -> Sight | None:
    """What there is, as of one moment."""
    found: list[Sight] = []

    def note(sight: Sight) -> None:
        found.append(sight)

    await parts.store.observe(uid, note)
    return found[-1] if found else None


def _quiet(sight: Sight) -> bool:
    return sight.instance.state is InstanceState.READY and not sight.operations


async def _look(parts: AdminParts, sight: Sight) -> Look:
    """Ask the provider. Raises BackendDownError."""
    try:
        ref, known = await known_of(parts, sight.instance, sight.bindings)
        if Ability.OBSERVE not in parts.backends.abilities(ref):
            return Look(None, problem="its provider cannot look at instances", supported=False)
        seen = await parts.backends.observe(ref, known)
    except (Unreachable, Ambiguous) as error:
        raise BackendDownError(_words(error)) from error
    except ProviderError as error:
        return Look(None, problem=_words(error))
    except Exception as error:  # noqa: BLE001 - a record that cannot be looked at is a finding
        _log.warning("instance could not be looked at", instance_uid=sight.instance.uid, error=type(error).__name__)
        return Look(None, problem=f"could not be looked at: {type(error).__name__}")
    return Look(None if seen.drift is Drift.UNKNOWN else seen.drift, seen.differences)


def _words(error: ProviderError) -> str:
    return f"{error.message}: {error.detail}" if error.detail else error.message


async def _keep(parts: AdminParts, before: Sight, look: Look, noted: AuditRecord | None = None) -> Seen | None:
    """Keep what a look found; None when the instance is no longer what was looked at."""

    def decide(sight: Sight) -> Seen | None:
        if not _quiet(sight) or _picture(sight) != _picture(before):
            return None
        return _seen(sight, judge(_before(sight), look, sight.now, parts.pace))

    return await parts.store.observe(before.instance.uid, decide, noted)


def _picture(sight: Sight) -> tuple[object, ...]:
    """What a look is about: settings, outputs and bindings; not what other looks found meanwhile."""
    instance = sight.instance
    return (
        instance.applied,
        instance.outputs,
        instance.last_operation,
        tuple((binding.uid, binding.version) for binding in sight.bindings),
    )


def _seen(sight: Sight, after: Observation) -> Seen:
    """What is kept; the instance too when its drift has changed."""
    instance = sight.instance
    if after.drift is instance.drift:
        return Seen(after)
    changes: dict[str, object] = {"drift": after.drift, "observed_at": after.observed_at}
    if after.drift is Drift.MISSING:
        changes["usable"] = False
    elif instance.drift is Drift.MISSING and not instance.cleanup_required:
        changes["usable"] = True
    _log.info("drift changed", instance_uid=instance.uid, before=str(instance.drift), now=str(after.drift))
    return Seen(after, touch(instance, sight.now, **changes))


def _before(sight: Sight) -> Observation:
    instance = sight.instance
    found = sight.observation or first(instance.uid, instance.tenant, instance.instance_id, sight.now)
    return replace(found, drift=instance.drift)


def _not_now(instance: Instance) -> PurveyorError:
    """An instance that is not READY, or on which something runs, cannot be looked at."""
    busy = instance.state is InstanceState.READY
    text = f"the instance {instance.instance_id!r} is " + (
        "being worked on: its backend is looked at when nothing runs" if busy else f"in state {instance.state}"
    )
    return PurveyorError(
        Reason.OPERATION_IN_PROGRESS if busy else Reason.WRONG_STATE,
        text,
        metadata={"instance_id": instance.instance_id, "state": str(instance.state)},
        resource=Resource("instance", instance.instance_id),
        preconditions=() if busy else (Precondition("STATE", f"instance/{instance.instance_id}", text),),
        retry_after=1.0 if busy else None,
    )
