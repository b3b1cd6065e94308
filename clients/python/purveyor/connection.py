"""One channel to the broker, and the rules by which a call is sent again.

Guarantee: a call that fails with UNAVAILABLE (OUTCOME_UNKNOWN included), or that the transport lost, is sent again with the
same bytes, hence the same request id: four times by the channel (service_config.json, the contract's own), then by this
module until `retry_for` seconds or the call's own time are over, whichever is first. Everything else is raised at once.
Limit: a call whose time is over may have been accepted all the same; its error carries the request id to ask again with.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from importlib.resources import files
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import grpc
import grpc.aio

from purveyor.channels import Channels
from purveyor.errors import TransportReason
from purveyor.failures import client_closed, connection_lost, from_rpc
from purveyor.v1.broker_service_pb2_grpc import BrokerServiceStub

if TYPE_CHECKING:
    from collections.abc import Sequence

    from purveyor.errors import PurveyorError
    from purveyor.tls import Tls
    from purveyor.tokens import TokenSource

Request = TypeVar("Request")
Response = TypeVar("Response")

KEEPALIVE_MILLISECONDS = 60_000  # the server permits 20 s; equal values trip on jitter
KEEPALIVE_TIMEOUT_MILLISECONDS = 20_000
RECONNECT_FIRST_MILLISECONDS = 100
RECONNECT_CEILING_MILLISECONDS = 2_000
MAX_RESENDS = 64
MAX_CALL_SECONDS = 90_000_000.0  # gRPC takes a much longer one for a deadline that is over (measured: 1e10 s)
RECEIVE_BYTES = 16 << 20  # an answer; a page that is larger is asked for in parts, see `pages`
PASSING = frozenset({TransportReason.UNREACHABLE, TransportReason.CONNECTION_LOST})


class Backoff(NamedTuple):
    """Delays in seconds: `first` * 2 ** attempt, never above `ceiling`, half of it random."""

    first: float = 0.1
    ceiling: float = 3.0

    def delay(self, attempt: int, least: float | None = None) -> float:
        """Seconds to wait after failed attempt number `attempt` (0 is the first); `least` is what the server asked for."""
        step = min(self.ceiling, self.first * 2.0 ** min(attempt, 16))
        return max(least or 0.0, step / 2) + random.random() * step / 2  # noqa: S311 - jitter, not a secret


class Limits(NamedTuple):
    """In seconds. `call`: a unary call, its repetitions included, `wait` on top. `retry`: how long to go on sending again.
    `outage`: how long a watch goes on without hearing from the server. `heartbeat`: how long its stream may be silent."""

    call: float = 30.0
    retry: float = 15.0
    outage: float = 300.0
    heartbeat: float = 15.0


class Connection:
    """A channel with its retry rules. Make it inside the event loop that uses it; `close()` ends it."""

    def __init__(self, address: str, limits: Limits, tls: Tls | None = None, token: TokenSource | None = None) -> None:
        self.address = address
        self.limits = limits
        self.backoff = Backoff()
        self.closed = False
        self._channels = Channels(address, tls, channel_options(), token)
        self._stub_of = self._channels.current()
        self._stub = BrokerServiceStub(self._stub_of)

    @property
    def channel(self) -> grpc.aio.Channel:
        """For a call that begins now; another one once the files of TLS have changed."""
        return self._channels.current()

    @property
    def stub(self) -> BrokerServiceStub:
        """The same for calls of BrokerService."""
        channel = self._channels.current()
        if channel is not self._stub_of:
            self._stub_of, self._stub = channel, BrokerServiceStub(channel)
        return self._stub

    @property
    def renewals(self) -> int:
        """How often the files of TLS, or of the token, have changed."""
        return self._channels.renewals

    def has_newer_files(self, failure: PurveyorError, renewals: int) -> bool:
        """Whether a call that began at `renewals` failed for want of a good certificate or token, and there are other files now."""
        wants = failure.code == "UNAUTHENTICATED" or failure.transport_reason == TransportReason.TLS_FAILED
        return wants and self._channels.newer_than(renewals)

    async def close(self) -> None:
        """Close the channel; calls in flight end with CLIENT_CLOSED."""
        self.closed = True
        await self._channels.close()

    async def call(
        self,
        method: grpc.aio.UnaryUnaryMultiCallable[Request, Response],
        request: Request,
        *,
        wait: float = 0.0,
        request_id: str = "",
    ) -> Response:
        """Call once and, where that is safe, again. Raises PurveyorError."""
        clock = asyncio.get_running_loop().time
        start = clock()
        end = start + min(self.limits.call + wait, MAX_CALL_SECONDS)
        give_up = min(end, start + self.limits.retry + wait)
        for attempt in itertools.count():
            if self.closed:
                raise client_closed(self.address, request_id)
            try:
                return await method(request, timeout=max(end - clock(), 0.001))
            except asyncio.CancelledError:
                self.tell_closing_from_cancelling(request_id)
                raise
            except grpc.aio.AioRpcError as error:
                failure = from_rpc(error, self.address, request_id)
                delay = self.backoff.delay(attempt, failure.retry_after)
                if not is_passing(failure) or attempt == MAX_RESENDS or clock() + delay > give_up:
                    raise failure from error
            await asyncio.sleep(delay)
        raise AssertionError("unreachable: the loop above has no end of its own")

    def tell_closing_from_cancelling(self, request_id: str = "") -> None:
        """Raise CLIENT_CLOSED, or CONNECTION_LOST for a channel that was renewed long ago, where a CancelledError comes
        from gRPC, which ends the calls of a closed channel so, and not from somebody who cancelled this task."""
        task = asyncio.current_task()
        if task and task.cancelling():
            return
        if self.closed:
            raise client_closed(self.address, request_id) from None
        if self._channels.dropped:
            raise connection_lost(self.address, request_id) from None


def is_passing(failure: PurveyorError) -> bool:
    """Whether the same request can succeed without anybody changing anything: the server, or the way to it, was away."""
    if failure.transport_reason:
        return failure.transport_reason in PASSING
    return failure.code == "UNAVAILABLE"


def channel_options() -> Sequence[tuple[str, str | int]]:
    """Options of the channel: the contract's service config, keepalive while calls are open, quick reconnection."""
    return (
        ("grpc.service_config", service_config()),
        ("grpc.enable_retries", 1),
        ("grpc.keepalive_time_ms", KEEPALIVE_MILLISECONDS),
        ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MILLISECONDS),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.initial_reconnect_backoff_ms", RECONNECT_FIRST_MILLISECONDS),
        ("grpc.max_reconnect_backoff_ms", RECONNECT_CEILING_MILLISECONDS),
        ("grpc.max_receive_message_length", RECEIVE_BYTES),
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.primary_user_agent", "purveyor-python"),
    )


def service_config() -> str:
    """The retry policy of the contract, as packaged beside the stubs."""
    return files("purveyor.v1").joinpath("service_config.json").read_text(encoding="utf-8")
