"""Who shows what: one judge over certificates, issuers' tokens and static tokens.

Guarantee: what is shown and wrong is refused, whoever else the caller may be; a verified token is remembered by its SHA-256
for CACHE_SECONDS at most, never past its end, and forgotten at once when keys, bindings or tokens change here. A proof can
be asked again, for calls that last.
Limit: bounded memory: the tokens used least are verified again.
"""

from __future__ import annotations

import hashlib
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple

from purveyor_server.domain.errors import PurveyorError
from purveyor_server.domain.principal import LOCAL, Principal
from purveyor_server.kit.clock import Clock
from purveyor_server.security.identity.certificates import CertificateRule
from purveyor_server.security.identity.certificates import know as know_certificate
from purveyor_server.security.identity.grants import Binding, Known, bound
from purveyor_server.security.identity.static import StaticTokens
from purveyor_server.security.identity.text import refused
from purveyor_server.security.identity.tokentext import PREFIX
from purveyor_server.security.identity.webtokens import WebTokens, parse_web_token
from purveyor_server.security.tls import PeerCertificate

CACHE_SECONDS = 30.0
CACHED = 10_000
MAX_HEADER = 6 * 1024  # a client's headers in all have 8 KiB until the core itself refuses them
CHALLENGE = 'Bearer realm="purveyor"'
Again = Callable[[], Awaitable[Known]]


class Proof(NamedTuple):
    """A principal, and how to ask again whether it still is one. `again` is None for who showed nothing."""

    principal: Principal
    again: Again | None = None


class _Cached(NamedTuple):
    proof: Proof
    until: float  # monotonic


class Authenticator:
    """The judge. `rules` and `bindings` are those of the configuration; `local`: whether plain local callers are LOCAL."""

    def __init__(
        self,
        clock: Clock,
        *,
        tokens: StaticTokens | None = None,
        issuers: Sequence[WebTokens] = (),
        rules: Sequence[CertificateRule] = (),
        bindings: Sequence[Binding] = (),
        local: bool = False,
    ) -> None:
        self._clock = clock
        self._tokens = tokens
        self._issuers: Mapping[str, WebTokens] = {judge.issuer.issuer: judge for judge in issuers}
        self._rules = tuple(rules)
        self._bindings = tuple(bindings)
        self._local = Proof(LOCAL) if local else None
        self._cache: OrderedDict[bytes, _Cached] = OrderedDict()
        self._certified: OrderedDict[str, Proof] = OrderedDict()
        self._listeners: list[Callable[[], None]] = []
        self.refused: Counter[str] = Counter()

    def bind(self, bindings: Sequence[Binding]) -> None:
        """Go by these bindings from now on."""
        self._bindings = tuple(bindings)
        self.forget()

    def forget(self) -> None:
        """Judge everybody anew: keys, bindings or tokens are others now."""
        self._cache.clear()
        self._certified.clear()
        for listener in self._listeners:
            listener()

    def subscribe(self, listener: Callable[[], None]) -> None:
        """Call `listener` at each `forget`."""
        self._listeners.append(listener)

    def local(self) -> Proof:
        """A caller of this machine that shows nothing. Raises UNAUTHENTICATED unless that is enough."""
        if self._local is None:
            raise self.missing()
        return self._local

    def missing(self) -> PurveyorError:
        """The refusal of who shows nothing."""
        text = "who calls is not known: a bearer token (authorization: Bearer ...) or a client certificate is needed"
        refusal = refused("missing", text)
        refusal.metadata["challenge"] = CHALLENGE
        return self.counted(refusal)

    def certificate(self, peer: PeerCertificate) -> Proof:
        """Whose certificate this is. Raises UNAUTHENTICATED."""
        proof = self._certified.get(peer.fingerprint)
        if proof is None:

            async def again() -> Known:
                return know_certificate(peer, self._rules)

            try:
                known = know_certificate(peer, self._rules)
            except PurveyorError as refusal:
                raise self.counted(refusal) from None
            proof = self._certified[peer.fingerprint] = Proof(bound(known, self._bindings), again)
            if len(self._certified) > CACHED:
                self._certified.popitem(last=False)
        return proof

    async def bearer(self, header: str) -> Proof:
        """Whose token is in an `authorization` header. Raises UNAUTHENTICATED and its kin, STORE_UNAVAILABLE."""
        digest = hashlib.sha256(header.encode("utf-8", "replace")).digest()
        cached = self._cache.get(digest)
        if cached is not None and self._holds(cached):
            self._cache.move_to_end(digest)
            return cached.proof
        try:
            proof, repeatable = await self._judge(_token_in(header))
        except PurveyorError as refusal:
            raise self.counted(refusal) from None
        if repeatable:
            self._cache[digest] = _Cached(proof, self._clock.monotonic() + CACHE_SECONDS)
            if len(self._cache) > CACHED:
                self._cache.popitem(last=False)
        return proof

    async def again(self, proof: Proof) -> Principal:
        """The principal of an earlier proof as of now. Raises as `bearer`."""
        if proof.again is None:
            return proof.principal
        return bound(await proof.again(), self._bindings)

    def counted(self, refusal: PurveyorError) -> PurveyorError:
        """The refusal, counted by its problem."""
        self.refused[refusal.metadata.get("problem", str(refusal.reason).lower())] += 1
        return refusal

    def _holds(self, cached: _Cached) -> bool:
        end = cached.proof.principal.expires_at
        return self._clock.monotonic() < cached.until and (end is None or self._clock.now() < end)

    async def _judge(self, text: str) -> tuple[Proof, bool]:
        """The proof of a token, and whether it may be shown again."""
        if text.startswith(PREFIX):
            tokens = self._tokens
            if tokens is None:
                raise refused("unknown", "the token is not known")

            async def static() -> Known:
                return await tokens.know(text, self._clock.now())

            return Proof(bound(await static(), self._bindings), static), True
        issuer, parts = parse_web_token(text)
        judge = self._issuers.get(issuer)
        if judge is None:
            raise refused("issuer", "the token is of an issuer that is not believed here")

        async def web() -> Known:
            return await judge.know(parts, self._clock.now(), again=True)

        known = await judge.know(parts, self._clock.now())
        return Proof(bound(known, self._bindings), web), not judge.issuer.once


def _token_in(header: str) -> str:
    """The token in an `authorization` header. Raises UNAUTHENTICATED."""
    if len(header) > MAX_HEADER:
        raise refused("oversized", f"the authorization header has more than {MAX_HEADER} bytes")
    scheme, _, text = header.partition(" ")
    if scheme.lower() != "bearer":
        raise refused("scheme", "the authorization header is not of the form: Bearer TOKEN")
    if not text or not text.isascii() or not text.isprintable() or " " in text:
        raise refused("malformed", "the token is damaged")
    return text
