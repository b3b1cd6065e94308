"""A way to the server that outlives the broker: what a pooler, a balancer or a half-open connection does.

Guarantee: when the broker's end closes, the server's end stays open until `release`: the server goes on with what it was
told and does not notice that nobody listens. `close` ends everything.
"""

from __future__ import annotations

import asyncio

CHUNK_BYTES = 64 * 1024
CONNECT_SECONDS = 10.0


class Proxy:
    """Forwards connections to a port of this machine."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._release = asyncio.Event()

    async def start(self) -> int:
        """Listen on loopback; the port."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    def release(self) -> None:
        """Let go of the server's ends whose broker is gone; later ones linger again."""
        self._release.set()
        self._release = asyncio.Event()

    async def close(self) -> None:
        """End everything."""
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(CONNECT_SECONDS):
            upstream, server = await asyncio.open_connection("127.0.0.1", self._target)
        back = asyncio.ensure_future(_pump(upstream, writer))
        try:
            await _pump(reader, server)
            if not back.done():
                await self._release.wait()
        finally:
            back.cancel()
            server.close()
            writer.close()
            await asyncio.gather(back, return_exceptions=True)


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    """Forward until either end is gone; what the source says after the sink went away is dropped."""
    try:
        while data := await source.read(CHUNK_BYTES):
            sink.write(data)
            await sink.drain()
    except ConnectionError:
        return
