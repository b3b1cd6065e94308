"""The public keys of an issuer, from the text of a JWKS.

Guarantee: only keys that verify signatures are taken: RSA from 2048 bits, EC, Ed25519; each goes with the algorithms of its
own kind alone, so a public key is never a shared secret, and a key that names its algorithm goes with no other one.
Limit: keys of other kinds, or for encryption, are left out; a set in which none is left is refused.
Source: RFC 7517, RFC 7518, RFC 8725.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt.algorithms import get_default_algorithms

MAX_KEYS = 100
MIN_RSA_BITS = 2048
_RSA = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
_EC = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}
_ALGORITHMS = get_default_algorithms()


class KeySetError(Exception):
    """A text is no set of keys that can be used; the message says why and shows none of it."""


class VerifyingKey(NamedTuple):
    """A public key, and the algorithms that it goes with."""

    key: Any
    algorithms: frozenset[str]

    def verifies(self, algorithm: str, signed: bytes, signature: bytes) -> bool:
        """Whether the signature is of this key. Only for one of its algorithms."""
        return algorithm in self.algorithms and bool(_ALGORITHMS[algorithm].verify(signed, self.key, signature))


class KeySet:
    """Keys by their ids; "" for one without."""

    def __init__(self, keys: Mapping[str, VerifyingKey]) -> None:
        self._keys = dict(keys)

    def __len__(self) -> int:
        return len(self._keys)

    def find(self, key_id: str, algorithm: str) -> VerifyingKey | None:
        """The key of that id. A token that names none gets the only key that goes with its algorithm."""
        if key_id:
            found = self._keys.get(key_id)
            return found if found is not None and algorithm in found.algorithms else None
        fitting = [key for key in self._keys.values() if algorithm in key.algorithms]
        return fitting[0] if len(fitting) == 1 else None


def parse_key_set(text: bytes) -> KeySet:
    """The keys in a JWKS. Raises KeySetError."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        raise KeySetError("is not JSON") from None
    listed = content.get("keys") if isinstance(content, dict) else None
    if not isinstance(listed, list) or not all(isinstance(entry, dict) for entry in listed):
        raise KeySetError('is not a set of keys: {"keys": [...]}')
    if len(listed) > MAX_KEYS:
        raise KeySetError(f"has more than {MAX_KEYS} keys")
    keys: dict[str, VerifyingKey] = {}
    for entry in listed:
        if "d" in entry or "k" in entry:
            raise KeySetError("holds a private or shared key: only public ones belong there")
        key_id, found = entry.get("kid", ""), _key(entry)
        if found is None:
            continue
        if not isinstance(key_id, str) or key_id in keys:
            raise KeySetError("has two keys of one id")
        keys[key_id] = found
    if not keys:
        raise KeySetError("has no key that verifies signatures")
    return KeySet(keys)


def _key(entry: dict[str, Any]) -> VerifyingKey | None:
    """A key that can be used; None for one that is not for us."""
    operations = entry.get("key_ops", ["verify"])
    if entry.get("use", "sig") != "sig" or not isinstance(operations, list) or "verify" not in operations:
        return None
    try:
        key = jwt.PyJWK({name: value for name, value in entry.items() if name != "alg"}).key
    except (jwt.PyJWTError, ValueError, TypeError, KeyError):
        return None
    suits = _algorithms_of(key)
    named = entry.get("alg")
    fit = suits if named is None else suits & {named} if isinstance(named, str) else frozenset[str]()
    return VerifyingKey(key, fit) if fit else None


def _algorithms_of(key: object) -> frozenset[str]:
    if isinstance(key, RSAPublicKey):
        return _RSA if key.key_size >= MIN_RSA_BITS else frozenset()
    if isinstance(key, EllipticCurvePublicKey):
        return frozenset({_EC[key.curve.name]}) if key.curve.name in _EC else frozenset()
    return frozenset({"EdDSA"}) if isinstance(key, Ed25519PublicKey) else frozenset()
