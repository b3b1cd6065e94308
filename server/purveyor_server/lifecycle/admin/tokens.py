"""Static tokens: made, listed, taken back.

Guarantee: the text of a token is in the answer that made it and nowhere else; making and revoking one leaves an audit record
in the same command; a revoked one is forgotten by this process before the call ends.
Limit: a creation that is sent again makes another token.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import NamedTuple

import msgspec

from purveyor_server.domain.audit import AuditRecord
from purveyor_server.domain.errors import invalid
from purveyor_server.domain.model import Json
from purveyor_server.domain.names import check_id
from purveyor_server.domain.tokens import Token, check_name, check_roles, check_tenants, token_not_found
from purveyor_server.kit.secret import Secret
from purveyor_server.lifecycle.admin.acts import enter, record, tell
from purveyor_server.lifecycle.admin.contract import Act, AdminParts
from purveyor_server.lifecycle.contract import Caller, PageOf
from purveyor_server.lifecycle.door import Action
from purveyor_server.lifecycle.paging import Question, read_token, write_token
from purveyor_server.security.identity.tokentext import mint
from purveyor_server.store.contract import Page

DEFAULT_PAGE, MAX_PAGE = 100, 1000
MIN_TTL, MAX_TTL = timedelta(seconds=1), timedelta(days=3650)


class TokenWish(msgspec.Struct, frozen=True, kw_only=True):
    """What a token shall be. `ttl` None: it never ends by itself."""

    name: str
    roles: tuple[str, ...]
    tenants: tuple[str, ...] = ()
    every_tenant: bool = False
    ttl: timedelta | None = None


class MadeToken(NamedTuple):
    """A token and, once, what its holder shows."""

    token: Token
    text: Secret | None


async def create_token(parts: AdminParts, caller: Caller, wish: TokenWish, act: Act) -> MadeToken:
    """Make a token. Raises INVALID_REQUEST."""
    enter(parts, caller, Action.CREATE_TOKEN, act)
    made = make(wish, parts.clock.now(), caller.subject)
    if act.validate_only:
        return MadeToken(msgspec.structs.replace(made.token, token_id=""), None)
    resource = f"token/{made.token.token_id}"
    noted = record(parts, caller, Action.CREATE_TOKEN, act, resource, "", **facts(made.token))
    await parts.store.create_token(made.token, noted)
    tell(parts, caller, Action.CREATE_TOKEN, act, resource)
    return made


async def list_tokens(parts: AdminParts, caller: Caller, page_size: int, page_token: str) -> PageOf:
    """A page of tokens by id. Raises INVALID_PAGE_TOKEN, INVALID_REQUEST."""
    enter(parts, caller, Action.LIST_TOKENS)
    if page_size < 0:
        raise invalid("page_size", "must not be negative")
    size = min(page_size or DEFAULT_PAGE, MAX_PAGE)
    question = Question("tokens", "", "", "", show_deleted=False, store=parts.store.store_id)
    after = read_token(parts.token_key, question, page_token) if page_token else ""
    found = await parts.store.tokens(Page(limit=size + 1, after=after))
    items = found[:size]
    more = write_token(parts.token_key, question, items[-1].token_id) if len(found) > size else ""
    return PageOf(items, more)


async def revoke_token(parts: AdminParts, caller: Caller, token_id: str, act: Act) -> Token:
    """Take a token back. Raises TOKEN_NOT_FOUND, INVALID_REQUEST."""
    enter(parts, caller, Action.REVOKE_TOKEN, act)
    check_id(token_id, "token_id")
    if act.validate_only:
        found = await parts.store.token(token_id)
    else:
        noted = record(parts, caller, Action.REVOKE_TOKEN, act, f"token/{token_id}")
        found = await parts.store.revoke_token(token_id, noted)
    if found is None:
        raise token_not_found(token_id)
    if not act.validate_only:
        parts.tokens_changed()
        tell(parts, caller, Action.REVOKE_TOKEN, act, f"token/{token_id}")
    return found


def make(wish: TokenWish, now: datetime, creator: str) -> MadeToken:
    """A fresh token of that kind; kept nowhere yet. Raises INVALID_REQUEST."""
    if wish.every_tenant == bool(wish.tenants):
        raise invalid("tenants", "give tenants, or every_tenant, and not both")
    if wish.ttl is not None and not MIN_TTL <= wish.ttl <= MAX_TTL:
        raise invalid("ttl", f"must be from 1 s to {MAX_TTL.days} days")
    name, roles, tenants = check_name(wish.name), check_roles(list(wish.roles)), check_tenants(list(wish.tenants))
    minted = mint()
    token = Token(
        token_id=minted.token_id,
        name=name,
        hash=minted.hash,
        roles=roles,
        tenants=None if wish.every_tenant else tenants,
        created_at=now,
        created_by=creator,
        expires_at=now + wish.ttl if wish.ttl is not None else None,
    )
    return MadeToken(token, Secret(minted.text))


def facts(token: Token) -> dict[str, Json]:
    """What an audit record says of a token."""
    return {
        "name": token.name,
        "roles": sorted(token.roles),
        "tenants": "*" if token.tenants is None else sorted(token.tenants),
        "expires": token.expires_at.isoformat() if token.expires_at is not None else "",
    }


def offline_record(token: Token, reason: str, by: str) -> AuditRecord:
    """The record of a token that was made while the broker did not run."""
    return AuditRecord(
        at=token.created_at,
        principal=by,
        action=str(Action.CREATE_TOKEN),
        resource=f"token/{token.token_id}",
        reason=reason,
        details=facts(token),
    )
