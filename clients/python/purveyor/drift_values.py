"""What operators are told about backends, as values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime


@dataclass(frozen=True, kw_only=True)
class DriftReport:
    """How the backend of an instance compares with its record. `problem`: why the last look failed; `next_look_time`: when it
    is looked at again.
    """

    tenant: str
    instance_id: str
    uid: str
    service_id: str
    plan_id: str
    drift: str
    differences: tuple[str, ...] = ()
    problem: str = ""
    since_time: datetime | None = None
    observe_time: datetime | None = None
    look_time: datetime | None = None
    next_look_time: datetime | None = None
    pause_reason: str = ""
