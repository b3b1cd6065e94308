"""What a catalog says of the life of plans, credentials and remains, as values.

Guarantee: plain values with defaults that change nothing for a catalog that does not name them: plans are ACTIVE, bindings do
not end, remains are removed at once, orphans are reported and never touched.
Limit: whether the numbers make sense together is judged where the catalog is loaded.
"""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum

import msgspec


class PlanState(StrEnum):
    """Life of a plan in the catalog. REMOVED is never written there: it is what a plan is that no catalog has any more."""

    ACTIVE = "ACTIVE"
    DEPRECATED = "DEPRECATED"  # may still be ordered; says so
    RETIRED = "RETIRED"  # nobody may order it, nor see it; what it made lives on
    REMOVED = "REMOVED"


class LeasePolicy(msgspec.Struct, frozen=True):
    """How long bindings of a plan live. None: without end, or not by itself.

    `ttl` is what a bind gets that names none; `max_ttl` is the most from creation on, renewals included; `renew_before` is
    how long before its end a binding should be renewed or rotated; `overlap` is how long a predecessor outlives the
    successor's activation; `rotate_every` is the age at which the broker rotates by itself, and with `auto_rotate` it also
    does when `renew_before` is reached.
    """

    ttl: timedelta | None = None
    max_ttl: timedelta | None = None
    renew_before: timedelta | None = None
    overlap: timedelta = timedelta(hours=1)
    rotate_every: timedelta | None = None
    auto_rotate: bool = False


class CleanupMode(StrEnum):
    """When the remains of a failed create or bind are removed."""

    IMMEDIATE = "IMMEDIATE"
    DELAYED = "DELAYED"
    MANUAL = "MANUAL"  # they are held for an operator, who looks, then retries or cleans up


class CleanupPolicy(msgspec.Struct, frozen=True):
    """What is done with what a failed create or bind left behind; never anything after a failed update."""

    mode: CleanupMode = CleanupMode.IMMEDIATE
    delay: timedelta = timedelta(0)  # of DELAYED


class OrphanMode(StrEnum):
    """What a sweep may do with a resource that carries our marker and is in no record."""

    REPORT = "REPORT"
    QUARANTINE = "QUARANTINE"  # made unusable, kept
    REAP = "REAP"  # quarantined first where the provider can, then removed


class InventoryPolicy(msgspec.Struct, frozen=True):
    """How the backend of one provider is compared with the records.

    An orphan is acted upon only when it was seen in two sweeps at least `grace` apart, at most `cap` of them per sweep. The
    brake stops a sweep that finds more than `brake_percent` of the provider's resources or `brake_count` of them orphaned, or
    a list that has shrunk by half.
    """

    mode: OrphanMode = OrphanMode.REPORT
    every: timedelta = timedelta(hours=1)
    grace: timedelta = timedelta(days=1)
    cap: int = 10
    brake_percent: float = 10.0
    brake_count: int = 20
