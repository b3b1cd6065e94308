"""A certificate authority for trying TLS: makes certificates for servers and clients, and takes them back.

Guarantee: everything that is made passes the checks of `certificates` and of gRPC on both sides.
Limit: for trials and tests: the authority's key is a file beside the others, and nothing renews what it made.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

SKEW = timedelta(minutes=5)  # clocks of others may be behind
_PEM = serialization.Encoding.PEM
_USES = (
    "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
    "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
)  # fmt: skip


class Issued(msgspec.Struct, frozen=True):
    """A certificate and its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    def __repr__(self) -> str:
        return f"Issued({self.certificate.subject.rfc4514_string()!r})"

    @property
    def pem(self) -> bytes:
        """The certificate."""
        return self.certificate.public_bytes(_PEM)

    @property
    def key_pem(self) -> bytes:
        """The key, without a passphrase."""
        return self.key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


class Authority(Issued, frozen=True):
    """What signs. `make` makes one from nothing, `load` takes one from its files."""

    @classmethod
    def make(cls, name: str, since: datetime, until: datetime, above: Authority | None = None) -> Authority:
        """An authority of its own, or one below `above`."""
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _begun(name, key, since, until)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        builder = builder.add_extension(_usage("key_cert_sign", "crl_sign"), critical=True)
        signer, issuer = (above.key, above.certificate.subject) if above else (key, _name(name))
        return cls(_signed(builder, signer, issuer), key)

    @classmethod
    def load(cls, certificate: bytes, key: bytes) -> Authority:
        """From PEM. Raises ValueError."""
        found = x509.load_pem_x509_certificate(certificate)
        private = serialization.load_pem_private_key(key, None)
        if not isinstance(private, ec.EllipticCurvePrivateKey) or private.public_key() != found.public_key():
            raise ValueError("the key of the authority does not belong to its certificate")
        return cls(found, private)

    def server(self, name: str, hosts: Iterable[str], since: datetime, until: datetime) -> Issued:
        """For a server that is reached by `hosts`: DNS names and IP addresses."""
        return self._issue(name, [_host(host) for host in hosts], ExtendedKeyUsageOID.SERVER_AUTH, since, until)

    def client(self, name: str, uris: Iterable[str], since: datetime, until: datetime) -> Issued:
        """For a client that is known by `uris`."""
        names = [x509.UniformResourceIdentifier(uri) for uri in uris]
        return self._issue(name, names, ExtendedKeyUsageOID.CLIENT_AUTH, since, until)

    def _issue(
        self, name: str, names: Sequence[x509.GeneralName], use: x509.ObjectIdentifier, since: datetime, until: datetime
    ) -> Issued:
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _begun(name, key, since, until)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(_usage("digital_signature"), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage([use]), critical=False)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return Issued(_signed(builder, self.key, self.certificate.subject), key)

    def revoke(self, serials: Iterable[int], since: datetime, until: datetime) -> bytes:
        """A revocation list in PEM, complete, the next one due at `until`."""
        builder = x509.CertificateRevocationListBuilder().issuer_name(self.certificate.subject)
        builder = builder.last_update(since).next_update(until)
        for serial in sorted(set(serials)):
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(since).build()
            builder = builder.add_revoked_certificate(entry)
        return builder.sign(self.key, SHA256()).public_bytes(_PEM)


def _begun(name: str, key: ec.EllipticCurvePrivateKey, since: datetime, until: datetime) -> x509.CertificateBuilder:
    builder = x509.CertificateBuilder().subject_name(_name(name)).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(since).not_valid_after(until)
    return builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _signed(builder: x509.CertificateBuilder, key: ec.EllipticCurvePrivateKey, issuer: x509.Name) -> x509.Certificate:
    above = x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())
    return builder.issuer_name(issuer).add_extension(above, critical=False).sign(key, SHA256())


def _usage(*uses: str) -> x509.KeyUsage:
    return x509.KeyUsage(**{use: use in uses for use in _USES})


def _host(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)
