"""Platform-orphans as operators see them: instances that their platform no longer names."""

from __future__ import annotations

from datetime import datetime

import msgspec

from purveyor_server.domain.automation import why_kept
from purveyor_server.domain.errors import invalid
from purveyor_server.domain.model import Instance
from purveyor_server.domain.platforms import OrphanPolicy
from purveyor_server.lifecycle.admin.acts import enter
from purveyor_server.lifecycle.admin.contract import AdminParts
from purveyor_server.lifecycle.contract import Caller, PageOf
from purveyor_server.lifecycle.door import Action
from purveyor_server.lifecycle.paging import Question, read_token, write_token
from purveyor_server.store.contract import Page
from purveyor_server.store.platforms import PlatformOrphan

DEFAULT_PAGE, MAX_PAGE = 100, 1000


class Stranded(msgspec.Struct, frozen=True):
    """One of them. `due_at`: from when on an inventory that leaves it out again lets it be given back; `kept`: why it is not."""

    instance: Instance
    seen_at: datetime
    due_at: datetime
    kept: str


async def list_platform_orphans(parts: AdminParts, caller: Caller, page_size: int, page_token: str) -> PageOf:
    """A page of `Stranded`, of every tenant. Raises INVALID_PAGE_TOKEN, INVALID_REQUEST."""
    enter(parts, caller, Action.LIST_PLATFORM_ORPHANS)
    if page_size < 0:
        raise invalid("page_size", "must not be negative")
    size = min(page_size or DEFAULT_PAGE, MAX_PAGE)
    question = Question("platform orphans", "", "", "", show_deleted=False, store=parts.store.store_id)
    after = read_token(parts.token_key, question, page_token) if page_token else ""
    found = await parts.store.platform_orphans(Page(limit=size + 1, after=after))
    items = found[:size]
    more = write_token(parts.token_key, question, items[-1].instance.uid) if len(found) > size else ""
    return PageOf(tuple([_stranded(parts, one) for one in items]), more)


def _stranded(parts: AdminParts, orphan: PlatformOrphan) -> Stranded:
    rules = parts.use_case_settings.platforms
    since = orphan.instance.platform_orphan_since or orphan.seen_at
    return Stranded(orphan.instance, orphan.seen_at, since + rules.grace, _kept(orphan, rules.policy))


def _kept(orphan: PlatformOrphan, policy: OrphanPolicy) -> str:
    if why := why_kept(orphan.instance):
        return why
    if orphan.bindings:
        return f"it has {orphan.bindings} live bindings"
    return "orphans are reported only" if policy is OrphanPolicy.REPORT else ""
