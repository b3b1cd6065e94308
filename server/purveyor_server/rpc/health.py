"""Health that tells the truth: SERVING only while the store answers.

Guarantee: NOT_SERVING from the start until the store answered a first time, within one interval and time-out after it stops
answering, and for good once draining begins.
Limit: asks the store, not the backends of providers: those being down parks operations and is no reason to send callers away.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import structlog
from grpc_health.v1 import health_pb2
from grpc_health.v1.health import aio

from purveyor_server.rpc.settings import RpcSettings

_log = structlog.get_logger(__name__)
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class HealthService(aio.HealthServicer):  # type: ignore[misc] # grpc_health has no types
    """grpc.health.v1 with its newest method, which the package leaves out."""

    async def List(self, request: health_pb2.HealthListRequest, context: Any) -> health_pb2.HealthListResponse:  # noqa: ARG002 - grpc's signature
        """Every service with its status."""
        statuses = {name: health_pb2.HealthCheckResponse(status=status) for name, status in self._server_status.items()}
        return health_pb2.HealthListResponse(statuses=statuses)


class Health:
    """The health service and the loop that feeds it. `ping` raises unless the store answers."""

    def __init__(self, ping: Callable[[], Awaitable[None]], services: Sequence[str], settings: RpcSettings) -> None:
        self._ping = ping
        self._services = ("", *services)
        self._interval = settings.health_interval_seconds
        self._timeout = settings.health_timeout_seconds
        self.serving = False
        self.servicer = HealthService()

    async def prepare(self) -> None:
        """Say NOT_SERVING for every service; before the server listens."""
        for service in self._services:
            await self.servicer.set(service, NOT_SERVING)

    async def run(self) -> None:
        """Ask for ever."""
        while True:
            await self.check()
            await asyncio.sleep(self._interval)

    async def check(self) -> None:
        """Ask once, and tell when the answer changed."""
        serving = await self._answers()
        if serving is self.serving:
            return
        self.serving = serving
        _log.info("health changed", serving=serving)
        await self._tell(SERVING if serving else NOT_SERVING)

    async def _answers(self) -> bool:
        try:
            async with asyncio.timeout(self._timeout):
                await self._ping()
        except Exception as error:  # noqa: BLE001 - whatever the reason, the store does not answer
            if self.serving:
                _log.warning("store does not answer", error=type(error).__name__)
            return False
        return True

    async def _tell(self, status: health_pb2.HealthCheckResponse.ServingStatus.ValueType) -> None:
        try:
            # A watcher that does not read holds the servicer's lock while it is written to.
            async with asyncio.timeout(self._timeout):
                for service in self._services:
                    await self.servicer.set(service, status)
        except TimeoutError:
            _log.warning("health could not be told")
            self.serving = not self.serving

    async def drain(self) -> None:
        """NOT_SERVING for good."""
        try:
            async with asyncio.timeout(self._timeout):
                await self.servicer.enter_graceful_shutdown()
        except TimeoutError:
            _log.warning("health could not be told")
