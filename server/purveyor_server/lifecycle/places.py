"""Places in a stream of events, and their tokens.

Guarantee: a token is authenticated, and works only for the question it was given to: one of another store or a damaged one is
INVALID_RESUME_TOKEN, one of another tenant, other kinds or another instance SCOPE_CHANGED. It gives no rights.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac

import msgspec

from purveyor_server.domain.errors import PurveyorError, Reason, Violation, invalid
from purveyor_server.watch.events import Wanted

FIELD = "resume_token"
MAX_TOKEN = 1024  # characters
_MAC_BYTES = 16
_PURPOSE = b"purveyor resume token 1\0"  # the key makes page tokens too


class Place(msgspec.Struct, frozen=True):
    """Behind the revision `position`; in a snapshot that began there, behind the record `key` of `kind`."""

    position: int
    kind: str = ""
    key: str = ""


class _Token(msgspec.Struct, frozen=True, array_like=True):
    store: str
    scope: bytes
    position: int
    kind: str = ""
    key: str = ""


class Places:
    """The tokens of one question to one store."""

    def __init__(self, key: bytes, store_id: str, wanted: Wanted) -> None:
        self._mac = hmac.new(key, _PURPOSE, hashlib.sha256)
        self._store = store_id
        question = [wanted.tenant, sorted(wanted.kinds), wanted.instance_id]
        self._scope = hashlib.sha256(msgspec.json.encode(question)).digest()[:8]
        self._encoder = msgspec.msgpack.Encoder()

    def write(self, place: Place) -> str:
        """The token of a place."""
        token = _Token(self._store, self._scope, place.position, place.kind, place.key)
        payload = self._encoder.encode(token)
        return _encoded(self._sign(payload) + payload)

    def read(self, token: str) -> Place:
        """The place of a token. Raises INVALID_RESUME_TOKEN, SCOPE_CHANGED."""
        found = self._open(token)
        if found.store != self._store:
            raise refused("belongs to another store")
        if found.scope != self._scope:
            raise _scope_changed()
        return Place(found.position, found.kind, found.key)

    def _open(self, token: str) -> _Token:
        try:
            if len(token) > MAX_TOKEN or not token.isascii():
                raise refused()
            raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
            mac, payload = raw[:_MAC_BYTES], raw[_MAC_BYTES:]
            # The last character has bits that decode to nothing: another spelling is damage.
            if _encoded(raw) != token or not hmac.compare_digest(mac, self._sign(payload)):
                raise refused()
            return msgspec.msgpack.decode(payload, type=_Token)
        except (binascii.Error, ValueError):  # msgspec's errors are ValueErrors
            raise refused() from None

    def _sign(self, payload: bytes) -> bytes:
        mac = self._mac.copy()
        mac.update(payload)
        return mac.digest()[:_MAC_BYTES]


def _encoded(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def refused(why: str = "is damaged, or belongs to another store") -> PurveyorError:
    """INVALID_RESUME_TOKEN."""
    return invalid(FIELD, why, Reason.INVALID_RESUME_TOKEN)


def _scope_changed() -> PurveyorError:
    text = "was given for another tenant, other kinds or another instance: begin with a snapshot"
    return PurveyorError(
        Reason.SCOPE_CHANGED, f"{FIELD}: {text}", metadata={"field": FIELD}, violations=(Violation(FIELD, text),)
    )
