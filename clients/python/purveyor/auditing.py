"""Audit records and their verification, from messages; and the lines of an export.

Guarantee: a line of an export holds the record byte for byte as the broker chained it, behind `"record":`, so that whoever has
the key of its label can verify it (docs/security.md, Audit).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from purveyor import decode
from purveyor.admin_values import AuditAnchor, AuditFinding, AuditRecord, AuditVerification
from purveyor.v1 import admin_service_pb2 as messages

if TYPE_CHECKING:
    from datetime import datetime


def record_of(found: messages.AuditRecord) -> AuditRecord:
    """A record."""
    return AuditRecord(
        number=found.number,
        act_time=decode.time_of(found.act_time),
        principal=found.principal,
        action=found.action,
        resource=found.resource,
        tenant=found.tenant,
        reason=found.reason,
        request_id=found.request_id,
        details=decode.json_of(found.details),
        outcome=decode.enum_name(messages.AuditRecord.Outcome, found.outcome, "OUTCOME_"),
        means=found.means,
        credential_id=found.credential_id,
        on_behalf_of=found.on_behalf_of,
        origin=found.origin,
        call_id=found.call_id,
        body=found.body.decode("utf-8", "replace"),
        key=found.key,
        chain=found.chain.hex(),
        previous_chain=found.previous_chain.hex(),
    )


def verification_of(found: messages.VerifyAuditResponse) -> AuditVerification:
    """How far a verification is."""
    faults = messages.AuditFinding.Fault
    return AuditVerification(
        checked=found.checked,
        before_chain=found.before_chain,
        faults=found.faults,
        findings=tuple(
            AuditFinding(
                fault=decode.enum_name(faults, finding.fault, "FAULT_"),
                first_number=finding.first_number,
                last_number=finding.last_number,
                sentence=finding.sentence,
            )
            for finding in found.findings
        ),
        last=AuditAnchor(number=found.last.number, chain=found.last.chain.hex()),
        first_number=found.checkpoint.number + 1,
        done=found.done,
    )


def export_line(record: AuditRecord) -> str:
    """One line of an export, without its end."""
    place = {"number": record.number, "key": record.key, "previous": record.previous_chain, "chain": record.chain}
    return json.dumps(place, separators=(",", ":"))[:-1] + f',"record":{record.body}}}'


def conditions(given: str, since: datetime | None = None, until: datetime | None = None, **equal: str) -> str:
    """A filter: what is given, and these; a time belongs to `since` and not to `until`."""
    parts = [given] if given else []
    parts += [f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in equal.items() if value]
    if since is not None:
        parts.append(f'NOT act_time < "{since.isoformat()}"')
    if until is not None:
        parts.append(f'act_time < "{until.isoformat()}"')
    return " AND ".join(parts)
