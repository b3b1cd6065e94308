"""What callers show of themselves, as readers to be tried: an issuer's tokens, static tokens, keys, names in certificates."""

from __future__ import annotations

import json
from collections.abc import Coroutine
from datetime import UTC, datetime
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from purveyor_server.domain.errors import PurveyorError
from purveyor_server.domain.tokens import Token, Use
from purveyor_server.kit.clock import ManualClock
from purveyor_server.security.identity.authenticator import Authenticator
from purveyor_server.security.identity.certificates import CertificateRule, know
from purveyor_server.security.identity.fetching import FetchError, check_url
from purveyor_server.security.identity.keysets import KeySetError, VerifyingKey, parse_key_set
from purveyor_server.security.identity.static import StaticTokens
from purveyor_server.security.identity.tokentext import mint
from purveyor_server.security.identity.webtokens import Issuer, WebTokens, texts
from purveyor_server.security.tls import PeerCertificate

CLOCK = ManualClock()
NOW = int(CLOCK.now().timestamp())
_PRIVATE = ec.generate_private_key(ec.SECP256R1())
KEYS = json.dumps({"keys": [{**ECAlgorithm.to_jwk(_PRIVATE.public_key(), as_dict=True), "kid": "k1"}]}).encode()
_MINTED = mint()
CLAIMS = {"iss": "i", "aud": "purveyor", "exp": NOW + 300, "sub": "ann", "tenants": ["t"], "roles": ["VIEWER"]}
GENUINE = (jwt.encode(CLAIMS, _PRIVATE, algorithm="ES256", headers={"kid": "k1"}), _MINTED.text)
RULE = CertificateRule(kind="common_name", match="{t}", roles=frozenset({"VIEWER"}), tenants=("{t}",))


class _Keys:
    """The keys of the issuer, at hand."""

    def __init__(self) -> None:
        self._keys = parse_key_set(KEYS)

    async def find(self, key_id: str, algorithm: str) -> VerifyingKey | None:
        return self._keys.find(key_id, algorithm)


class _Tokens:
    """A store with one token."""

    async def token(self, token_id: str) -> Token | None:
        if token_id != _MINTED.token_id:
            return None
        at = datetime(2026, 1, 1, tzinfo=UTC)
        return Token(
            token_id=token_id,
            name="ci",
            hash=_MINTED.hash,
            roles=frozenset({"VIEWER"}),
            tenants=None,
            created_at=at,
            created_by="x",
        )

    async def note_uses(self, uses: Any) -> None:
        assert all(isinstance(use, Use) for use in uses)


def at_once(work: Coroutine[Any, Any, Any]) -> Any:
    """The result of a coroutine that waits for nothing."""
    try:
        work.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("it waits for something")


def bearer(text: str) -> object:
    """The principal behind a token."""
    issuer = Issuer(
        name="main",
        issuer="i",
        audiences=frozenset({"purveyor"}),
        algorithms=frozenset({"ES256", "RS256", "EdDSA"}),
        tenants_claim="tenants",
        roles_claim="roles",
    )
    judge = Authenticator(CLOCK, tokens=StaticTokens(_Tokens()), issuers=[WebTokens(issuer, _Keys())])
    return at_once(judge.bearer(f"Bearer {text}"))


def claim(text: str) -> object:
    """Texts in a claim, whatever an issuer puts there."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = text
    return texts({"a": value}, "a.b"), texts({"a": value}, "a")


def certificate(name: str) -> object:
    """The principal behind a certificate with a name."""
    at = datetime(2026, 1, 1, tzinfo=UTC)
    found = know(
        PeerCertificate(
            subject=name, common_name=name, uris=(), dns_names=(), spiffe_id="", issuer="", serial=1, not_before=at,
            not_after=at, fingerprint="f", links=(), pem=b"", chain=b"",
        ),
        [RULE],
    )  # fmt: skip
    subject = found.principal.subject
    assert subject.isprintable()
    assert len(subject.encode()) <= 255
    return found


def url(text: str) -> object:
    """Who is asked for a document."""
    found = check_url(text, frozenset({"id.example.org", "127.0.0.1"}))
    assert found.host in {"id.example.org", "127.0.0.1"}
    return found


REFUSED = (PurveyorError,)
KEY_ERRORS, URL_ERRORS = (KeySetError,), (FetchError,)
GENUINE_URLS = ("https://id.example.org/jwks.json", "http://127.0.0.1:80/x")
