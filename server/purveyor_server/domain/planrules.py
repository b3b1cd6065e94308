"""What may be done with a plan, and with what it made, in each state of the plan's life.

Guarantee: one table for every verb; what keeps or takes away (get, unbind, deprovision, the way to another plan) is never
refused because of a plan's state. The table is printed in docs/catalog.md, and a test holds the two together.
Limit: what else a verb asks for (visibility, transitions, schemas, the conflict matrix) is asked elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from purveyor_server.domain.catalog import Plan
from purveyor_server.domain.errors import Precondition, PurveyorError, Reason, Resource
from purveyor_server.domain.policies import PlanState


class Use(StrEnum):
    """What somebody does with a plan, or with an instance or binding of it."""

    SHOW = "GetCatalog"
    ORDER = "Provision"
    ENTER = "UpdateInstance to this plan"
    CHANGE = "UpdateInstance of parameters"
    UPGRADE = "UpdateInstance to the plan's maintenance version"
    RECORD = "UpdateInstance of labels and protection"
    LEAVE = "UpdateInstance to another plan"
    BIND = "Bind"
    RENEW = "RenewBinding"
    ROTATE = "RotateBinding"
    GET = "GetInstance, GetBinding, GetCredentials"
    UNBIND = "Unbind"
    DEPROVISION = "Deprovision"


_LIVING = dict.fromkeys(PlanState, None)
_OFFERED = {**_LIVING, PlanState.RETIRED: Reason.UNKNOWN_PLAN, PlanState.REMOVED: Reason.UNKNOWN_PLAN}

# None: allowed. A reason: refused with it.
RULES: Mapping[Use, Mapping[PlanState, Reason | None]] = {
    Use.SHOW: _OFFERED,
    Use.ORDER: _OFFERED,
    Use.ENTER: _OFFERED,
    Use.CHANGE: {**_LIVING, PlanState.REMOVED: Reason.PLAN_NOT_UPDATABLE},
    Use.UPGRADE: {**_LIVING, PlanState.REMOVED: Reason.PLAN_NOT_UPDATABLE},
    Use.RECORD: _LIVING,
    Use.LEAVE: _LIVING,
    Use.BIND: {**_LIVING, PlanState.REMOVED: Reason.NOT_BINDABLE},
    Use.RENEW: _LIVING,
    Use.ROTATE: _LIVING,
    Use.GET: _LIVING,
    Use.UNBIND: _LIVING,
    Use.DEPROVISION: _LIVING,
}

_WHY = {
    Reason.UNKNOWN_PLAN: "it cannot be ordered",
    Reason.PLAN_NOT_UPDATABLE: "its instances can be changed to another plan, or given back",
    Reason.NOT_BINDABLE: "its instances get no new bindings; those that they have can be read and removed",
}


def check_use(use: Use, state: PlanState, plan_id: str) -> None:
    """Raise what the table says when a plan in this state is not for that."""
    reason = RULES[use][state]
    if reason is None:
        return
    gone = "no catalog has it any more" if state is PlanState.REMOVED else "it is retired"
    text = f"the plan {plan_id!r} is not for this: {gone}, so {_WHY[reason]}"
    raise PurveyorError(
        reason,
        text,
        metadata={"plan_id": plan_id, "plan_state": str(state)},
        resource=Resource("plan", plan_id),
        preconditions=(Precondition("PLAN_STATE", f"plan/{plan_id}", text),),
    )


def why_not_from(target: Plan, plan_id: str, *, leavable: bool) -> str:
    """Why an instance of the plan `plan_id` may not move to `target`, "" when it may.

    What the target declares decides alone; else `leavable`, the word of the plan that is left.
    """
    if target.transitions_from is not None:
        return "" if plan_id in target.transitions_from else "the other plan does not take instances of this one"
    return "" if leavable else "instances of this plan cannot change their plan"


def markdown() -> str:
    """The table as docs/catalog.md has it."""
    states = list(PlanState)
    lines = [f"| call | {' | '.join(states)} |", f"|---|{'---|' * len(states)}"]
    for use, row in RULES.items():
        cells = ("yes" if row[state] is None else _printed(use, row[state]) for state in states)
        lines.append(f"| {use} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _printed(use: Use, reason: Reason | None) -> str:
    return "not there" if use is Use.SHOW else str(reason)
