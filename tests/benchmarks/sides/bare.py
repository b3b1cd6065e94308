"""The yardstick: a grpc.aio server without anything, answering messages of the sizes it is told.

Guarantee: `Unary` parses one message and answers one, `Stream` sends one message and stays open; nothing else runs.
Limit: it is what grpc.aio in Python can do at best, not what gRPC can do.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from typing import Any

import grpc
from google.protobuf.wrappers_pb2 import BytesValue

SERVICE = "bench.Bare"
Handlers = dict[str, Any]


def handlers(answer_bytes: int) -> Handlers:
    """The two methods; each answers a message of `answer_bytes` on the wire."""
    answer = sized(answer_bytes)

    async def unary(_request: BytesValue, _context: Any) -> BytesValue:
        return answer

    async def stream(_request: BytesValue, _context: Any) -> AsyncIterator[BytesValue]:
        yield answer
        await asyncio.Event().wait()

    codec: dict[str, Any] = {
        "request_deserializer": BytesValue.FromString,
        "response_serializer": BytesValue.SerializeToString,
    }
    return {
        "Unary": grpc.unary_unary_rpc_method_handler(unary, **codec),
        "Stream": grpc.unary_stream_rpc_method_handler(stream, **codec),
    }


def sized(size: int) -> BytesValue:
    """A message of `size` bytes on the wire, or one byte off where no such message exists."""
    message = BytesValue(value=b"x" * max(0, size - 2))
    while message.ByteSize() > max(size, 0) and message.value:
        message.value = message.value[:-1]
    return message


async def serve(address: str, answer_bytes: int) -> None:
    """Serve until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers(answer_bytes)),))
    server.add_insecure_port(address)
    await server.start()
    await stop.wait()
    await server.stop(0)


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], int(sys.argv[2])))
