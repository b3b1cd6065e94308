"""The audit records: a page of them, and whether they are what was written.

Guarantee: a page looks at a bounded number of records; one that is empty or short may have a next one. A verification reads
all that is kept, in pages, while the broker serves; what retention cuts off meanwhile is not missed.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping

import structlog

from purveyor_server.domain import filters
from purveyor_server.domain.auditchain import Marks, Verifier
from purveyor_server.domain.errors import invalid
from purveyor_server.lifecycle.admin.acts import enter
from purveyor_server.lifecycle.admin.contract import AdminParts, AuditListing, Verification
from purveyor_server.lifecycle.contract import Caller, PageOf
from purveyor_server.lifecycle.door import Action
from purveyor_server.lifecycle.paging import Question, read_token, write_token
from purveyor_server.security.keyring import AUDIT, chain_keys
from purveyor_server.store.operating import AuditLook

_log = structlog.get_logger(__name__)
DEFAULT_PAGE = 100
MAX_PAGE = 1000
LINKS = 1000  # records verified at once
TELL_SECONDS = 0.5  # between two words about how far it is
MAX_ANCHORS = 1000


async def list_records(parts: AdminParts, caller: Caller, listing: AuditListing) -> PageOf:
    """A page of `ChainedRecord`. Raises INVALID_PAGE_TOKEN, INVALID_FILTER, INVALID_REQUEST."""
    enter(parts, caller, Action.LIST_AUDIT_RECORDS)
    where = filters.parse(listing.filter, filters.AUDIT)
    if listing.page_size < 0:
        raise invalid("page_size", "must not be negative")
    size = min(listing.page_size or DEFAULT_PAGE, MAX_PAGE)
    kind = "audit oldest first" if listing.oldest_first else "audit"
    question = Question(kind, "", "", listing.filter, show_deleted=False, store=parts.store.store_id)
    start = int(read_token(parts.token_key, question, listing.page_token)) if listing.page_token else 0
    found = await parts.store.audit(where, AuditLook(size, start, newest_first=not listing.oldest_first))
    more = write_token(parts.token_key, question, str(found.more)) if found.more else ""
    return PageOf(found.records, more)


async def verify(parts: AdminParts, caller: Caller, anchors: Mapping[int, bytes]) -> AsyncIterator[Verification]:
    """How far it is, now and then, and what was found, at its end. Raises INVALID_REQUEST."""
    enter(parts, caller, Action.VERIFY_AUDIT)
    if len(anchors) > MAX_ANCHORS:
        raise invalid("anchors", f"are more than {MAX_ANCHORS}")
    store = parts.store
    keys = chain_keys(store.store_id, parts.keys.sealer, await store.metas(AUDIT))
    marks = await store.audit_marks()
    judge = Verifier(keys, marks, anchors)
    told = parts.clock.monotonic()
    while True:
        page = await store.audit_links(judge.number, _end(marks), LINKS)
        if page and page[0].number > judge.number + 1:
            judge.moved(await store.audit_marks())  # retention may have gone on
            page = tuple([record for record in page if record.number > judge.number])
        for record in page:
            judge.feed(record)
        if (now := parts.clock.monotonic()) - told >= TELL_SECONDS:
            told = now
            yield _told(judge, marks)
        if not page:
            later = await store.audit_marks()
            if _end(later) <= _end(marks):
                break
            marks = later  # what came meanwhile
    judge.end(marks)
    parts.verified.faults = judge.faults
    if not judge.faults:
        parts.verified.at = parts.clock.now()
    else:
        _log.error("audit records are not what was written", faults=judge.faults)
    yield _told(judge, marks, done=True)


def _end(marks: Marks) -> int:
    return marks.head.number if marks.head is not None else marks.newest


def _told(judge: Verifier, marks: Marks, *, done: bool = False) -> Verification:
    return Verification(
        checked=judge.checked,
        before_chain=judge.before_chain,
        faults=judge.faults,
        findings=tuple(judge.findings) if done else (),
        number=judge.number,
        chain=judge.chain,
        cut=marks.cut,
        done=done,
    )
