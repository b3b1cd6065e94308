"""An issuer of tokens with keys of its own, a store of static tokens in memory, and a server that judges by them."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import jwt
import msgspec
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from purveyor.v1 import broker_service_pb2 as messages
from purveyor.v1 import broker_service_pb2_grpc
from purveyor_server.domain.principal import Principal
from purveyor_server.domain.tokens import Token, Use
from purveyor_server.kit.clock import ManualClock
from purveyor_server.rpc import RpcServer, RpcSettings, TlsListen, broker_service
from purveyor_server.rpc.calls import current_call
from purveyor_server.security.identity.authenticator import Authenticator
from purveyor_server.security.identity.grants import Binding
from purveyor_server.security.identity.jwks import FileSource, Jwks, Pace
from purveyor_server.security.identity.static import StaticTokens
from purveyor_server.security.identity.tokentext import mint
from purveyor_server.security.identity.webtokens import Issuer, WebTokens
from tests.rpc.scripted import ScriptedDoor, instance

GET = messages.GetInstanceRequest(tenant="t", instance_id="orders")
WATCH = messages.WatchOperationRequest(tenant="t", operation_id="op")
ISSUER = "https://id.example.org"
MAIN = Issuer(
    name="main",
    issuer=ISSUER,
    audiences=frozenset({"purveyor"}),
    algorithms=frozenset({"ES256", "RS256"}),
    tenants_claim="tenants",
    roles_claim="realm.roles",
    skew=30.0,
)
SECONDS = 10.0


class Mint:
    """An issuer: keys by their ids, and tokens that they sign. Its clock is that of the server."""

    def __init__(self, folder: Path, clock: ManualClock) -> None:
        self.path = folder / "jwks.json"
        self.clock = clock
        self.keys: dict[str, Any] = {}
        self.add("k1")

    def add(self, key_id: str, key: Any = None) -> None:
        self.keys[key_id] = key or ec.generate_private_key(ec.SECP256R1())
        self.publish()

    def add_rsa(self, key_id: str, bits: int = 2048) -> None:
        self.add(key_id, rsa.generate_private_key(65537, bits))

    def publish(self) -> None:
        draft = self.path.with_suffix(".draft")
        draft.write_text(json.dumps({"keys": [public(key_id, key) for key_id, key in self.keys.items()]}))
        draft.replace(self.path)

    @property
    def now(self) -> int:
        return int(self.clock.now().timestamp())

    def claims(self, **changes: Any) -> dict[str, Any]:
        """Good ones; a change to None takes a claim away."""
        made = {
            "iss": ISSUER, "sub": "ann", "aud": "purveyor", "exp": self.now + 300, "iat": self.now, "jti": "j1",
            "tenants": ["t"], "realm": {"roles": ["VIEWER", "CONSUMER", "something-else"]},
        } | changes  # fmt: skip
        return {name: value for name, value in made.items() if value is not None}

    def token(self, *, key_id: str = "k1", header: Mapping[str, Any] | None = None, **changes: Any) -> str:
        key = self.keys[key_id]
        algorithm = "RS256" if isinstance(key, rsa.RSAPrivateKey) else "ES256"
        headers = {name: value for name, value in ({"kid": key_id} | dict(header or {})).items() if value is not None}
        return jwt.encode(self.claims(**changes), key, algorithm=algorithm, headers=headers)

    def pem(self, key_id: str = "k1") -> bytes:
        public_key = self.keys[key_id].public_key()
        encoding, form = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        return bytes(public_key.public_bytes(encoding, form))


def public(key_id: str, key: Any) -> dict[str, Any]:
    """A public key as a JWKS has it."""
    algorithm = RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else ECAlgorithm
    return {**algorithm.to_jwk(key.public_key(), as_dict=True), "kid": key_id, "use": "sig"}


def raw(header: Any, claims: Any, signature: bytes = b"x" * 64) -> str:
    """A token put together by hand."""
    parts = [part if isinstance(part, bytes) else json.dumps(part).encode() for part in (header, claims)]
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in (*parts, signature))


class Tokens:
    """A store of static tokens."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.kept: dict[str, Token] = {}
        self.reads = 0

    def add(
        self,
        name: str,
        roles: Sequence[str] = ("VIEWER",),
        tenants: frozenset[str] | None = frozenset({"t"}),
        ttl: timedelta | None = None,
    ) -> tuple[str, str]:
        """A token; its text and its id."""
        made, now = mint(), self.clock.now()
        self.kept[made.token_id] = Token(
            token_id=made.token_id,
            name=name,
            hash=made.hash,
            roles=frozenset(roles),
            tenants=tenants,
            created_at=now,
            created_by="test",
            expires_at=now + ttl if ttl is not None else None,
        )
        return made.text, made.token_id

    def change(self, token_id: str, **changes: Any) -> None:
        self.kept[token_id] = msgspec.structs.replace(self.kept[token_id], **changes)

    async def token(self, token_id: str) -> Token | None:
        self.reads += 1
        return self.kept.get(token_id)

    async def note_uses(self, uses: Sequence[Use]) -> None:
        for use in uses:
            self.change(use.token_id, used_at=use.at)


class Place:
    """A server on `folder/s` and what it judges by. `seen` are the principals that reached a handler."""

    def __init__(
        self, folder: Path, door: ScriptedDoor, *, issuer: Issuer = MAIN, local: bool = False, pace: Pace | None = None
    ) -> None:
        self.clock = ManualClock()
        self.mint = Mint(folder, self.clock)
        self.tokens = Tokens(self.clock)
        self.door = door
        self.address = f"unix:{folder / 's'}"
        self.seen: list[Principal] = []
        self.keys = Jwks("main", FileSource(self.mint.path), self.clock, pace)
        self.judge = Authenticator(
            self.clock,
            tokens=StaticTokens(self.tokens),
            issuers=[WebTokens(issuer, self.keys)],
            local=local,
        )
        self.keys.on_change = self.judge.forget
        door.script["get_instance"] = self._answer

    async def _answer(self, *_: Any) -> Any:
        self.seen.append(current_call().principal)
        return instance()

    def bind(self, *bindings: Binding) -> None:
        self.judge.bind(bindings)

    @asynccontextmanager
    async def serving(self, *listen: str | TlsListen, settings: RpcSettings | None = None) -> AsyncIterator[RpcServer]:
        async def ping() -> None:
            pass

        server = RpcServer(
            [broker_service(self.door)],  # type: ignore[arg-type] # by script
            ping,
            listen or (self.address,),
            settings or RpcSettings(),
            self.clock,
            self.judge,
        )
        await server.start()
        try:
            yield server
        finally:
            await server.drain(2.0)
            await self.keys.close()

    @asynccontextmanager
    async def stub(self) -> AsyncIterator[broker_service_pb2_grpc.BrokerServiceStub]:
        options = [("grpc.enable_retries", 0), ("grpc.use_local_subchannel_pool", 1)]
        async with grpc.aio.insecure_channel(self.address, options=options) as channel:
            yield broker_service_pb2_grpc.BrokerServiceStub(channel)


def shows(token: str) -> tuple[tuple[str, str], ...]:
    """The metadata of a caller with a token."""
    return (("authorization", f"Bearer {token}"),)
