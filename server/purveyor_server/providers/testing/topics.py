"""Every topic of the contract suite by name, and how one is judged."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias

from purveyor_server.providers.testing import access, custody, kills, late, plans, repeats, truth
from purveyor_server.providers.testing.case import Case

Topic: TypeAlias = Callable[[Case], Awaitable[None]]
"""Raises ContractBroken (or whatever the provider raised) when the contract is not kept, NotOffered when it cannot be judged."""

TOPICS: dict[str, Topic] = {
    "round trip": repeats.check_round_trip,
    "ensure twice": repeats.check_ensure_twice,
    "absent before ensure": repeats.check_absent_before_ensure,
    "absent twice": repeats.check_absent_twice,
    "runs at once": repeats.check_runs_at_once,
    "settle": repeats.check_settle,
    "late effects": late.check_late_effects,
    "kills: provision": kills.check_kills_provision,
    "kills: update": kills.check_kills_update,
    "kills: bind": kills.check_kills_bind,
    "kills: unbind": kills.check_kills_unbind,
    "kills: deprovision": kills.check_kills_deprovision,
    "update": truth.check_update,
    "observe": truth.check_observe,
    "drift": truth.check_drift,
    "list_owned": truth.check_list_owned,
    "unique credentials": access.check_unique_credentials,
    "binds at once": access.check_binds_at_once,
    "access": access.check_access,
    "expiry": access.check_expiry,
    "secrecy": access.check_secrecy,
    "quarantine": custody.check_quarantine,
    "reclaim": custody.check_reclaim,
    "adopt": custody.check_adopt,
    "pure plan": plans.check_pure_plan,
    "removal plan": plans.check_removal_plan,
    "schemas": plans.check_schemas,
}
