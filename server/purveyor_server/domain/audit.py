"""Audit records: who did what, for whom, from where, to which thing, with what outcome.

Guarantee: a record is written in the same command as the act it tells of, and before what it tells of is given away; it is
never changed; no secret is in one. How records are chained is in `auditchain`.
Limit: what was refused for want of a right or a name is counted, not recorded call by call: see `DENIALS`.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

import msgspec

from purveyor_server.domain.model import Json

DENIALS = "Denials"  # the action of a record that stands for `details.count` refused calls


class AuditOutcome(StrEnum):
    """How it went."""

    DONE = "DONE"  # an operator's act, or one of the broker itself
    ACCEPTED = "ACCEPTED"  # a change of a consumer: what becomes of it is in its operation
    READ = "READ"  # credentials, given away right after the record
    DENIED = "DENIED"  # calls refused for want of a right
    UNAUTHENTICATED = "UNAUTHENTICATED"  # calls refused because nobody knows who calls
    BROKEN = "BROKEN"  # the chain of records did not fit when the store was opened


class AuditRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One act. `resource` names its object as `kind/name/...`; `details` are facts about it; `number` is set by the store."""

    at: datetime
    principal: str
    action: str
    resource: str
    reason: str = ""
    tenant: str = ""
    request_id: str = ""  # what the caller calls its request, to send it again
    details: dict[str, Json] = {}
    outcome: AuditOutcome = AuditOutcome.DONE
    means: str = ""  # how the principal was recognised
    credential: str = ""  # which of its credentials it showed, never a secret
    on_behalf: str = ""  # the platform's end user
    origin: str = ""  # the other end of the connection
    call_id: str = ""  # the call's id, as in the log
    number: int = 0
