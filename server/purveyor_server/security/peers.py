"""A client's certificate as a small value.

Guarantee: each certificate is taken apart once, however many calls show it; the memory for that is bounded.
Limit: nothing is judged here: the handshake of the connection did that once, and `trust` does it again for every call.
"""

from __future__ import annotations

import re
from functools import lru_cache

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256

from purveyor_server.security.tls import Link, PeerCertificate, refusal

KEPT_CERTIFICATES = 4096
MAX_CHAIN = 8
MAX_BYTES = 16 * 1024
# https://github.com/spiffe/spiffe/blob/main/standards/SPIFFE-ID.md
_SPIFFE = re.compile(r"spiffe://[a-z0-9._-]{1,255}(?:/(?!\.{1,2}(?:/|$))[A-Za-z0-9._-]+)+")
_SPIFFE_BYTES = 2048


@lru_cache(maxsize=KEPT_CERTIFICATES)
def parse_peer(pem: bytes, chain: bytes = b"") -> PeerCertificate:
    """A certificate and its intermediate ones (both PEM) taken apart. Raises UNAUTHENTICATED."""
    if len(pem) + len(chain) > MAX_BYTES:  # not kept either: what is refused is not cached
        raise refusal("unreadable", f"the client's certificate and its chain are larger than {MAX_BYTES} bytes")
    try:
        return _parsed(pem, chain)
    except ValueError:  # what BoringSSL takes is not always what RFC 5280 allows
        raise refusal("unreadable", "the client's certificate cannot be read") from None


def _parsed(pem: bytes, chain: bytes) -> PeerCertificate:
    leaf = x509.load_pem_x509_certificate(pem)
    above = x509.load_pem_x509_certificates(chain)[:MAX_CHAIN] if chain.strip() else []
    names = leaf.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    uris, dns_names = _alternatives(leaf)
    return PeerCertificate(
        subject=leaf.subject.rfc4514_string(),
        common_name=str(names[0].value) if names else "",
        uris=uris,
        dns_names=dns_names,
        spiffe_id=_spiffe_id(uris),
        issuer=leaf.issuer.rfc4514_string(),
        serial=leaf.serial_number,
        not_before=leaf.not_valid_before_utc,
        not_after=min(found.not_valid_after_utc for found in (leaf, *above)),
        fingerprint=leaf.fingerprint(SHA256()).hex(),
        links=tuple(Link(found.issuer.public_bytes(), found.serial_number) for found in (leaf, *above)),
        pem=pem,
        chain=chain,
    )


def _alternatives(leaf: x509.Certificate) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The URIs and DNS names that the certificate is for."""
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return (), ()
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    return tuple(uris), tuple(names.get_values_for_type(x509.DNSName))


def _spiffe_id(uris: tuple[str, ...]) -> str:
    """The SPIFFE ID; "" when there is none, or a second URI beside it, which the standard forbids."""
    if len(uris) != 1 or len(uris[0]) > _SPIFFE_BYTES:
        return ""
    return uris[0] if _SPIFFE.fullmatch(uris[0]) else ""
