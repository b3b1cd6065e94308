"""The PEM files of a TLS listener: read, judged, and given on as bytes that a server can use.

Guarantee: a certificate and a key that do not fit together, are out of date, cannot be read, or are open to others are
refused with a `TlsFileError` that names the field and the file; no part of a key is in any message or repr.
Limit: whether clients know the certificate's names and its authority shows only when they connect.
"""

from __future__ import annotations

import os
import re
import stat
from datetime import datetime
from itertools import pairwise
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

from purveyor_server.security.tls import TIME, Material, RevocationList, TlsFileError, TlsFiles

MAX_PEM_BYTES = 1024 * 1024
MAX_LIST_BYTES = 64 * 1024 * 1024
MIN_RSA_BITS = 2048
_BLOCK = re.compile(rb"-----BEGIN X509 CRL-----.+?-----END X509 CRL-----", re.DOTALL)


def read_material(files: TlsFiles, now: datetime) -> Material:
    """Read and judge every file of a listener. Raises TlsFileError. Blocks: call it in a thread once the server runs."""
    chain = _read("certificate", files.certificate, MAX_PEM_BYTES)
    key = _read("key", files.key, MAX_PEM_BYTES, private=True)
    not_after = _judge_pair(files, _certificates("certificate", files.certificate, chain), key, now)
    bundle: bytes | None = None
    authorities: tuple[x509.Certificate, ...] = ()
    lists: tuple[RevocationList, ...] = ()
    if files.client_ca is not None:
        bundle = _read("client_ca", files.client_ca, MAX_PEM_BYTES)
        authorities = _judge_authorities(files.client_ca, _certificates("client_ca", files.client_ca, bundle), now)
    if files.crl is not None:
        lists = _lists(files.crl, _read("crl", files.crl, MAX_LIST_BYTES), authorities)
    return Material(chain, key, bundle, authorities, lists, not_after)


def _read(field: str, path: Path, limit: int, *, private: bool = False) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as failure:
        raise TlsFileError(field, path, (failure.strerror or "cannot be read").lower()) from None
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise TlsFileError(field, path, "is not a regular file")
    with os.fdopen(descriptor, "rb") as file:
        if private:
            _refuse_open_to_others(field, path, status)
        content = file.read(limit + 1)
    if len(content) > limit:
        raise TlsFileError(field, path, f"is larger than {limit} bytes")
    return content


def _refuse_open_to_others(field: str, path: Path, status: os.stat_result) -> None:
    """A key is ours alone, or root's, who may let our group read it (the rule that PostgreSQL has too)."""
    if status.st_uid not in {0, os.geteuid()}:
        raise TlsFileError(field, path, f"belongs to uid {status.st_uid}; it must belong to uid {os.geteuid()} or root")
    forbidden = 0o037 if status.st_uid == 0 and os.geteuid() != 0 else 0o077
    if bits := stat.S_IMODE(status.st_mode) & forbidden:
        raise TlsFileError(field, path, f"is open to others (mode bits {bits:03o}); take them away: chmod 600 {path}")


def _certificates(field: str, path: Path, content: bytes) -> list[x509.Certificate]:
    try:
        found = x509.load_pem_x509_certificates(content)
        for certificate in found:
            _ = certificate.extensions, certificate.subject, certificate.issuer
    except ValueError:
        raise TlsFileError(field, path, "holds no certificate in PEM, or a damaged one") from None
    return found


def _judge_pair(files: TlsFiles, chain: list[x509.Certificate], key: bytes, now: datetime) -> datetime:
    leaf = chain[0]
    for mine, above in pairwise(chain):
        if mine.issuer != above.subject:
            why = "its certificates are not in order: the server's own comes first, each next one signs the one before"
            raise TlsFileError("certificate", files.certificate, why)
    _refuse_dates("certificate", files.certificate, leaf, now)
    private = _private_key(files.key, key)
    if private.public_key() != leaf.public_key():
        raise TlsFileError("key", files.key, f"does not belong to the certificate {files.certificate}")
    return leaf.not_valid_after_utc


def _private_key(path: Path, content: bytes) -> rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey:
    try:
        key: PrivateKeyTypes = serialization.load_pem_private_key(content, None)
    except TypeError:
        raise TlsFileError("key", path, "is encrypted; a key without a passphrase is needed") from None
    except (ValueError, UnsupportedAlgorithm):
        raise TlsFileError("key", path, "holds no private key in PEM, or a damaged one") from None
    if isinstance(key, rsa.RSAPrivateKey) and key.key_size >= MIN_RSA_BITS:
        return key
    if isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP256R1 | ec.SECP384R1):
        return key
    why = f"must be an RSA key of {MIN_RSA_BITS} bits or more, or an EC key on P-256 or P-384: gRPC takes no other"
    raise TlsFileError("key", path, why)


def _refuse_dates(field: str, path: Path, certificate: x509.Certificate, now: datetime) -> None:
    if now >= certificate.not_valid_after_utc:
        raise TlsFileError(field, path, f"has expired at {certificate.not_valid_after_utc:{TIME}}")
    if now < certificate.not_valid_before_utc:
        raise TlsFileError(field, path, f"is not valid before {certificate.not_valid_before_utc:{TIME}}")


def _judge_authorities(path: Path, authorities: list[x509.Certificate], now: datetime) -> tuple[x509.Certificate, ...]:
    for authority in authorities:
        if not _is_authority(authority):
            raise TlsFileError("client_ca", path, f"{name_of(authority.subject)} is no certificate authority")
    living = [authority for authority in authorities if now < authority.not_valid_after_utc]
    if not living:
        _refuse_dates("client_ca", path, authorities[0], now)
    return tuple(authorities)


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def name_of(name: x509.Name) -> str:
    """A name as RFC 4514 writes it, cut to what a message holds."""
    return name.rfc4514_string()[:200]


def _lists(path: Path, content: bytes, authorities: tuple[x509.Certificate, ...]) -> tuple[RevocationList, ...]:
    blocks = _BLOCK.findall(content)
    try:
        found = [x509.load_pem_x509_crl(block) for block in blocks] or [x509.load_der_x509_crl(content)]
        return tuple(_list(path, revoked, authorities) for revoked in found)
    except ValueError:
        raise TlsFileError("crl", path, "holds no revocation list in PEM or DER, or a damaged one") from None


def _list(
    path: Path, revoked: x509.CertificateRevocationList, authorities: tuple[x509.Certificate, ...]
) -> RevocationList:
    issuers = [authority for authority in authorities if authority.subject == revoked.issuer]
    if not any(_signed_by(revoked, authority) for authority in issuers):
        raise TlsFileError(
            "crl", path, f"the list of {name_of(revoked.issuer)} is not signed by an authority of client_ca"
        )
    if any(extension.oid == x509.DeltaCRLIndicator.oid for extension in revoked.extensions):
        raise TlsFileError("crl", path, "holds a delta list; a complete one is needed")
    serials = frozenset(entry.serial_number for entry in revoked)
    return RevocationList(revoked.issuer.public_bytes(), serials, revoked.next_update_utc)


def _signed_by(revoked: x509.CertificateRevocationList, authority: x509.Certificate) -> bool:
    try:
        return revoked.is_signature_valid(authority.public_key())  # type: ignore[arg-type] # TypeError for the others
    except (TypeError, UnsupportedAlgorithm):
        return False
