"""Bindings as leases: when one ends, when it should be renewed, when the broker rotates it. Pure.

Guarantee: an end is never later than `max_ttl` after the binding's creation, however often it is renewed; a renewal goes to a
time and adds nothing up; the jitter of a rotation is the same for a binding whenever it is asked for.
Limit: who keeps the end (the backend) and who sweeps (the expiry loop) may be late by the skew of their clocks.
"""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta

import msgspec

from purveyor_server.domain.errors import PurveyorError, Reason, Violation, invalid
from purveyor_server.domain.policies import LeasePolicy

JITTER = (
    0.1  # of the time until a rotation: how much earlier it may be, so that bindings of one hour do not come together
)
_SCALE = 2**32


class Terms(msgspec.Struct, frozen=True):
    """When a binding ends (None: never), when it should be renewed, and when the broker rotates it by itself."""

    expires_at: datetime | None = None
    renew_before: datetime | None = None
    rotate_at: datetime | None = None


def first_terms(policy: LeasePolicy, uid: str, now: datetime, ttl: timedelta | None, *, rotatable: bool) -> Terms:
    """The terms of a new binding. Raises INVALID_REQUEST for a ttl beyond the plan's max_ttl."""
    span = policy.ttl if ttl is None else ttl
    if span is None and policy.max_ttl is not None:
        span = policy.max_ttl
    if span is not None and policy.max_ttl is not None and span > policy.max_ttl:
        raise beyond("ttl", policy.max_ttl)
    return terms(policy, uid, now, None if span is None else now + span, rotatable=rotatable)


def terms(policy: LeasePolicy, uid: str, start: datetime, end: datetime | None, *, rotatable: bool) -> Terms:
    """The terms of a binding that was made, or renewed, at `start` and ends at `end`."""
    renew = _renew_before(policy, start, end)
    candidates = []
    if rotatable and policy.rotate_every is not None:
        candidates.append(_early(uid, start, start + policy.rotate_every))
    if rotatable and policy.auto_rotate and renew is not None:
        candidates.append(_early(uid, start, renew))
    return Terms(end, renew, min(candidates, default=None))


def _renew_before(policy: LeasePolicy, start: datetime, end: datetime | None) -> datetime | None:
    """Never in the first half of the time there is: a policy may be longer than a short ttl."""
    if end is None or policy.renew_before is None:
        return None
    return max(end - policy.renew_before, start + (end - start) / 2)


def _early(uid: str, start: datetime, due: datetime) -> datetime:
    share = int.from_bytes(hashlib.sha256(f"rotate:{uid}".encode()).digest()[:4], "big") / _SCALE
    return due - (due - start) * JITTER * share


def renewal_target(
    policy: LeasePolicy,
    created: datetime,
    now: datetime,
    *,
    at: datetime | None,
    ttl: timedelta | None,
    most: timedelta,
) -> datetime:
    """Where a renewal goes; `most` is the longest time from now where the plan says nothing. Raises INVALID_REQUEST that
    names the field and the most that is allowed."""
    if at is not None and ttl is not None:
        raise invalid("ttl", "is given beside expire_time: send one of them")
    last = None if policy.max_ttl is None else created + policy.max_ttl
    if at is None and ttl is None:
        if policy.ttl is None and last is None:
            raise invalid("expire_time", "is required: the plan has no ttl of its own")
        standard = now + policy.ttl if policy.ttl is not None else last
        assert standard is not None
        return standard if last is None else min(standard, last)
    field, span = ("expire_time", at - now) if at is not None else ("ttl", ttl or timedelta(0))
    if not timedelta(0) < span <= most:
        raise invalid(field, f"must be later than now, by {most.days} days at most")
    target = now + span
    if last is not None and target > last:
        assert policy.max_ttl is not None
        raise beyond(field, policy.max_ttl, last)
    return target


def beyond(field: str, most: timedelta, last: datetime | None = None) -> PurveyorError:
    """INVALID_REQUEST: the plan allows less."""
    seconds = f"{most.total_seconds():g}"
    until = "" if last is None else f", that is until {last.isoformat()}"
    text = f"the plan allows at most {seconds} seconds from the binding's creation on{until}"
    metadata = {"max_ttl_seconds": seconds} | ({} if last is None else {"latest": last.isoformat()})
    return PurveyorError(
        Reason.INVALID_REQUEST, f"{field}: {text}", metadata=metadata, violations=(Violation(field, text),)
    )


def earlier(own: datetime | None, other: datetime) -> datetime:
    """The end of a predecessor: its own, or the end of the overlap."""
    return other if own is None else min(own, other)


def contradictions(policy: LeasePolicy, *, rotatable: bool) -> dict[str, str]:
    """What in a policy cannot be, by its key."""
    longest = policy.ttl or policy.max_ttl
    found = {}
    if policy.ttl is not None and policy.max_ttl is not None and policy.ttl > policy.max_ttl:
        found["ttl"] = "is longer than max_ttl"
    if policy.renew_before is not None and (longest is None or policy.renew_before >= longest):
        found["renew_before"] = "needs a ttl, or max_ttl, that is longer"
    if policy.auto_rotate and (policy.renew_before is None or not rotatable):
        found["auto_rotate"] = "needs renew_before, and binding_rotatable of the plan"
    if policy.rotate_every is not None and not rotatable:
        found["rotate_every"] = "needs binding_rotatable of the plan"
    return found


def over(expires_at: datetime | None, now: datetime) -> bool:
    """Whether the time is over."""
    return expires_at is not None and expires_at <= now
