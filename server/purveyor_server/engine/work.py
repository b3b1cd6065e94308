"""What a claimed operation is about, in a provider's words: no tenant, no caller's ids.

Guarantee: `Assignment` is built from the claimed rows alone; everything that a deletion needs is there when nothing can be
unsealed (names come from uids).
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from purveyor_server.domain.model import Binding, Instance, Operation, PlanSnapshot, ProviderRef, Settings, Step
from purveyor_server.domain.states import WORK_VERBS, StepState, Verb
from purveyor_server.engine.unveiling import Unveiled
from purveyor_server.providers.contract import BindingWork, Outputs, Work, WorkSettings
from purveyor_server.store.contract import Claimed

NO_SECRETS = Unveiled({})


class MissingPlanError(Exception):
    """A plan snapshot that a record names is not in the store."""


def settings_for(
    settings: Settings | None, plans: Mapping[str, PlanSnapshot], secrets: Unveiled = NO_SECRETS
) -> WorkSettings | None:
    """Stored settings with their plan snapshot's provider settings."""
    if settings is None:
        return None
    plan = plans.get(settings.plan)
    if plan is None:
        raise MissingPlanError(settings.plan)
    return WorkSettings(settings.service_id, settings.plan_id, plan.settings, secrets.parameters(settings))


def work_for(
    operation: Operation,
    instance: Instance,
    binding: Binding | None,
    plans: Mapping[str, PlanSnapshot],
    secrets: Unveiled = NO_SECRETS,
) -> Work:
    """The work of an operation (of the origin, for a CLEANUP). Raises VeiledError."""
    return Work(
        verb=WORK_VERBS[operation.verb],
        instance_uid=instance.uid,
        want=settings_for(operation.want, plans, secrets),
        was=settings_for(instance.applied or operation.was, plans, secrets)
        if operation.verb is Verb.DEPROVISION
        else settings_for(operation.was, plans, secrets),
        outputs=instance.outputs,
        binding=_binding_work(operation, binding, secrets) if operation.binding_uid and binding is not None else None,
        adopt=operation.adopt,
    )


def _binding_work(operation: Operation, binding: Binding, secrets: Unveiled) -> BindingWork:
    end = binding.expires_at if operation.expiry is None else operation.expiry.to
    return BindingWork(binding.uid, secrets.parameters(binding), binding.bind_resource, end)


def done_outputs(steps: tuple[Step, ...]) -> dict[str, Outputs]:
    """Outputs of the finished prefix, by step name."""
    return {step.name: step.outputs for step in steps if step.state is StepState.DONE}


class Assignment(msgspec.Struct, frozen=True):
    """One claim, translated. For a CLEANUP `work` is that of its origin."""

    claimed: Claimed
    work: Work
    provider: ProviderRef
    plan_name: str  # of the wanted settings, "" when there are none
    uid: str  # whose names, secrets and marker: the binding's in binding work, else the instance's
    undone: Work  # the same on the way back: a binding's end as it was before

    @property
    def operation(self) -> Operation:
        """The operation as claimed."""
        return self.claimed.operation


def assignment(claimed: Claimed, secrets: Unveiled = NO_SECRETS) -> Assignment:
    """Translate a claim; raises MissingPlanError, VeiledError."""
    operation = claimed.operation
    about = claimed.origin if operation.verb is Verb.CLEANUP and claimed.origin is not None else operation
    work = work_for(about, claimed.instance, claimed.binding, claimed.plans, secrets)
    settings = about.want or claimed.instance.applied or about.was or claimed.instance.desired
    plan = claimed.plans.get(claimed.binding.plan if claimed.binding is not None else settings.plan)
    if plan is None:
        raise MissingPlanError(settings.plan)
    wanted = claimed.plans.get(about.want.plan) if about.want is not None else None
    name = wanted.plan_name if wanted is not None else ""
    uid = operation.binding_uid or operation.instance_uid
    return Assignment(claimed, work, plan.provider, name, uid, _undone(about, work))


def _undone(about: Operation, work: Work) -> Work:
    if about.expiry is None or work.binding is None:
        return work
    binding = msgspec.structs.replace(work.binding, expires_at=about.expiry.back)
    return msgspec.structs.replace(work, binding=binding)
