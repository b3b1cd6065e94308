"""Settings of identity: what is wrong is named by its path before anything starts; files that change later."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm
from structlog.testing import capture_logs

from purveyor_server.app.identity import Identity, check_identity, warn_of_loopback
from purveyor_server.config.problems import ConfigError
from purveyor_server.config.settings import Settings
from purveyor_server.config.sources import load
from purveyor_server.domain.principal import Principal
from purveyor_server.kit.clock import ManualClock
from purveyor_server.monitor.identity import IdentityCollector
from purveyor_server.security.identity.grants import Binding, Known
from purveyor_server.security.identity.keysets import KeySetError, parse_key_set
from tests.rpc.identity import Tokens

HEAD = 'catalog = "c.yaml"\n'
ISSUER = 'name = "main"\nissuer = "https://i"\naudience = ["a"]\n'


def settings(tmp_path: Path, text: str) -> Settings:
    file = tmp_path / "purveyor.toml"
    file.write_text(HEAD + text)
    return load(file, {}, data_dir=tmp_path / "data")


def problems(tmp_path: Path, text: str) -> str:
    with pytest.raises(ConfigError) as refused:
        check_identity(settings(tmp_path, text))
    return str(refused.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[identity]\nlocal = "some"', "identity.local"),
        ('[identity]\nrecheck = "2m"', "identity.recheck: must be at most 50s"),
        ("[[identity.issuers]]\n" + ISSUER, "needs exactly one of keys_file and keys_url"),
        *(
            (f'[[identity.issuers]]\nname = "{taken}"\nissuer = "i"\naudience = ["a"]\nkeys_file = "x"', "choose another name")
            for taken in ("token", "certificate", "spiffe", "local")
        ),
        ("[[identity.issuers]]\n" + ISSUER + 'keys_file = "x"\nalgorithms = ["HS256"]', "HS256 cannot be used"),
        ("[[identity.issuers]]\n" + ISSUER + 'keys_file = "x"\nalgorithms = ["none"]', "none cannot be used"),
        ("[[identity.issuers]]\n" + ISSUER + 'keys_file = "x"\nskew = "10m"', "identity.issuers[0].skew: must be at most 5m"),
        ("[[identity.issuers]]\n" + ISSUER + 'keys_url = "https://i/k"', "keys_hosts: must name the host"),
        (
            "[[identity.issuers]]\n" + ISSUER + 'keys_url = "http://i/k"\nkeys_hosts = ["i"]',
            "keys_url: must begin with https://",
        ),
        ("[[identity.issuers]]\n" + ISSUER + 'keys_file = "x"\n' + "[[identity.issuers]]\n" + ISSUER + 'keys_file = "x"', "two have the same name"),
        ("[[identity.issuers]]\n" + ISSUER + 'keys_file = "x"\nsecret = "s"', "identity.issuers[0].secret"),
        ('[[identity.certificates]]\nroles = ["VIEWER"]\ntenants = ["a"]', "needs exactly one of spiffe"),
        ('[[identity.certificates]]\ndns = "a"\nuri = "b"\nroles = ["VIEWER"]\ntenants = ["a"]', "needs exactly one of"),
        ('[[identity.certificates]]\ndns = "a"\nroles = ["VIEWER"]\ntenants = ["{t}"]', "has no field t"),
        ('[[identity.certificates]]\nuri = "{t}{t}"\nroles = ["VIEWER"]\ntenants = ["{t}"]', "names a field twice"),
        ('[[identity.certificates]]\ndns = "a"\nroles = ["ROOT"]\ntenants = ["a"]', "identity.certificates[0].roles[0]"),
        ('[[identity.certificates]]\ndns = "a"\nroles = []\ntenants = ["a"]', "identity.certificates[0].roles"),
        ('[[identity.bindings]]\nroles = ["VIEWER"]\ntenants = ["a"]', "else it is for everybody"),
        ('[[identity.bindings]]\nsubject = "a"\nroles = ["VIEWER"]\ntenants = ["*", "a"]', "it stands alone"),
        ('[[identity.bindings]]\nsubject = "a"\nroles = ["VIEWER"]\ntenants = ["A"]', "is no tenant"),
        ('[[identity.bindings]]\nsubject = "a"\nroles = ["VIEWER"]\ntenants = ["{t}"]', "a binding has no fields"),
        ('[identity]\nbindings_file = "missing.toml"', "identity.bindings_file"),
        ("[[identity.issuers]]\n" + ISSUER + 'keys_file = "missing"', "identity.issuers[0].keys_file"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(tmp_path: Path, text: str, said: str) -> None:
    assert said in problems(tmp_path, text)


def test_relative_files_count_from_the_folder_of_the_settings(tmp_path: Path) -> None:
    (tmp_path / "keys.json").write_text("{}")
    text = '[identity]\nbindings_file = "b.toml"\n[[identity.issuers]]\n' + ISSUER + 'keys_file = "keys.json"'
    (tmp_path / "b.toml").write_text("[[bindings]]\nroles = 1")

    said = problems(tmp_path, text)

    assert f"identity.issuers[0].keys_file: {tmp_path / 'keys.json'}: is not a set of keys" in said
    assert "identity.bindings_file: bindings[0].roles" in said


def key(made: Any, **changes: Any) -> dict[str, Any]:
    kinds = {
        ec.EllipticCurvePrivateKey: ECAlgorithm,
        rsa.RSAPrivateKey: RSAAlgorithm,
        ed25519.Ed25519PrivateKey: OKPAlgorithm,
    }
    algorithm: Any = next(found for kind, found in kinds.items() if isinstance(made, kind))
    return {**algorithm.to_jwk(made.public_key(), as_dict=True), "kid": "k", **changes}


SMALL = key(rsa.generate_private_key(65537, 1024))  # noqa: S505 - what is too small is to be refused
EC = key(ec.generate_private_key(ec.SECP256R1()))


def test_keys_go_with_the_algorithms_of_their_kind_alone() -> None:
    keys = [
        EC,
        key(ec.generate_private_key(ec.SECP384R1()), kid="p384"),
        key(rsa.generate_private_key(65537, 2048), kid="rsa"),
        key(rsa.generate_private_key(65537, 2048), kid="ps", alg="PS256"),
        key(ed25519.Ed25519PrivateKey.generate(), kid="ed"),
    ]
    found = parse_key_set(json.dumps({"keys": keys}).encode())

    fits = {
        (key_id, algorithm)
        for key_id in ("k", "p384", "rsa", "ps", "ed")
        for algorithm in ("ES256", "ES384", "RS256", "PS256", "EdDSA", "HS256", "none")
        if found.find(key_id, algorithm)
    }
    assert fits == {
        ("k", "ES256"), ("p384", "ES384"), ("rsa", "RS256"), ("rsa", "PS256"), ("ps", "PS256"), ("ed", "EdDSA"),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"[]", "is not a set of keys"),
        (b'{"keys": {}}', "is not a set of keys"),
        (b'{"keys": [1]}', "is not a set of keys"),
        (b'{"keys": []}', "has no key that verifies"),
        (json.dumps({"keys": [{"kty": "oct", "k": "c2VjcmV0", "kid": "k"}]}).encode(), "private or shared"),
        (json.dumps({"keys": [EC | {"d": "AAAA"}]}).encode(), "private or shared"),
        (json.dumps({"keys": [EC, EC]}).encode(), "two keys of one id"),
        (json.dumps({"keys": [EC | {"use": "enc"}]}).encode(), "no key that verifies"),
        (json.dumps({"keys": [EC | {"key_ops": ["sign"]}]}).encode(), "no key that verifies"),
        (json.dumps({"keys": [EC | {"alg": "HS256"}]}).encode(), "no key that verifies"),
        (json.dumps({"keys": [EC | {"crv": "P-384"}]}).encode(), "no key that verifies"),
        (json.dumps({"keys": [SMALL]}).encode(), "no key that verifies"),
        (json.dumps({"keys": [EC] * 101}).encode(), "more than 100"),
    ],
)
def test_key_sets_that_are_refused(content: bytes, why: str) -> None:
    with pytest.raises(KeySetError, match=why):
        parse_key_set(content)


async def test_bindings_are_taken_again_and_bad_ones_leave_the_old(tmp_path: Path) -> None:
    file = tmp_path / "b.toml"
    file.write_text('[[bindings]]\nsubject = "token:*"\nroles = ["VIEWER"]\ntenants = ["t"]\n')
    clock = ManualClock()
    identity = Identity(settings(tmp_path, '[identity]\nbindings_file = "b.toml"').identity, Tokens(clock), clock)
    told: list[int] = []
    identity.judge.subscribe(lambda: told.append(1))
    assert len(identity.judge._bindings) == 1

    await identity.reread(file)
    assert told == []
    with capture_logs() as lines:
        for bad in ("nonsense", "[[bindings]]\n", '[[bindings]]\nroles = ["VIEWER"]\ntenants = ["t"]'):
            file.write_text(bad)
            await identity.reread(file)
            await identity.reread(file)
    assert (told, len(identity.judge._bindings)) == ([], 1)
    assert [line["event"] for line in lines] == ["bindings cannot be used, the old ones go on"] * 3
    file.unlink()
    await identity.reread(file)
    file.write_text("")
    await identity.reread(file)

    assert (told, len(identity.judge._bindings)) == ([1], 0)


def test_every_user_of_the_machine_is_warned_of(tmp_path: Path) -> None:
    with capture_logs() as quiet:
        warn_of_loopback(settings(tmp_path, ""))
        warn_of_loopback(settings(tmp_path, '[identity]\nlocal = "none"\n[listen]\naddresses = ["127.0.0.1:1"]'))
    with capture_logs() as told:
        warn_of_loopback(settings(tmp_path, '[listen]\naddresses = ["127.0.0.1:1"]'))

    assert quiet == []
    assert [line["addresses"] for line in told] == [["127.0.0.1:1"]]


def test_metrics_tell_of_issuers_and_refusals(tmp_path: Path) -> None:
    clock = ManualClock()
    given = settings(tmp_path, "[[identity.issuers]]\n" + ISSUER + 'keys_file = "k.json"')
    identity = Identity(given.identity, Tokens(clock), clock)
    with pytest.raises(Exception, match="who calls"):
        raise identity.judge.missing()

    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in IdentityCollector(identity.facts).collect()
        for sample in family.samples
    }

    assert samples["purveyor_identity_keys", "main"] == 0
    assert samples["purveyor_identity_keys_failures_total", "main"] == 0
    assert samples["purveyor_identity_refused_total", "missing"] == 1


def test_nobody_is_bound_to_claims_that_are_not_there() -> None:
    binding = Binding(claims={"groups": "dba"}, roles=frozenset({"VIEWER"}), tenants=None)
    assert not binding.fits(Known(principal=Principal(subject="a")))
