"""What operators are told about orphans and sweeps, as values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime


@dataclass(frozen=True, kw_only=True)
class Orphan:
    """A thing in a backend that no record stands for. `standing`: UNKNOWN, REMAINS of what is deleted, or KNOWN by now;
    `failure`: why the last thing that was done to it did not work."""

    provider: str
    kind: str
    name: str
    uid: str
    revision: int
    state: str
    standing: str
    sweeps: int
    first_seen_time: datetime | None = None
    last_seen_time: datetime | None = None
    quarantine_time: datetime | None = None
    try_time: datetime | None = None
    failure: str = ""


@dataclass(frozen=True, kw_only=True)
class InventoryStatus:
    """How the sweeps of a provider go. `brake_reason`: why they do nothing until an operator says go on."""

    provider: str
    mode: str
    sweep: int
    complete: bool
    owned: int
    orphans: int
    quarantined: int
    reaped: int
    failed: int
    begin_time: datetime | None = None
    end_time: datetime | None = None
    problem: str = ""
    brake_reason: str = ""
    brake_time: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class RebuildLine:
    """A thing with the store's marker and what the store says of its uid, or what else was found. `first` begins a group of
    one uid; `later`: its marker is not older than the store."""

    provider: str
    finding: str
    kind: str = ""
    name: str = ""
    uid: str = ""
    revision: int = 0
    resource: str = ""
    first: bool = True
    later: bool = False
    problem: str = ""
