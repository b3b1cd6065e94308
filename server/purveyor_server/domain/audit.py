"""Audit records: who did what, to which thing, why.

Guarantee: a record is written in the same command as the act it tells of, and is never changed; no secret is in one.
Limit: today only operators' acts leave a record; those of consumers are log lines.
"""

from __future__ import annotations

from datetime import datetime

import msgspec

from purveyor_server.domain.model import Json


class AuditRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One act. `resource` names its object as `kind/name/...`; `details` are facts about it; `number` is set by the store."""

    at: datetime
    principal: str
    action: str
    resource: str
    reason: str
    tenant: str = ""
    request_id: str = ""
    details: dict[str, Json] = {}
    number: int = 0
