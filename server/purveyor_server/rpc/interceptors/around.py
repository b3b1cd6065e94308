"""One adapter that turns `async def around(call, proceed)` into handlers of all four kinds.

Guarantee: the chain of a method is composed once, at start-up; a call costs one object and one coroutine per interceptor.
A handler may be a coroutine function (streams write by `context.write`) or an async generator; both end up as one
coroutine, a generator is closed before it returns, and each of its messages is bounded by the write time-out.
Limit: plain functions are refused at start-up, since grpc.aio would run them in a pool of threads.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable
from contextlib import aclosing
from functools import partial
from typing import Any

import grpc

from purveyor_server.rpc.calls import Call
from purveyor_server.rpc.methods import Method

Proceed = Callable[[Call], Awaitable[Any]]
Around = Callable[[Call, Proceed], Awaitable[Any]]
Decode = Callable[[bytes], Any]

_ATTRIBUTES = {
    (False, False): "unary_unary",
    (False, True): "unary_stream",
    (True, False): "stream_unary",
    (True, True): "stream_stream",
}
_MAKERS: dict[tuple[bool, bool], Callable[..., grpc.RpcMethodHandler[Any, Any]]] = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}


def compose(arounds: Iterable[Around], last: Proceed) -> Proceed:
    """One coroutine function out of the interceptors, outermost first, and the handler."""
    proceed = last
    for around in reversed(tuple(arounds)):
        proceed = partial(around, proceed=proceed)  # type: ignore[call-arg] # every around names it so
    return proceed


def wrap(
    handler: grpc.RpcMethodHandler[Any, Any],
    method: Method,
    arounds: Iterable[Around],
    write_seconds: float,
    decode: Decode | None = None,
) -> grpc.RpcMethodHandler[Any, Any]:
    """`handler` inside `arounds`. Raises TypeError when it is not asynchronous. `decode` replaces its deserializer."""
    kind = (bool(handler.request_streaming), bool(handler.response_streaming))
    proceed = compose(arounds, handling(getattr(handler, _ATTRIBUTES[kind])))

    async def serve(request: Any, context: Any) -> Any:
        return await proceed(Call(method, context, request, write_seconds))

    return _MAKERS[kind](
        serve,
        request_deserializer=decode or handler.request_deserializer,
        response_serializer=encoded(handler.response_serializer),
    )


def encoded(serialize: Callable[[Any], bytes] | None) -> Callable[[Any], bytes] | None:
    """`serialize`, for messages; what a handler gives as bytes is sent as it is."""
    return None if serialize is None else lambda answer: answer if type(answer) is bytes else serialize(answer)


def handling(behaviour: Callable[..., Any]) -> Proceed:
    """A handler in one of its forms as a coroutine function of the call."""
    target = _unwrapped(behaviour)
    if inspect.isasyncgenfunction(target):
        return partial(_generated, behaviour)
    if inspect.iscoroutinefunction(target):
        return partial(_awaited, behaviour)
    raise TypeError(f"{behaviour!r} is not asynchronous")


async def _awaited(behaviour: Callable[..., Awaitable[Any]], call: Call) -> Any:
    return await behaviour(call.request, call.context)


async def _generated(behaviour: Callable[..., Any], call: Call) -> None:
    async with aclosing(behaviour(call.request, call.context)) as messages:
        async for message in messages:
            await call.write(message)


def _unwrapped(behaviour: Callable[..., Any]) -> Callable[..., Any]:
    while isinstance(behaviour, partial):
        behaviour = behaviour.func
    if inspect.isroutine(behaviour):
        return behaviour
    return type(behaviour).__call__
