"""HTTP for supervisors: /metrics, /healthz (the process answers), /readyz (the broker serves).

Guarantee: on loopback or a unix socket alone; a handful of requests at once, short ones; nothing here changes anything,
and no answer names a tenant.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Iterator

import structlog
import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from purveyor_server.domain.errors import PurveyorError
from purveyor_server.kit.listeners import Address, ListenError, SocketPlace, UnixSocket, parse_address, probe_port
from purveyor_server.kit.tasks import TaskGroup

_log = structlog.get_logger(__name__)
AT_ONCE = 32  # requests; more are refused with 503
KEEP_ALIVE_SECONDS = 5
STOP_SECONDS = 5.0
BACKLOG = 64


class _Server(uvicorn.Server):
    """Without signal handlers: those of the process are the broker's."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals alone."""
        yield


class MonitorServer:
    """`metrics` gives the exposition, `serving` whether callers are served."""

    def __init__(self, listen: str, metrics: Callable[[], Awaitable[bytes]], serving: Callable[[], bool]) -> None:
        self._listen = listen
        self._metrics = metrics
        self._serving = serving
        self._tasks = TaskGroup("monitor")
        self._place: SocketPlace | None = None
        self._server: _Server | None = None
        self._serving_task: asyncio.Task[None] | None = None
        self.address = ""

    async def start(self) -> str:
        """Listen and serve; returns the bound address. Raises ListenError."""
        bound = self._bind(parse_address(self._listen))
        config = uvicorn.Config(
            self._app(),
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
            limit_concurrency=AT_ONCE,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=int(STOP_SECONDS),
        )
        self._server = _Server(config)
        self._serving_task = self._tasks.start("http", self._server.serve([bound]))
        _log.info("serving metrics", address=self.address)
        return self.address

    def _bind(self, address: Address) -> socket.socket:
        if isinstance(address, UnixSocket):
            self._place = SocketPlace(address)
            self._place.claim()
            listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            where: object = str(address.path)
        else:
            probe_port(address)
            family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
            listening = socket.socket(family, socket.SOCK_STREAM)
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            where = (address.host, address.port)
        try:
            listening.bind(where)  # type: ignore[arg-type] # a path or a pair, as the family has it
            listening.listen(BACKLOG)
        except OSError as error:
            listening.close()
            raise ListenError(address.target, "the address could not be bound") from error
        listening.setblocking(False)
        self.address = address.target if isinstance(address, UnixSocket) else address.bound(listening.getsockname()[1])
        return listening

    def _app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/metrics", self._show_metrics),
                Route("/healthz", self._show_health),
                Route("/readyz", self._show_readiness),
            ]
        )

    async def _show_metrics(self, _request: Request) -> Response:
        try:
            return Response(await self._metrics(), media_type=CONTENT_TYPE_LATEST)
        except PurveyorError as error:
            return PlainTextResponse(f"{error.reason}\n", status_code=503)

    async def _show_health(self, _request: Request) -> Response:
        return JSONResponse({"status": "alive"})

    async def _show_readiness(self, _request: Request) -> Response:
        serving = self._serving()
        return JSONResponse({"status": "serving" if serving else "not serving"}, status_code=200 if serving else 503)

    async def stop(self) -> None:
        """Stop within about STOP_SECONDS. Idempotent."""
        server, self._server = self._server, None
        if server is not None:
            server.should_exit = True
            assert self._serving_task is not None
            await asyncio.wait({self._serving_task}, timeout=STOP_SECONDS)
            await self._tasks.close(STOP_SECONDS)
        if self._place is not None:
            self._place.release()
            self._place = None
