"""Freezes: what an operator has stopped, and which operations that holds.

Guarantee: a freeze holds an operation before its next outside call, never in the middle of one; a caller's own
Deprovision and Unbind are held by nothing but `all`, their provider's freeze and `recovery`.
Limit: what already runs in a backend goes on to its end.
Source: DESIGN.md section 10.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

import msgspec

from purveyor_server.domain.errors import invalid
from purveyor_server.domain.model import Operation
from purveyor_server.domain.principal import BROKER
from purveyor_server.domain.states import Make, OperationState, Verb

DELETES = "deletes"  # whatever deletes by itself: clean-ups, and the way back of what failed
REAPING = "reaping"  # the sweep of orphans
ALL = "all"  # every outside call
ROTATION = "rotation"  # successors that the broker makes by itself
RECOVERY = "recovery"  # operations of the time before a restore; set by `purveyor restore`
PROVIDER = "provider:"  # and a provider's name
NAMES = (DELETES, REAPING, ROTATION, ALL, RECOVERY)
MAX_REASON = 500  # characters


class Freeze(msgspec.Struct, frozen=True):
    """One stop: its name, why, who set it and when."""

    name: str
    reason: str
    principal: str
    at: datetime


def check_name(name: str) -> str:
    """`name`, or INVALID_REQUEST."""
    if name in NAMES or (name.startswith(PROVIDER) and len(name) > len(PROVIDER)):
        return name
    raise invalid("name", f"{name!r} is not one of {', '.join(NAMES)} or {PROVIDER}NAME")


def check_reason(reason: str) -> str:
    """`reason` without its edges; INVALID_REQUEST when it is empty, too long or has control characters."""
    found = reason.strip()
    if not found:
        raise invalid("reason", "is missing: it is what the audit record will say")
    if len(found) > MAX_REASON or not found.isprintable():
        raise invalid("reason", f"must be one line of at most {MAX_REASON} printable characters")
    return found


def holding(freezes: Iterable[Freeze], operation: Operation, make: Make) -> Freeze | None:
    """The freeze that keeps `operation` from the outside call `make`; None when it may go on."""
    return next((freeze for freeze in freezes if _holds(freeze, operation, make)), None)


def _holds(freeze: Freeze, operation: Operation, make: Make) -> bool:
    if freeze.name == DELETES:
        given_up = operation.verb is Verb.DEPROVISION and operation.principal == BROKER.subject
        by_itself = operation.verb is Verb.CLEANUP or operation.state is OperationState.ROLLING_BACK or given_up
        return by_itself and make is Make.ABSENT
    if freeze.name == ROTATION:
        return operation.succession is not None and operation.principal == BROKER.subject and make is Make.ENSURE
    if freeze.name == RECOVERY:
        return operation.created_at < freeze.at
    return freeze.name in {ALL, PROVIDER + operation.provider}


def describe(freeze: Freeze) -> str:
    """What a held operation says of itself."""
    return f"frozen: {freeze.name}: {freeze.reason}"
