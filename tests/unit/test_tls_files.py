"""The files of a TLS listener: what is refused, with which words, and who a certificate says a client is."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from purveyor_server.domain.errors import PurveyorError
from purveyor_server.security.certificates import read_material
from purveyor_server.security.issuing import Authority, Issued
from purveyor_server.security.peers import parse_peer
from purveyor_server.security.tls import TlsFileError, TlsFiles
from purveyor_server.security.trust import Basis, ClientTrust

NOW = datetime.now(UTC).replace(microsecond=0)
DAY = timedelta(days=1)
OURS = Authority.make("ours", NOW - DAY, NOW + DAY)
OTHER = Authority.make("other", NOW - DAY, NOW + DAY)


@pytest.fixture
def files(tmp_path: Path) -> TlsFiles:
    """Good ones."""
    made = OURS.server("s", ["localhost"], NOW - DAY, NOW + DAY)
    contents = {"c": made.pem, "k": made.key_pem, "a": OURS.pem, "r": OURS.revoke([7], NOW - DAY, NOW + DAY)}
    for name, content in contents.items():
        (tmp_path / name).touch(0o600)
        (tmp_path / name).write_bytes(content)
    return TlsFiles(*(tmp_path / name for name in contents))


def encoded(
    key: rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey, password: bytes = b""
) -> bytes:
    locked = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, locked)


def server(since: timedelta = -DAY, until: timedelta = DAY) -> Issued:
    return OURS.server("s", ["localhost"], NOW + since, NOW + until)


def test_good_files(files: TlsFiles) -> None:
    found = read_material(files, NOW)

    assert found.not_after == NOW + DAY
    assert [known.serials for known in found.lists] == [frozenset({7})]
    assert found.next_update == NOW + DAY
    assert "PRIVATE" not in repr(found)


def test_a_list_in_der_and_several_in_pem(files: TlsFiles) -> None:
    assert files.crl is not None
    assert files.client_ca is not None
    pem = files.crl.read_bytes()
    files.crl.write_bytes(x509.load_pem_x509_crl(pem).public_bytes(serialization.Encoding.DER))
    assert read_material(files, NOW).lists[0].serials == {7}

    files.client_ca.write_bytes(OURS.pem + OTHER.pem)
    files.crl.write_bytes(pem + OTHER.revoke([8], NOW - DAY, NOW + DAY / 2))
    found = read_material(files, NOW)
    assert [known.serials for known in found.lists] == [{7}, {8}]
    assert found.next_update == NOW + DAY / 2


BAD: dict[str, tuple[str, str, Callable[[], bytes]]] = {
    "no certificate": ("certificate", "holds no certificate in PEM", lambda: b"nonsense"),
    "a key for a certificate": ("certificate", "holds no certificate in PEM", lambda: server().key_pem),
    "expired": ("certificate", "has expired at", lambda: server(until=-DAY / 2).pem),
    "not yet valid": ("certificate", "is not valid before", lambda: server(since=DAY / 2).pem),
    "chain out of order": ("certificate", "not in order", lambda: server().pem + OTHER.pem),
    "another key": ("key", "does not belong to the certificate", lambda: server().key_pem),
    "no key": ("key", "holds no private key", lambda: b"nonsense"),
    "a passphrase": ("key", "is encrypted", lambda: encoded(server().key, b"x")),
    "Ed25519": ("key", "RSA key of 2048 bits or more, or an EC key", lambda: encoded(ed25519.Ed25519PrivateKey.generate())),
    "short RSA": ("key", "RSA key of 2048", lambda: encoded(rsa.generate_private_key(65537, 1024))),  # noqa: S505 - to be refused
    "P-521": ("key", "P-256 or P-384", lambda: encoded(ec.generate_private_key(ec.SECP521R1()))),
    "no authority": ("client_ca", "CN=s is no certificate authority", lambda: server().pem),
    "expired authority": ("client_ca", "has expired", lambda: Authority.make("o", NOW - DAY, NOW - DAY / 2).pem),
    "no list": ("crl", "holds no revocation list", lambda: b""),
    "a list of another": ("crl", "CN=other is not signed by", lambda: OTHER.revoke([], NOW - DAY, NOW)),
    "a list of a namesake": (
        "crl", "CN=ours is not signed by", lambda: Authority.make("ours", NOW, NOW + DAY).revoke([], NOW - DAY, NOW)
    ),
}  # fmt: skip


@pytest.mark.parametrize(("field", "why", "content"), BAD.values(), ids=BAD)
def test_bad_files_are_refused_by_field_and_name(
    files: TlsFiles, field: str, why: str, content: Callable[[], bytes]
) -> None:
    path: Path = getattr(files, field)
    path.write_bytes(content())

    with pytest.raises(TlsFileError, match=why) as refused:
        read_material(files, NOW)

    assert (refused.value.field, refused.value.path) == (field, path)
    assert "PRIVATE" not in str(refused.value)


@pytest.mark.parametrize("field", ["certificate", "key", "client_ca", "crl"])
def test_files_that_cannot_be_read(files: TlsFiles, field: str) -> None:
    path: Path = getattr(files, field)
    path.unlink()
    with pytest.raises(TlsFileError, match=f"{field}: {path}: no such file"):
        read_material(files, NOW)

    path.mkdir(0o700)
    with pytest.raises(TlsFileError, match="is not a regular file"):
        read_material(files, NOW)


def test_a_key_that_others_may_read_is_refused(files: TlsFiles) -> None:
    files.key.chmod(0o640)

    with pytest.raises(TlsFileError, match=r"is open to others \(mode bits 040\); take them away: chmod 600"):
        read_material(files, NOW)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
@pytest.mark.parametrize(("mode", "good"), [(0o640, True), (0o440, True), (0o644, False), (0o660, False)])
def test_a_key_of_root_may_be_readable_for_our_group(
    files: TlsFiles, monkeypatch: pytest.MonkeyPatch, mode: int, *, good: bool
) -> None:
    files.key.chmod(mode)
    monkeypatch.setattr(os, "geteuid", lambda: 12345)

    with nullcontext() if good else pytest.raises(TlsFileError, match="is open to others"):
        read_material(files, NOW)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_key_of_another_user_is_refused(files: TlsFiles) -> None:
    os.chown(files.key, 12345, -1)

    with pytest.raises(TlsFileError, match="belongs to uid 12345"):
        read_material(files, NOW)


@pytest.mark.parametrize(
    ("uris", "expected"),
    [
        (["spiffe://a.b/tenant/x"], "spiffe://a.b/tenant/x"),
        (["spiffe://a.b/tenant/x", "https://a"], ""),
        (["https://a"], ""),
        (["spiffe://A.b/x"], ""),
        (["spiffe://a.b"], ""),
        (["spiffe://a.b/x/../y"], ""),
        (["spiffe://a.b/x/"], ""),
        (["spiffe://a.b//x"], ""),
        (["spiffe://a.b/x?y"], ""),
        (["spiffe://a.b:1/x"], ""),
        (["spiffe://u@a.b/x"], ""),
        (["spiffe://a.b/" + "x" * 2048], ""),
        ([], ""),
    ],
)
def test_a_spiffe_id_is_one_uri_in_its_form(uris: list[str], expected: str) -> None:
    peer = parse_peer(OURS.client("a", uris, NOW - DAY, NOW + DAY).pem)

    assert (peer.spiffe_id, peer.uris) == (expected, tuple(uris))


def test_a_certificate_is_taken_apart_once() -> None:
    pem = OURS.client("a", [], NOW - DAY, NOW + DAY).pem

    assert parse_peer(pem) is parse_peer(bytes(bytearray(pem)))


def test_what_cannot_be_read_is_refused() -> None:
    with pytest.raises(PurveyorError) as refused:
        parse_peer(b"nonsense")

    assert refused.value.metadata == {"problem": "unreadable"}


def test_a_chain_of_any_size_is_not_kept() -> None:
    pem = OURS.client("a", [], NOW - DAY, NOW + DAY).pem
    kept = parse_peer.cache_info().currsize

    with pytest.raises(PurveyorError, match="larger than 16384 bytes") as refused:
        parse_peer(pem, OTHER.pem * 100)

    assert refused.value.metadata == {"problem": "unreadable"}
    assert parse_peer.cache_info().currsize == kept


def test_an_authority_that_was_revoked_is_found_wherever_it_stands_in_the_chain(files: TlsFiles) -> None:
    between = Authority.make("between", NOW - DAY, NOW + DAY, OURS)
    assert files.crl is not None
    files.crl.write_bytes(OURS.revoke([between.certificate.serial_number], NOW - DAY, NOW + DAY))
    trust = ClientTrust([Basis(read_material(files, NOW))])
    client = between.client("a", [], NOW - DAY, NOW + DAY)

    for before, problem in ((0, "revoked"), (7, "revoked"), (8, "untrusted")):  # not looked for beyond the eighth
        refusal = trust.judge(parse_peer(client.pem, OTHER.pem * before + between.pem), NOW)
        assert refusal is not None
        assert refusal.metadata["problem"] == problem


def test_a_chain_that_leads_nowhere_is_not_trusted(files: TlsFiles) -> None:
    trust = ClientTrust([Basis(read_material(files, NOW))])
    between = Authority.make("between", NOW - DAY, NOW + DAY, OURS)
    client = between.client("a", [], NOW - DAY, NOW + DAY)
    loop = Authority.make("between", NOW - DAY, NOW + DAY)

    assert trust.judge(parse_peer(client.pem, between.pem), NOW) is None
    for chain in (b"", OTHER.pem, loop.pem, loop.pem * 20):
        refusal = trust.judge(parse_peer(OTHER.client("a", [], NOW - DAY, NOW + DAY).pem, chain), NOW)
        assert refusal is not None
        assert refusal.metadata == {"problem": "untrusted"}
