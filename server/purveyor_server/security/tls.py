"""What TLS is about, as values: files of a listener, what was read from them, a client's certificate, a refusal.

Guarantee: no part of a key is in any message or repr.
Limit: nothing is read here, so that a broker without TLS need not load what reads certificates: `certificates`, `peers`
and `trust` do that.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from purveyor_server.domain.errors import PurveyorError, Reason

if TYPE_CHECKING:
    from cryptography import x509

TIME = "%Y-%m-%d %H:%M:%SZ"


class TlsFiles(msgspec.Struct, frozen=True):
    """Where a listener's files are. With `client_ca` every client must show a certificate of one of its authorities."""

    certificate: Path
    key: Path
    client_ca: Path | None = None
    crl: Path | None = None


class TlsListen(msgspec.Struct, frozen=True):
    """An address with TLS. With `strict` an overdue revocation list refuses clients; without, it is only told."""

    address: str
    files: TlsFiles
    strict: bool = False


class TlsFileError(Exception):
    """A file of a listener cannot be used: `field` is its key in the settings, `why` says what is wrong with it."""

    def __init__(self, field: str, path: Path, why: str) -> None:
        super().__init__(f"{field}: {path}: {why}")
        self.field = field
        self.path = path
        self.why = why


class RevocationList(msgspec.Struct, frozen=True):
    """The serial numbers that an authority (its name in DER) takes back; `next_update` is when a newer list is due."""

    issuer: bytes
    serials: frozenset[int]
    next_update: datetime | None


class Material(msgspec.Struct, frozen=True):
    """What a listener works with, read as a whole. `not_after` is the end of its own certificate."""

    chain: bytes
    key: bytes
    client_ca: bytes | None
    authorities: tuple[x509.Certificate, ...]
    lists: tuple[RevocationList, ...]
    not_after: datetime

    def __repr__(self) -> str:
        return f"Material(not_after={self.not_after:{TIME}})"

    @property
    def next_update(self) -> datetime | None:
        """When the first of the revocation lists is due; None without one."""
        return min((found.next_update for found in self.lists if found.next_update is not None), default=None)


class Link(NamedTuple):
    """A certificate as a revocation list names it: its issuer's name in DER, its serial number."""

    issuer: bytes
    serial: int


class PeerCertificate(msgspec.Struct, frozen=True, kw_only=True):
    """A client's certificate. `spiffe_id` is empty unless its one URI is a SPIFFE ID; `fingerprint` is SHA-256 in hex;
    `links` are the certificate and the intermediate ones that came with it."""

    subject: str
    common_name: str
    uris: tuple[str, ...]
    dns_names: tuple[str, ...]
    spiffe_id: str
    issuer: str
    serial: int
    not_before: datetime
    not_after: datetime
    fingerprint: str
    links: tuple[Link, ...]
    pem: bytes
    chain: bytes

    def __repr__(self) -> str:
        return f"PeerCertificate({self.spiffe_id or self.subject!r}, fingerprint={self.fingerprint[:16]})"


def refusal(problem: str, message: str, reason: Reason = Reason.UNAUTHENTICATED, **metadata: str) -> PurveyorError:
    """The refusal of a client because of its certificate."""
    return PurveyorError(reason, message, metadata={"problem": problem, **metadata})
