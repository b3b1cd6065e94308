"""Client certificates: which names in them are whose.

Guarantee: a rule fits by whole names, piece by piece: `{tenant}` in a pattern stands for one path segment or one label,
never for a slash (in DNS names never for a dot); a certificate that fits several rules gets what all of them grant; one that fits none has a name
and no role.
Limit: the handshake, and `trust` for every call, have judged the certificate itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cached_property

import msgspec

from purveyor_server.domain.principal import Means, Principal
from purveyor_server.security.identity.grants import Grant, Known
from purveyor_server.security.identity.text import is_name, is_tenant, refused
from purveyor_server.security.tls import PeerCertificate

_FIELD = re.compile(r"\{([a-z_]+)\}|(\*)")
_SUBSTITUTE = re.compile(r"\{([a-z_]+)\}")
_LABEL, _SEGMENT, _VALUE = r"[A-Za-z0-9_-]+", r"[A-Za-z0-9._-]+", r"[^,+=\x00-\x1f]+"
_PIECES = {"spiffe": _SEGMENT, "uri": _SEGMENT, "dns": _LABEL, "common_name": _VALUE, "subject": _VALUE}


class CertificateRule(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """Roles for certificates. `kind`: which name is compared: `spiffe`, `uri`, `dns`, `common_name` or `subject` (the whole
    distinguished name as RFC 4514 writes it). `match`: the name, with `{field}` and `*` for one piece. `tenants`: names or
    `{field}`; None: every one."""

    kind: str
    match: str
    roles: frozenset[str]
    tenants: tuple[str, ...] | None = ()
    subject: str = ""

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        return compiled(self.match, self.kind)

    def fields(self, peer: PeerCertificate) -> Mapping[str, str] | None:
        """What the fields of the pattern stand for; None when no name fits."""
        for name in names_of(peer, self.kind):
            fit = self._pattern.fullmatch(name)
            if fit is not None:
                return fit.groupdict()
        return None


def compiled(match: str, kind: str) -> re.Pattern[str]:
    """A pattern as a regular expression. Raises ValueError when a field is there twice."""
    piece, out, at = _PIECES[kind], [], 0
    for field in _FIELD.finditer(match):
        out.append(re.escape(match[at : field.start()]))
        out.append(f"(?P<{field[1]}>{piece})" if field[1] else piece)
        at = field.end()
    out.append(re.escape(match[at:]))
    try:
        return re.compile("".join(out))
    except re.error:
        raise ValueError("names a field twice") from None


def fields_in(text: str) -> frozenset[str]:
    """The fields that a text names."""
    return frozenset(field[1] for field in _FIELD.finditer(text) if field[1])


def names_of(peer: PeerCertificate, kind: str) -> Iterable[str]:
    """The names of one kind."""
    if kind == "spiffe":
        return (peer.spiffe_id,) if peer.spiffe_id else ()
    if kind == "uri":
        return peer.uris
    if kind == "dns":
        return peer.dns_names
    if kind == "common_name":
        return (peer.common_name,) if peer.common_name else ()
    return (peer.subject,) if kind == "subject" else ()


def filled(text: str, fields: Mapping[str, str]) -> str:
    """`text` with what its fields stand for."""
    return _SUBSTITUTE.sub(lambda field: fields[field[1]], text)


def know(peer: PeerCertificate, rules: Iterable[CertificateRule]) -> Known:
    """Whose certificate this is. Raises UNAUTHENTICATED when its names cannot be used."""
    subject, grants = "", []
    for rule in rules:
        fields = rule.fields(peer)
        if fields is None:
            continue
        subject = subject or filled(rule.subject, fields)
        tenants = None if rule.tenants is None else frozenset(filled(tenant, fields) for tenant in rule.tenants)
        if tenants is not None and not all(is_tenant(tenant) for tenant in tenants):
            raise refused("names", "a tenant in the client's certificate cannot be used")
        grants.append(Grant(rule.roles, tenants))
    name = f"certificate:{subject}" if subject else peer.spiffe_id or f"certificate:{peer.common_name or peer.subject}"
    if not is_name(name):
        raise refused("names", "the names in the client's certificate cannot be used")
    principal = Principal(subject=name, means=Means.CERTIFICATE, credential=peer.fingerprint, expires_at=peer.not_after)
    return Known(principal=principal, grants=tuple(grants), claim=lambda kind: tuple(names_of(peer, kind)))
