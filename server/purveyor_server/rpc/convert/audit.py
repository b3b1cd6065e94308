"""Audit records and their verification as messages."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from purveyor.v1 import admin_service_pb2 as pb
from purveyor_server.domain.auditchain import START, Cut, Finding
from purveyor_server.domain.errors import invalid
from purveyor_server.lifecycle.admin.contract import AuditListing, Verification
from purveyor_server.rpc.convert.values import to_struct, to_timestamp
from purveyor_server.store.operating import ChainedRecord

FAULTS = {name.removeprefix("FAULT_"): number for name, number in pb.AuditFinding.Fault.items() if number}
OUTCOMES = {name.removeprefix("OUTCOME_"): number for name, number in pb.AuditRecord.Outcome.items() if number}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def decode_listing(request: pb.ListAuditRecordsRequest) -> AuditListing:
    """Which records are asked for."""
    return AuditListing(
        page_size=request.page_size,
        page_token=request.page_token,
        filter=request.filter,
        oldest_first=request.oldest_first,
    )


def decode_anchors(request: pb.VerifyAuditRequest) -> dict[int, bytes]:
    """Anchors by number. Raises INVALID_REQUEST."""
    for anchor in request.anchors:
        if anchor.number < 1 or len(anchor.chain) != len(START):
            raise invalid("anchors", f"an anchor is a number from 1 on and a chain value of {len(START)} bytes")
    return {anchor.number: anchor.chain for anchor in request.anchors}


def encode_record(found: ChainedRecord) -> pb.AuditRecord:
    """A record with its place in the chain."""
    record = found.record
    return pb.AuditRecord(
        number=record.number,
        act_time=to_timestamp(record.at),
        principal=record.principal,
        action=record.action,
        resource=record.resource,
        tenant=record.tenant,
        reason=record.reason,
        request_id=record.request_id,
        details=to_struct(record.details),
        outcome=OUTCOMES[record.outcome],
        means=record.means,
        credential_id=record.credential,
        on_behalf_of=record.on_behalf,
        origin=record.origin,
        call_id=record.call_id,
        body=found.body,
        key=found.key,
        chain=found.chain,
        previous_chain=found.previous,
    )


def encode_verification(verification: Verification) -> pb.VerifyAuditResponse:
    """How far a verification is, or its end."""
    return pb.VerifyAuditResponse(
        checked=verification.checked,
        before_chain=verification.before_chain,
        faults=verification.faults,
        findings=[_finding(finding) for finding in verification.findings],
        last=pb.AuditAnchor(number=verification.number, chain=verification.chain),
        checkpoint=None if verification.cut is None else _checkpoint(verification.cut),
        done=verification.done,
    )


def _finding(finding: Finding) -> pb.AuditFinding:
    return pb.AuditFinding(
        fault=FAULTS[finding.fault],
        first_number=finding.number,
        last_number=finding.last,
        sentence=finding.sentence,
    )


def _checkpoint(cut: Cut) -> pb.AuditCheckpoint:
    return pb.AuditCheckpoint(
        number=cut.number,
        cut_time=to_timestamp(_EPOCH + timedelta(microseconds=cut.at)),
        removed=cut.removed,
        chain=cut.chain,
    )
