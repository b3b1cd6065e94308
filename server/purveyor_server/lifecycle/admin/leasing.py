"""Bindings of every tenant by their end, and those whose access could not be taken away.

Guarantee: in the order of the times, so that what ends first is seen first; page tokens belong to their question.
"""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec

from purveyor_server.domain.errors import invalid
from purveyor_server.domain.names import check_tenant
from purveyor_server.lifecycle.admin.acts import enter
from purveyor_server.lifecycle.admin.contract import AdminParts
from purveyor_server.lifecycle.contract import Caller, PageOf
from purveyor_server.lifecycle.door import Action
from purveyor_server.lifecycle.paging import Question, read_token, write_token
from purveyor_server.store.contract import Page
from purveyor_server.store.leases import Due, place_of

DEFAULT_PAGE, MAX_PAGE = 100, 1000
DEFAULT_WITHIN = timedelta(days=1)
MAX_WITHIN = timedelta(days=36500)


class Expiring(msgspec.Struct, frozen=True, kw_only=True):
    """Which bindings: those that end `within` (None: a day) from now, or the blocked ones; of one tenant or of all."""

    tenant: str = ""
    within: timedelta | None = None
    blocked: bool = False
    page_size: int = 0
    page_token: str = ""


async def list_expiring(parts: AdminParts, caller: Caller, asked: Expiring) -> PageOf:
    """A page of bindings. Raises INVALID_REQUEST, INVALID_PAGE_TOKEN."""
    enter(parts, caller, Action.LIST_EXPIRING_BINDINGS)
    if asked.tenant:
        check_tenant(asked.tenant)
    if asked.page_size < 0:
        raise invalid("page_size", "must not be negative")
    due = Due.REVOCATION if asked.blocked else Due.EXPIRY
    limit = min(asked.page_size or DEFAULT_PAGE, MAX_PAGE)
    text = f"{due}:{asked.within}"
    question = Question("expiring", asked.tenant, "", text, show_deleted=False, store=parts.store.store_id)
    after = read_token(parts.token_key, question, asked.page_token) if asked.page_token else ""
    found = await parts.store.due_bindings(due, _until(parts, asked), Page(limit + 1, after), asked.tenant)
    if len(found) <= limit:
        return PageOf(found)
    items = found[:limit]
    return PageOf(items, write_token(parts.token_key, question, place_of(items[-1], due)))


def _until(parts: AdminParts, asked: Expiring) -> datetime:
    if asked.blocked:
        return parts.clock.now() + MAX_WITHIN
    within = DEFAULT_WITHIN if asked.within is None else asked.within
    if not timedelta(0) <= within <= MAX_WITHIN:
        raise invalid("within", "must not be negative, and at most 100 years")
    return parts.clock.now() + within
