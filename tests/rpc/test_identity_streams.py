"""Open streams end when their credential does, and when it loses what it needs; keys of an issuer that come and go."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest

from purveyor_server.domain.errors import PurveyorError, Reason
from purveyor_server.rpc import RpcServer
from purveyor_server.rpc.interceptors.authentication import Authentication
from purveyor_server.security.identity.grants import Binding
from purveyor_server.security.identity.jwks import Pace
from tests.rpc.failures import failure_of
from tests.rpc.identity import GET, SECONDS, WATCH, Place, shows
from tests.rpc.scripted import ScriptedDoor

OPERATOR_ELSEWHERE = Binding(subject="token:*", roles=frozenset({"VIEWER"}), tenants=frozenset({"t"}))


@pytest.fixture
def place(folder: Path, door: ScriptedDoor) -> Place:
    return Place(folder, door, pace=Pace(pause=10.0, stale=100.0))


@pytest.fixture
async def server(place: Place) -> AsyncIterator[RpcServer]:
    async with place.serving() as running:
        yield running


@pytest.fixture
async def stub(place: Place, server: RpcServer) -> AsyncIterator[Any]:
    async with place.stub() as made:
        yield made


def judge_of(server: RpcServer) -> Authentication:
    assert server.authentication is not None
    return server.authentication


async def opened_watch(place: Place, stub: Any, token: str) -> Any:
    before = place.door.signals.count("watch_operation")
    call = stub.WatchOperation(WATCH, metadata=shows(token), timeout=SECONDS)
    await place.door.signals.wait("watch_operation", before + 1)
    return call


async def ended(call: Any) -> Any:
    async def rest() -> None:
        async for _ in call:
            pass

    return await failure_of(rest())


@pytest.mark.parametrize("kind", ["jwt", "static"])
async def test_a_stream_ends_when_its_token_does(place: Place, server: RpcServer, stub: Any, kind: str) -> None:
    if kind == "jwt":
        token = place.mint.token(exp=place.mint.now + 10)
    else:
        token = place.tokens.add("ci", ttl=timedelta(seconds=40))[0]
    call = await opened_watch(place, stub, token)
    place.clock.advance(39)
    judge_of(server).expire()
    place.clock.advance(1)

    failure = await ended(call)  # by the server's own look, a second later at most

    assert (failure.code, failure.reason) == (grpc.StatusCode.UNAUTHENTICATED, "CREDENTIAL_EXPIRED")
    assert not judge_of(server)._open


async def test_a_stream_ends_when_its_token_is_revoked(place: Place, server: RpcServer, stub: Any) -> None:
    token, token_id = place.tokens.add("ci")
    call = await opened_watch(place, stub, token)
    await judge_of(server).recheck()
    place.tokens.change(token_id, revoked_at=place.clock.now())
    await judge_of(server).recheck()

    failure = await ended(call)

    assert (failure.code, failure.reason) == (grpc.StatusCode.UNAUTHENTICATED, "CREDENTIAL_REVOKED")


async def test_what_changes_here_is_looked_at_at_once(place: Place, server: RpcServer, stub: Any) -> None:
    token, token_id = place.tokens.add("ci")
    call = await opened_watch(place, stub, token)
    place.tokens.change(token_id, revoked_at=place.clock.now())
    place.judge.forget()

    assert (await ended(call)).reason == "CREDENTIAL_REVOKED"


async def test_a_stream_ends_when_its_role_is_taken_away_and_no_other_one(place: Place, stub: Any) -> None:
    lesser, _ = place.tokens.add("lesser", roles=[])
    stays, _ = place.tokens.add("stays")
    place.bind(OPERATOR_ELSEWHERE)
    call, other = await opened_watch(place, stub, lesser), await opened_watch(place, stub, stays)

    place.bind()
    failure = await ended(call)

    assert (failure.code, failure.reason) == (grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED")
    assert failure.metadata == {"method": "WatchOperation", "role": "VIEWER", "tenant": "t"}
    assert not other.done()
    other.cancel()


async def test_a_store_that_does_not_answer_ends_no_stream(place: Place, server: RpcServer, stub: Any) -> None:
    token, _ = place.tokens.add("ci")
    call = await opened_watch(place, stub, token)
    answer = place.tokens.token

    async def silent(_: str) -> Any:
        raise PurveyorError(Reason.STORE_UNAVAILABLE, "the store does not answer")

    place.tokens.token = silent  # type: ignore[method-assign,assignment] # the fault
    await judge_of(server).recheck()
    assert not call.done()
    place.tokens.token = answer  # type: ignore[method-assign] # mended
    call.cancel()


async def test_a_new_key_is_found_when_it_is_first_used(place: Place, stub: Any) -> None:
    await stub.GetInstance(GET, metadata=shows(place.mint.token()))
    place.clock.advance(10)
    place.mint.add("k2")

    await stub.GetInstance(GET, metadata=shows(place.mint.token(key_id="k2")))
    place.mint.add_rsa("k3")
    too_soon = await failure_of(stub.GetInstance(GET, metadata=shows(place.mint.token(key_id="k3"))))
    place.clock.advance(10)
    await stub.GetInstance(GET, metadata=shows(place.mint.token(key_id="k3")))

    assert too_soon.metadata["problem"] == "key"


async def test_a_key_that_is_taken_away_ends_its_streams(place: Place, server: RpcServer, stub: Any) -> None:
    place.mint.add("k2")
    token = place.mint.token()
    call, other = await opened_watch(place, stub, token), await opened_watch(place, stub, place.mint.token(key_id="k2"))
    del place.mint.keys["k1"]
    place.mint.publish()
    await place.keys.refresh()

    assert (await ended(call)).metadata["problem"] == "key"
    assert (await failure_of(stub.GetInstance(GET, metadata=shows(token)))).metadata["problem"] == "key"
    assert not other.done()
    other.cancel()


async def test_keys_that_cannot_be_read_go_on_for_a_while(place: Place, stub: Any) -> None:
    await stub.GetInstance(GET, metadata=shows(place.mint.token()))
    place.mint.path.write_text("nonsense")
    await place.keys.refresh()
    place.clock.advance(99)
    await stub.GetInstance(GET, metadata=shows(place.mint.token()))
    assert (place.keys.trouble, place.keys.failures) == ("is not JSON", 1)

    place.clock.advance(2)
    failure = await failure_of(stub.GetInstance(GET, metadata=shows(place.mint.token(jti="new"))))
    assert (failure.code, failure.reason) == (grpc.StatusCode.UNAVAILABLE, "IDENTITY_UNAVAILABLE")
    assert "RetryInfo" in failure.details

    place.mint.publish()
    await place.keys.refresh()
    await stub.GetInstance(GET, metadata=shows(place.mint.token(jti="newer")))
    assert place.keys.trouble == ""


async def test_tokens_without_a_key_id_go_by_the_only_key_of_their_kind(place: Place, stub: Any) -> None:
    place.mint.add_rsa("r")
    await stub.GetInstance(GET, metadata=shows(place.mint.token(header={"kid": None})))
    place.clock.advance(10)
    place.mint.add("k2")
    await place.keys.refresh()

    failure = await failure_of(stub.GetInstance(GET, metadata=shows(place.mint.token(header={"kid": None}, jti="x"))))

    assert failure.metadata["problem"] == "key"
