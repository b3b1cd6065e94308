"""Static tokens: looked up in the store, compared in constant time.

Guarantee: an unknown id and a wrong secret are the same refusal and take the same way; a token that was revoked or has
expired is refused by name of that, to its holder alone.
Limit: a token is read again at most `cache` seconds after it was revoked elsewhere; this process forgets it at once.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Protocol

import structlog

from purveyor_server.domain.errors import PurveyorError, Reason
from purveyor_server.domain.principal import Means, Principal
from purveyor_server.domain.tokens import Token, Use
from purveyor_server.security.identity.grants import Grant, Known
from purveyor_server.security.identity.text import refused
from purveyor_server.security.identity.tokentext import parse

COARSE = timedelta(minutes=10)
MAX_NOTED = 10_000
_NOBODY = bytes(32)
_log = structlog.get_logger(__name__)


class TokenStore(Protocol):
    """What is needed of the store."""

    async def token(self, token_id: str) -> Token | None:
        """One token."""
        ...

    async def note_uses(self, uses: Sequence[Use]) -> None:
        """Keep when tokens were last used."""
        ...


class StaticTokens:
    """The judge of static tokens."""

    def __init__(self, store: TokenStore) -> None:
        self._store = store
        self._used: dict[str, datetime] = {}

    async def know(self, text: str, now: datetime) -> Known:
        """Whose token this is. Raises UNAUTHENTICATED, CREDENTIAL_EXPIRED, CREDENTIAL_REVOKED, STORE_UNAVAILABLE."""
        shown = parse(text)
        if shown is None:
            raise refused("malformed", "the token is damaged")
        token = await self._store.token(shown.token_id)
        right = hmac.compare_digest(shown.hash, token.hash if token is not None else _NOBODY)
        if token is None or not right:
            raise refused("unknown", "the token is not known")
        if token.revoked_at is not None and token.revoked_at <= now:
            raise refused("revoked", "the token was revoked", Reason.CREDENTIAL_REVOKED)
        if token.expires_at is not None and token.expires_at <= now:
            raise refused("expired", "the token has expired", Reason.CREDENTIAL_EXPIRED)
        if (token.used_at is None or now - token.used_at >= COARSE) and len(self._used) < MAX_NOTED:
            self._used[token.token_id] = now
        return known(token)

    async def note(self) -> None:
        """Write down which tokens were used, if any."""
        used, self._used = self._used, {}
        if not used:
            return
        try:
            await self._store.note_uses([Use(token_id, at) for token_id, at in used.items()])
        except PurveyorError as error:
            _log.warning("uses of tokens were not noted", tokens=len(used), reason=str(error.reason))


def known(token: Token) -> Known:
    """Its holder."""
    principal = Principal(
        subject=token.subject, means=Means.TOKEN, credential=token.token_id, expires_at=token.expires_at
    )
    return Known(principal=principal, grants=(Grant(token.roles, token.tenants),))
