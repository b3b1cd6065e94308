"""Who is let in by a real server, as whom, and what each bad credential gets."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from msgspec.structs import replace

from purveyor_server.domain.errors import PurveyorError
from purveyor_server.domain.principal import EVERY_ROLE, Means, Role
from purveyor_server.rpc import RpcServer, RpcSettings
from purveyor_server.security.identity.authenticator import MAX_HEADER
from purveyor_server.security.identity.grants import Binding
from purveyor_server.security.identity.replays import Replays
from tests.rpc.failures import failure_of
from tests.rpc.identity import GET, MAIN, SECONDS, Mint, Place, raw, shows
from tests.rpc.scripted import ScriptedDoor

Stub = Any


@pytest.fixture
def place(folder: Path, door: ScriptedDoor) -> Place:
    return Place(folder, door)


@pytest.fixture
async def server(place: Place) -> AsyncIterator[RpcServer]:
    async with place.serving() as running:
        yield running


@pytest.fixture
async def stub(place: Place, server: RpcServer) -> AsyncIterator[Stub]:
    async with place.stub() as made:
        yield made


async def problem(stub: Stub, token: str) -> tuple[str, str]:
    """Reason and problem of a refused token."""
    failure = await failure_of(stub.GetInstance(GET, metadata=shows(token), timeout=SECONDS))
    assert failure.code is grpc.StatusCode.UNAUTHENTICATED
    return failure.reason, failure.metadata["problem"]


async def test_a_token_of_an_issuer_is_its_subject_with_its_roles_in_its_tenants(place: Place, stub: Stub) -> None:
    await stub.GetInstance(GET, metadata=shows(place.mint.token()))

    (seen,) = place.seen
    assert (seen.subject, seen.means, seen.credential) == ("main:ann", Means.JWT, "j1")
    assert seen.roles_in("t") == {Role.VIEWER, Role.CONSUMER}
    assert seen.roles_in("u") == frozenset()
    assert not any(seen.holds(role) for role in EVERY_ROLE)
    assert seen.expires_at == place.clock.now() + timedelta(seconds=330)


async def test_claims_mean_what_the_configuration_says(folder: Path, door: ScriptedDoor) -> None:
    issuer = replace(
        MAIN,
        subject_claim="https://example.org/uid",
        tenants_claim="org.team",
        roles_claim="groups",
        role_names={"dev": frozenset({"CONSUMER"}), "sre": frozenset({"CONSUMER", "CREDENTIALS_READER"})},
        roles=frozenset({"VIEWER"}),
    )
    claims: Any = {"https://example.org/uid": "u1", "org": {"team": "t"}, "tenants": ["u"]}
    place = Place(folder, door, issuer=issuer)
    async with place.serving(), place.stub() as stub:
        for groups in (["dev", "sre", "ADMIN"], "ADMIN", None):
            await stub.GetInstance(GET, metadata=shows(place.mint.token(**claims, groups=groups)))

    assert {principal.subject for principal in place.seen} == {"main:u1"}
    assert [principal.roles_in("t") for principal in place.seen] == [
        {"VIEWER", "CONSUMER", "CREDENTIALS_READER"},
        {"VIEWER"},
        {"VIEWER"},
    ]
    assert not any(principal.roles_in("u") for principal in place.seen)


async def test_a_static_token_is_its_name(place: Place, stub: Stub) -> None:
    text, token_id = place.tokens.add("ci", ["OPERATOR"], None)

    await stub.GetInstance(GET, metadata=shows(text))

    (seen,) = place.seen
    assert (seen.subject, seen.means, seen.credential) == ("token:ci", Means.TOKEN, token_id)
    assert seen.holds("OPERATOR")


async def test_who_shows_nothing_is_refused_and_told_what_to_show(stub: Stub) -> None:
    failure = await failure_of(stub.GetInstance(GET))

    assert (failure.code, failure.reason) == (grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED")
    assert failure.metadata == {"problem": "missing", "challenge": 'Bearer realm="purveyor"'}


async def test_where_local_callers_are_believed_a_wrong_token_is_still_refused(
    folder: Path, door: ScriptedDoor
) -> None:
    place = Place(folder, door, local=True)
    async with place.serving(), place.stub() as stub:
        await stub.GetInstance(GET)
        assert place.seen[0].subject == "local"
        assert await problem(stub, "pvt_nothing") == ("UNAUTHENTICATED", "malformed")


BAD: dict[str, tuple[Callable[[Mint], str], str]] = {
    "expired": (lambda mint: mint.token(exp=mint.now - 31), "expired"),
    "not yet valid": (lambda mint: mint.token(nbf=mint.now + 31), "not_yet_valid"),
    "issued in the future": (lambda mint: mint.token(iat=mint.now + 31), "not_yet_valid"),
    "without an end": (lambda mint: mint.token(exp=None), "claims"),
    "an end that is no date": (lambda mint: mint.token(exp=True), "claims"),
    "ends before it begins": (lambda mint: mint.token(nbf=mint.now - 1, exp=mint.now - 2), "claims"),
    "another audience": (lambda mint: mint.token(aud="other"), "audience"),
    "other audiences": (lambda mint: mint.token(aud=["a", "b", 3]), "audience"),
    "no audience": (lambda mint: mint.token(aud=None), "audience"),
    "another issuer": (lambda mint: mint.token(iss="https://evil.example.org"), "issuer"),
    "no issuer": (lambda mint: mint.token(iss=None), "issuer"),
    "alg none": (lambda mint: raw({"alg": "none"}, mint.claims(), b""), "unsigned"),
    "alg NoNe with something": (lambda mint: raw({"alg": "NoNe"}, mint.claims()), "unsigned"),
    "unsigned": (lambda mint: mint.token().rpartition(".")[0] + ".", "unsigned"),
    "HS256 with the public key as secret": (
        lambda mint: by_shared_secret(mint.claims(), mint.pem()),
        "algorithm",
    ),
    "an algorithm that is not listed": (lambda mint: raw({"alg": "ES512", "kid": "k1"}, mint.claims()), "algorithm"),
    "an algorithm of another kind of key": (lambda mint: raw({"alg": "RS256", "kid": "k1"}, mint.claims()), "key"),
    "a key that is not there": (lambda mint: raw({"alg": "ES256", "kid": "k9"}, mint.claims()), "key"),
    "a key of its own": (
        lambda mint: raw({"alg": "ES256", "kid": "k1", "jwk": {"kty": "EC"}}, mint.claims()),
        "signature",
    ),
    "another signature": (lambda mint: raw({"alg": "ES256", "kid": "k1"}, mint.claims()), "signature"),
    "changed claims": (
        lambda mint: ".".join(
            (mint.token().split(".")[0], raw({}, mint.claims(sub="eve")).split(".")[1], mint.token().split(".")[2])
        ),
        "signature",
    ),
    "a critical header": (lambda mint: mint.token(header={"crit": ["exp"], "exp": 1}), "unsupported"),
    "another type": (lambda mint: mint.token(header={"typ": "logout+jwt"}), "unsupported"),
    "garbage": (lambda mint: "a.b.c", "malformed"),
    "no token at all": (lambda mint: "nothing", "malformed"),
    "five parts": (lambda mint: "a.b.c.d.e", "malformed"),
    "a name twice": (lambda mint: raw(b'{"alg":"ES256","alg":"none"}', {}), "malformed"),
    "nested too deeply": (lambda mint: raw(b"[" * 2000, {}), "malformed"),
    "control characters in sub": (lambda mint: mint.token(sub="ann\nroot"), "claims"),
    "marks of direction in sub": (lambda mint: mint.token(sub="ann\u202e"), "claims"),
    "an overlong sub": (lambda mint: mint.token(sub="a" * 300), "claims"),
    "no sub": (lambda mint: mint.token(sub=None), "claims"),
    "sub is a table": (lambda mint: mint.token(sub={"a": 1}), "claims"),
    "control characters in a tenant": (lambda mint: mint.token(tenants=["t\r\nx"]), "claims"),
    "every tenant by a star": (lambda mint: mint.token(tenants="*"), "claims"),
    "a tenant that is none": (lambda mint: mint.token(tenants=["T"]), "claims"),
    "tenants are a table": (lambda mint: mint.token(tenants={"t": 1}), "claims"),
    "control characters in jti": (lambda mint: mint.token(jti="a\x00"), "claims"),
    "damaged static token": (lambda mint: "pvt_0000000000000000_" + "A" * 49, "malformed"),
    "a token with a blank": (lambda mint: mint.token() + " x", "malformed"),
}


def by_shared_secret(claims: dict[str, Any], secret: bytes) -> str:
    """The old trick: what is public taken for a shared secret. PyJWT itself does not sign so."""
    stem = raw({"alg": "HS256", "kid": "k1"}, claims).rpartition(".")[0]
    signature = hmac.new(secret, stem.encode(), hashlib.sha256).digest()
    return f"{stem}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


async def test_bad_tokens(place: Place, stub: Stub) -> None:
    for case, (make, expected) in BAD.items():
        reason, found = await problem(stub, make(place.mint))
        assert found == expected, case
        assert reason == ("CREDENTIAL_EXPIRED" if expected == "expired" else "UNAUTHENTICATED"), case
    assert place.seen == []
    await stub.GetInstance(GET, metadata=shows(place.mint.token()))
    assert sum(place.judge.refused.values()) == len(BAD)


async def test_the_skew_is_granted_on_both_sides(place: Place, stub: Stub) -> None:
    for changes in (
        {"exp": place.mint.now - 29, "iat": None},
        {"nbf": place.mint.now + 29},
        {"iat": place.mint.now + 29},
    ):
        await stub.GetInstance(GET, metadata=shows(place.mint.token(**changes)))


async def test_a_remembered_token_ends_on_time(place: Place, stub: Stub) -> None:
    token = place.mint.token(exp=place.mint.now + 5)
    await stub.GetInstance(GET, metadata=shows(token))
    place.clock.advance(36)

    assert await problem(stub, token) == ("CREDENTIAL_EXPIRED", "expired")


async def test_headers_that_are_no_tokens(stub: Stub) -> None:
    cases = {
        "scheme": (("authorization", "Basic dTpw"),),
        "repeated": (*shows("a"), *shows("b")),
        "oversized": shows("a" * MAX_HEADER),
        "malformed": (("authorization", "Bearer "),),
    }
    for expected, metadata in cases.items():
        failure = await failure_of(stub.GetInstance(GET, metadata=metadata))
        assert failure.metadata.get("problem") == expected, failure


async def test_static_tokens_that_are_refused(place: Place, stub: Stub) -> None:
    text, token_id = place.tokens.add("ci", ttl=timedelta(minutes=1))
    other, other_id = place.tokens.add("ci")
    assert place.tokens.kept[token_id].hash not in text.encode()
    await stub.GetInstance(GET, metadata=shows(text))

    place.clock.advance(61)
    assert await problem(stub, text) == ("CREDENTIAL_EXPIRED", "expired")
    place.tokens.change(other_id, revoked_at=place.clock.now())
    assert await problem(stub, other) == ("CREDENTIAL_REVOKED", "revoked")
    place.tokens.change(other_id, hash=bytes(32))
    assert await problem(stub, other) == ("UNAUTHENTICATED", "unknown")
    del place.tokens.kept[other_id]
    assert await problem(stub, other) == ("UNAUTHENTICATED", "unknown")


async def test_uses_are_noted_now_and_then(place: Place, stub: Stub) -> None:
    text, token_id = place.tokens.add("ci")
    for _ in range(3):
        await stub.GetInstance(GET, metadata=shows(text))
    assert place.tokens.reads == 1
    await place.judge._tokens.note()  # type: ignore[union-attr] # there are some
    first = place.clock.now()
    assert place.tokens.kept[token_id].used_at == first

    place.clock.advance(500)
    await stub.GetInstance(GET, metadata=shows(text))
    await place.judge._tokens.note()  # type: ignore[union-attr] # as above

    assert place.tokens.kept[token_id].used_at == first


async def test_a_token_for_one_use_works_once(folder: Path, door: ScriptedDoor) -> None:
    place = Place(folder, door, issuer=replace(MAIN, once=True))
    async with place.serving(), place.stub() as stub:
        await stub.GetInstance(GET, metadata=shows(place.mint.token(jti="a")))
        await stub.GetInstance(GET, metadata=shows(place.mint.token(jti="b")))

        assert await problem(stub, place.mint.token(jti="a")) == ("UNAUTHENTICATED", "replayed")
        assert await problem(stub, place.mint.token(jti=None)) == ("UNAUTHENTICATED", "claims")


def test_replays_are_remembered_within_bounds() -> None:
    replays = Replays(limit=2)
    replays.take("a", 10.0, 0.0)
    replays.take("b", 20.0, 0.0)
    with pytest.raises(PurveyorError) as full:
        replays.take("c", 20.0, 0.0)
    replays.take("c", 20.0, 10.0)

    assert full.value.metadata == {"problem": "replays_full"}
    assert len(replays) == 2


async def test_bindings_add_roles_to_whoever_fits(place: Place, stub: Stub) -> None:
    place.bind(
        Binding(subject="main:a*", roles=frozenset({"OPERATOR"}), tenants=None),
        Binding(means="token", roles=frozenset({"ADMIN"}), tenants=None),
        Binding(claims={"groups": "dba"}, roles=frozenset({"PLATFORM"}), tenants=frozenset({"u"})),
        Binding(subject="main:b*", roles=frozenset({"ADMIN"}), tenants=None),
    )

    await stub.GetInstance(GET, metadata=shows(place.mint.token(groups=["x", "dba"])))
    await stub.GetInstance(GET, metadata=shows(place.mint.token(groups={"dba": 1}, jti="j2")))

    first, second = place.seen
    assert first.roles == {"OPERATOR"}
    assert first.holds("OPERATOR")
    assert first.roles_in("u") == {"OPERATOR", "PLATFORM"}
    assert first.roles_in("t") == {"OPERATOR", "VIEWER", "CONSUMER"}
    assert second.roles_in("u") == {"OPERATOR"}


async def test_health_is_open_and_reflection_as_configured(place: Place, server: RpcServer) -> None:
    async with grpc.aio.insecure_channel(place.address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        assert (await health.Check(health_pb2.HealthCheckRequest())).status == 1
        assert await reflected(channel) == "OK"


async def reflected(channel: grpc.aio.Channel) -> str:
    asked = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(
        iter([reflection_pb2.ServerReflectionRequest(list_services="")])
    )
    try:
        async for _ in asked:
            pass
    except grpc.aio.AioRpcError as error:
        return error.code().name
    return "OK"


async def test_reflection_may_need_a_principal(place: Place) -> None:
    async with (
        place.serving(settings=RpcSettings(reflection_open=False)),
        grpc.aio.insecure_channel(place.address) as channel,
    ):
        assert await reflected(channel) == "UNAUTHENTICATED"
        assert (await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())).status == 1


async def test_no_word_of_a_token_is_in_a_refusal_or_a_log(place: Place, stub: Stub, caplog: Any, capsys: Any) -> None:
    token = place.mint.token(sub="very-secret\n")
    failure = await failure_of(stub.GetInstance(GET, metadata=shows(token)))

    said = json.dumps([failure.message, failure.metadata]) + caplog.text + "".join(capsys.readouterr())
    assert not [part for part in (*token.split("."), "very-secret") if part in said]


async def test_unknown_methods_tell_strangers_nothing(place: Place, server: RpcServer) -> None:
    async with grpc.aio.insecure_channel(place.address) as channel:
        call: Any = channel.unary_unary("/purveyor.v1.BrokerService/Nothing")
        assert (await failure_of(call(b""))).code is grpc.StatusCode.UNAUTHENTICATED
