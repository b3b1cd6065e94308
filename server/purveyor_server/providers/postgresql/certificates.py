"""Client certificates of bindings, signed by the CA that the dedicated servers trust.

Guarantee: the common name is the login role and nothing else is certified; the private key is made here, leaves only as a
sealed secret, and is made anew when the step runs again.
Limit: a certificate is not revoked, its role is removed: without the role it opens nothing. An open session lasts until then.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from purveyor_server.domain.errors import invalid
from purveyor_server.providers.postgresql.config import TlsConfig

SKEW = timedelta(minutes=5)  # clocks of clients may be behind


class ClientCertificate(NamedTuple):
    """PEM."""

    certificate: str
    private_key: str


def mint(tls: TlsConfig, role: str, expires: datetime | None) -> ClientCertificate:
    """A key and a certificate for `role`, until `expires` or the configured days. Raises INVALID_REQUEST for a bad CA."""
    issuer, signer = load_ca(tls)
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC)
    until = min(expires or now + timedelta(days=tls.client_days), issuer.not_valid_after_utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, role)]))
        .issuer_name(issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SKEW)
        .not_valid_after(max(until, now))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .sign(
            signer, None if isinstance(signer, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey) else hashes.SHA256()
        )
    )
    return ClientCertificate(
        certificate.public_bytes(serialization.Encoding.PEM).decode("ascii"),
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ).decode("ascii"),
    )


Signer = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey


def load_ca(tls: TlsConfig) -> tuple[x509.Certificate, Signer]:
    """The client CA. Raises INVALID_REQUEST that names the key."""
    try:
        certificate = x509.load_pem_x509_certificate(Path(tls.client_ca_certificate).read_bytes())
    except (OSError, ValueError) as error:
        raise invalid("dedicated.tls.client_ca_certificate", "is no certificate that can be read") from error
    try:
        key = serialization.load_pem_private_key(Path(tls.client_ca_key).read_bytes(), None)
    except (OSError, ValueError, TypeError) as error:
        raise invalid("dedicated.tls.client_ca_key", "is no private key that can be read") from error
    if not isinstance(key, Signer) or key.public_key() != certificate.public_key():
        raise invalid("dedicated.tls.client_ca_key", "does not belong to the certificate")
    return certificate, key


def check_server(tls: TlsConfig) -> None:
    """Raise INVALID_REQUEST unless the servers' certificate and key can be read and belong together."""
    try:
        certificate = x509.load_pem_x509_certificate(Path(tls.certificate).read_bytes())
    except (OSError, ValueError) as error:
        raise invalid("dedicated.tls.certificate", "is no certificate that can be read") from error
    try:
        key = serialization.load_pem_private_key(Path(tls.key).read_bytes(), None)
    except (OSError, ValueError, TypeError) as error:
        raise invalid("dedicated.tls.key", "is no private key that can be read") from error
    if key.public_key() != certificate.public_key():
        raise invalid("dedicated.tls.key", "does not belong to the certificate")
    if tls.client_ca_key:
        load_ca(tls)
