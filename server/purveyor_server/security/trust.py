"""Whether a client's certificate is still to be believed: its dates, the revocation lists, the authorities of today.

Guarantee: a certificate that is expired, revoked, or of an authority that is no longer trusted is refused with
UNAUTHENTICATED or CREDENTIAL_REVOKED; the answer for one certificate costs two look-ups once its signature was checked.
Limit: the authorities and lists of all listeners of a server are one set: which of them a call came by is not known.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

from purveyor_server.domain.errors import PurveyorError, Reason
from purveyor_server.security.peers import MAX_CHAIN
from purveyor_server.security.tls import TIME, Material, PeerCertificate, refusal

KEPT_VERDICTS = 16_384


class Basis(NamedTuple):
    """What one listener contributes. With `strict` a revocation list that is overdue refuses the certificates it is for."""

    material: Material
    strict: bool = False


class ClientTrust:
    """The judge of client certificates; `replace` gives it the files of today."""

    def __init__(self, bases: Sequence[Basis] = ()) -> None:
        self._authorities: list[x509.Certificate] = []
        self._issued: dict[str, bool] = {}
        self.replace(bases)

    def weigh(self, bases: Sequence[Basis], peers: Iterable[PeerCertificate]) -> dict[str, bool]:
        """Which of `peers` these authorities stand for, for `replace`: half a millisecond each, so in a thread."""
        authorities = authorities_of(bases)
        if authorities == self._authorities:
            return dict(self._issued)
        return {peer.fingerprint: issued_by(peer, authorities) for peer in peers}

    def replace(self, bases: Sequence[Basis], issued: dict[str, bool] | None = None) -> None:
        """Judge by these from now on; `issued` is what `weigh` found for them."""
        self._authorities = authorities_of(bases)
        self._issued = dict(issued or {})
        self._revoked: dict[bytes, frozenset[int]] = {}
        self._due: dict[bytes, datetime] = {}
        for material, strict in bases:
            for found in material.lists:
                self._revoked[found.issuer] = self._revoked.get(found.issuer, frozenset()) | found.serials
                if strict and found.next_update is not None:
                    self._due[found.issuer] = min(found.next_update, self._due.get(found.issuer, found.next_update))

    def judge(self, peer: PeerCertificate, now: datetime) -> PurveyorError | None:
        """Why this certificate is refused at `now`; None when it is not."""
        if now >= peer.not_after:
            return refusal("expired", f"the client's certificate has expired at {peer.not_after:{TIME}}")
        for issuer, serial in peer.links:
            if serial in self._revoked.get(issuer, ()):
                text = "the client's certificate, or one above it, was revoked"
                return refusal("revoked", text, Reason.CREDENTIAL_REVOKED, serial=f"{serial:x}")
            if issuer in self._due and now >= self._due[issuer]:
                text = "whether the client's certificate was revoked is not known: the revocation list is out of date"
                return refusal("revocation_unknown", text)
        if not self._is_issued(peer):
            return refusal("untrusted", "the client's certificate is of an authority that is no longer trusted")
        return None

    def _is_issued(self, peer: PeerCertificate) -> bool:
        known = self._issued.get(peer.fingerprint)
        if known is None:
            if len(self._issued) >= KEPT_VERDICTS:
                self._issued.clear()
            known = self._issued[peer.fingerprint] = issued_by(peer, self._authorities)
        return known


def authorities_of(bases: Iterable[Basis]) -> list[x509.Certificate]:
    """All of them."""
    return [authority for basis in bases for authority in basis.material.authorities]


def issued_by(peer: PeerCertificate, authorities: list[x509.Certificate]) -> bool:
    """Whether a path of signatures leads from the certificate to one of `authorities`, by way of what came with it."""
    between = x509.load_pem_x509_certificates(peer.chain)[:MAX_CHAIN] if peer.chain.strip() else []
    here = x509.load_pem_x509_certificate(peer.pem)
    for _ in range(len(between) + 1):
        if here in authorities or any(_signs(authority, here) for authority in authorities):
            return True
        above = next((found for found in between if found != here and _signs(found, here)), None)
        if above is None:
            return False
        here = above
    return False


def _signs(authority: x509.Certificate, certificate: x509.Certificate) -> bool:
    if authority.subject != certificate.issuer:
        return False
    try:
        certificate.verify_directly_issued_by(authority)
    except (InvalidSignature, ValueError, TypeError, UnsupportedAlgorithm):
        return False
    return True
