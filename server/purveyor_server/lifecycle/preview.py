"""The answer to validate_only: what would be accepted, and by which steps, with nothing that could be mistaken for real."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import structlog
from msgspec.structs import replace

from purveyor_server.domain.model import Binding, Json, Operation, Settings
from purveyor_server.domain.states import WORK_VERBS, Verb
from purveyor_server.lifecycle.contract import Outcome, Planned
from purveyor_server.lifecycle.running import Parts
from purveyor_server.lifecycle.veiling import unveil
from purveyor_server.providers.contract import BindingWork, ProviderError, Work, WorkSettings
from purveyor_server.providers.registry import ProviderMissingError
from purveyor_server.store.contract import Decision

_log = structlog.get_logger(__name__)
NO_CLEAR: Mapping[str, Json] = {}


def preview(parts: Parts, decision: Decision, clear: Mapping[str, Json] = NO_CLEAR) -> Outcome:
    """The outcome of a dry run. What exists already (a replay, the current state) is shown as it is.

    `clear` holds secret parameters by column: the provider plans with them, and they are not shown.
    """
    operation = decision.operation
    if operation is None or decision.replayed:
        return Outcome(operation, decision.instance, decision.binding, replayed=decision.replayed)
    instance, binding = decision.instance, decision.binding
    if instance is not None:
        instance = replace(instance, last_operation="", uid=_uid(operation, instance.uid, Verb.PROVISION))
    if binding is not None:
        binding = replace(binding, last_operation="", uid=_uid(operation, binding.uid, Verb.BIND))
    shown = replace(
        operation,
        operation_id="",
        instance_uid=_uid(operation, operation.instance_uid, Verb.PROVISION),
        binding_uid=_uid(operation, operation.binding_uid, Verb.BIND),
    )
    children = [one for one in decision.writes.operations if one.parent == operation.operation_id]
    planned = [step for child in children for step in _steps(parts, decision, child, clear)]
    planned += _steps(parts, decision, operation, clear)
    return Outcome(shown, instance, binding, planned=tuple(planned))


def _uid(operation: Operation, uid: str, made_by: Verb) -> str:
    """No uid for what does not exist yet."""
    return "" if operation.verb is made_by else uid


def _steps(parts: Parts, decision: Decision, operation: Operation, clear: Mapping[str, Json]) -> Iterable[Planned]:
    """The steps; none when the provider cannot say at present, which a removal tolerates."""
    instance = decision.instance
    settings = operation.want or operation.was
    if settings is None or operation.done:
        return ()
    binding, within = decision.binding, ""
    if operation.parent:
        binding = next(one for one in decision.writes.bindings if one.uid == operation.binding_uid)
        within = f"binding/{binding.binding_id}/"
    snapshot = parts.book.get(settings.plan).snapshot
    work = Work(
        verb=WORK_VERBS[operation.verb],
        instance_uid=operation.instance_uid,
        want=work_settings(parts, operation.want, clear),
        was=work_settings(parts, operation.was, clear),
        outputs=instance.outputs if instance is not None else {},
        binding=_binding(binding, clear),
        adopt=operation.adopt,
    )
    try:
        steps = parts.plans.plan_steps(snapshot.provider, work)
    except (ProviderError, ProviderMissingError) as error:
        _log.warning("steps could not be planned", provider=snapshot.provider.name, error=type(error).__name__)
        return ()
    return tuple(Planned(within + step.piece.name, step.make, step.pivot) for step in steps)


def work_settings(parts: Parts, settings: Settings | None, clear: Mapping[str, Json]) -> WorkSettings | None:
    """Settings as the provider plans with them, secret parameters of `clear` put in."""
    if settings is None:
        return None
    plan = parts.book.get(settings.plan).snapshot
    parameters = unveil(settings.parameters, settings.sealed, clear)
    return WorkSettings(settings.service_id, settings.plan_id, plan.settings, parameters)


def _binding(binding: Binding | None, clear: Mapping[str, Json]) -> BindingWork | None:
    if binding is None:
        return None
    parameters = unveil(binding.parameters, binding.sealed, clear)
    return BindingWork(binding.uid, parameters, binding.bind_resource, binding.expires_at)
