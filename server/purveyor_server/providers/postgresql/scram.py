"""SCRAM-SHA-256 verifiers, so that a clear password never travels to the server nor into its log.

Guarantee: the same role and password always give the same verifier, so setting it again changes nothing.
Limit: the salt is derived from the password; that is sound only for passwords with as much entropy as `Secret.mint` gives.
Source: RFC 5802 (SCRAM), RFC 7677 (SCRAM-SHA-256), PostgreSQL's form
`SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>` (base64; after RFC 5803).
"""

from __future__ import annotations

import hashlib
import hmac
from base64 import b64encode

from purveyor_server.kit.secret import Secret

ITERATIONS = 4096  # PostgreSQL's default and the floor of RFC 7677; every login of a consumer pays for it
SALT_BYTES = 16


def make_verifier(role: str, password: Secret) -> str:
    """The verifier of `password` for `role`; ASCII passwords only (SASLprep leaves those as they are)."""
    clear = password.reveal().encode("ascii")
    salt = hmac.digest(clear, role.encode(), hashlib.sha256)[:SALT_BYTES]
    salted = hashlib.pbkdf2_hmac("sha256", clear, salt, ITERATIONS)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", hashlib.sha256)).digest()
    server = hmac.digest(salted, b"Server Key", hashlib.sha256)
    return f"SCRAM-SHA-256${ITERATIONS}:{_base64(salt)}${_base64(stored)}:{_base64(server)}"


def _base64(value: bytes) -> str:
    return b64encode(value).decode("ascii")
