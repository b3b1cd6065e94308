"""The adapter takes handlers of all eight shapes: four kinds, coroutine and generator, reading by iterator and by call."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest

from purveyor_server.rpc.calls import Call
from purveyor_server.rpc.interceptors.around import Proceed, compose, handling, wrap
from purveyor_server.rpc.methods import Kind, Method

METHOD = Method("/test.Echo/Call", Kind.READ)
WRITE_SECONDS = 5.0


async def unary_unary(request: bytes, context: Any) -> bytes:
    return request + b"!"


async def unary_stream_generated(request: bytes, context: Any) -> AsyncIterator[bytes]:
    yield request + b"1"
    yield request + b"2"


async def unary_stream_written(request: bytes, context: Any) -> None:
    await context.write(request + b"1")
    await context.write(request + b"2")


async def stream_unary_iterated(requests: AsyncIterator[bytes], context: Any) -> bytes:
    return b"".join([request async for request in requests])


async def stream_unary_read(requests: AsyncIterator[bytes], context: Any) -> bytes:
    joined = b""
    while (request := await context.read()) is not grpc.aio.EOF:
        joined += request
    return joined


async def stream_stream_generated(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
    async for request in requests:
        yield request + b"!"


async def stream_stream_written(requests: AsyncIterator[bytes], context: Any) -> None:
    async for request in requests:
        await context.write(request + b"!")


async def stream_stream_read(requests: AsyncIterator[bytes], context: Any) -> None:
    while (request := await context.read()) is not grpc.aio.EOF:
        await context.write(request + b"!")


SHAPES: list[tuple[str, Callable[..., Any], Any]] = [
    ("unary_unary", unary_unary, b"a!"),
    ("unary_stream", unary_stream_generated, [b"a1", b"a2"]),
    ("unary_stream", unary_stream_written, [b"a1", b"a2"]),
    ("stream_unary", stream_unary_iterated, b"ab"),
    ("stream_unary", stream_unary_read, b"ab"),
    ("stream_stream", stream_stream_generated, [b"a!", b"b!"]),
    ("stream_stream", stream_stream_written, [b"a!", b"b!"]),
    ("stream_stream", stream_stream_read, [b"a!", b"b!"]),
]


class Noting:
    """An interceptor that notes when it is entered and left."""

    def __init__(self, name: str, notes: list[str]) -> None:
        self._name = name
        self._notes = notes

    async def around(self, call: Call, proceed: Proceed) -> Any:
        self._notes.append(f"+{self._name}")
        try:
            return await proceed(call)
        finally:
            self._notes.append(f"-{self._name}")


@pytest.mark.parametrize(("kind", "behaviour", "expected"), SHAPES, ids=lambda shape: getattr(shape, "__name__", ""))
async def test_every_shape_is_served_inside_the_chain(kind: str, behaviour: Callable[..., Any], expected: Any) -> None:
    notes: list[str] = []
    arounds = [Noting("outer", notes).around, Noting("inner", notes).around]
    handler = wrap(getattr(grpc, f"{kind}_rpc_method_handler")(behaviour), METHOD, arounds, WRITE_SECONDS)
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Echo", {"Call": handler}),))
    with tempfile.TemporaryDirectory(prefix="pv-") as folder:
        address = f"unix:{Path(folder) / 's'}"
        server.add_insecure_port(address)
        await server.start()
        try:
            async with grpc.aio.insecure_channel(address) as channel:
                assert await answer(channel, kind) == expected
        finally:
            await server.stop(None)

    assert notes == ["+outer", "+inner", "-inner", "-outer"]


async def answer(channel: grpc.aio.Channel, kind: str) -> Any:
    method = getattr(channel, kind)("/test.Echo/Call")
    call = method(iter([b"a", b"b"]) if kind.startswith("stream") else b"a", timeout=10)
    return [message async for message in call] if kind.endswith("stream") else await call


def test_a_handler_that_is_not_asynchronous_is_refused() -> None:
    def blocking(request: bytes, context: Any) -> bytes:
        return request

    with pytest.raises(TypeError, match="not asynchronous"):
        handling(blocking)


class Callable_:  # noqa: N801 - a callable object
    async def __call__(self, request: bytes, context: Any) -> bytes:
        return request


@pytest.mark.parametrize("behaviour", [partial(unary_unary), Callable_()])
async def test_partials_and_callable_objects_are_seen_through(behaviour: Callable[..., Any]) -> None:
    proceed = compose([], handling(behaviour))

    assert (await proceed(Call(METHOD, None, b"a", WRITE_SECONDS))).startswith(b"a")


async def test_a_generator_is_closed_when_its_client_goes() -> None:
    closed: list[bool] = []

    async def endless(request: bytes, context: Any) -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"x"
        finally:
            closed.append(True)

    class Context:
        writes = 0

        async def write(self, message: bytes) -> None:
            self.writes += 1
            if self.writes > 2:
                raise ConnectionError

    with pytest.raises(ConnectionError):
        await handling(endless)(Call(METHOD, Context(), b"", WRITE_SECONDS))

    assert closed == [True]
