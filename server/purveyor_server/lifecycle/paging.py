"""Keyset pages and their tokens.

Guarantee: a token works only for the question it was given to (store, tenant, kind, filter, what is included) and is
authenticated; anything else is INVALID_PAGE_TOKEN. It gives no rights: the scope of the call is checked on every page.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import msgspec

from purveyor_server.domain.errors import PurveyorError, Reason, invalid
from purveyor_server.lifecycle.contract import Listing, PageOf
from purveyor_server.lifecycle.running import Parts
from purveyor_server.store.contract import Page

MAC_BYTES = 16
MAX_TOKEN = 1024  # characters
Item = TypeVar("Item")


class Question(msgspec.Struct, frozen=True, array_like=True):
    """What a token belongs to."""

    kind: str
    tenant: str
    instance_id: str
    filter: str
    show_deleted: bool
    store: str = ""

    @classmethod
    def of(cls, kind: str, listing: Listing) -> Question:
        """The question of a list call; `page_size` and the view may change between pages."""
        return cls(kind, listing.tenant, listing.instance_id, listing.filter, listing.show_deleted)


def open_page(parts: Parts, question: Question, listing: Listing) -> tuple[Question, Page]:
    """The page to read: one row more than asked, so that the end is known. Raises INVALID_REQUEST, INVALID_PAGE_TOKEN."""
    question = msgspec.structs.replace(question, store=parts.store.store_id)
    if listing.page_size < 0:
        raise invalid("page_size", "must not be negative")
    size = min(listing.page_size or parts.settings.default_page, parts.settings.max_page)
    after = read_token(parts.token_key, question, listing.page_token) if listing.page_token else ""
    return question, Page(limit=size + 1, after=after)


def page_of(parts: Parts, question: Question, found: Sequence[Item], limit: int, key: Callable[[Item], str]) -> PageOf:
    """The answer from at most `limit` rows, the last of which only tells that there is more."""
    if len(found) < limit:
        return PageOf(tuple(found))
    items = tuple(found[: limit - 1])
    return PageOf(items, write_token(parts.token_key, question, key(items[-1])))


def write_token(key: bytes, question: Question, last: str) -> str:
    """The token that goes on after the row with the key `last`."""
    payload = last.encode()
    return _encoded(_mac(key, question, payload) + payload)


def read_token(key: bytes, question: Question, token: str) -> str:
    """The key to go on after; raises INVALID_PAGE_TOKEN."""
    try:
        if len(token) > MAX_TOKEN or not token.isascii():
            raise _refused()
        raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        mac, payload = raw[:MAC_BYTES], raw[MAC_BYTES:]
        if _encoded(raw) != token:  # the last character has bits that decode to nothing
            raise _refused()
        if not hmac.compare_digest(mac, _mac(key, question, payload)):
            raise _refused()
        return payload.decode()
    except (binascii.Error, ValueError):
        raise _refused() from None


def _encoded(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _mac(key: bytes, question: Question, payload: bytes) -> bytes:
    content: Any = [question, payload]
    return hmac.new(key, msgspec.json.encode(content), hashlib.sha256).digest()[:MAC_BYTES]


def _refused() -> PurveyorError:
    return invalid("page_token", "is damaged, or belongs to another store, tenant or filter", Reason.INVALID_PAGE_TOKEN)
