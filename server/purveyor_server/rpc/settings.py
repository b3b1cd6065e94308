"""The numbers of the gRPC face, each with its unit and the reason for its default.

Guarantee: every bound of the face (sizes, times, counts) is here and nowhere else.
Source of the defaults: measurements with grpcio 1.85.1 on two cores; `docs/operating.md` lists them for operators.
"""

from __future__ import annotations

import msgspec

KIB = 1024
MIB = 1024 * KIB


class RpcSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Sizes in bytes, times in seconds, the rest are counts."""

    # Sizes. A request above `request_bytes` is refused with a reason; the core refuses above `receive_bytes` without one.
    request_bytes: int = 1 * MIB
    receive_bytes: int = 4 * MIB
    send_bytes: int = 4 * MIB
    # Of a request, as HTTP/2 counts them (32 bytes more for each pair). The core refuses above without a reason; equal soft and
    # hard bounds, or it would refuse by chance between the two.
    metadata_bytes: int = 16 * KIB
    # Transport. The interval between a client's pings lies well below the 60 s that clients use, or jitter trips it.
    keepalive_seconds: float = 60.0
    keepalive_timeout_seconds: float = 20.0
    min_ping_interval_seconds: float = 20.0
    handshake_seconds: float = (
        20.0  # a connection that says nothing holds a descriptor no longer than this; the core's own is 120
    )
    max_pending_requests: int = 20_000
    max_pending_requests_hard: int = 40_000
    # Times.
    call_seconds: float = 30.0
    wait_seconds: float = 300.0
    write_seconds: float = 20.0
    abort_seconds: float = 5.0
    heartbeat_seconds: float = 15.0
    min_heartbeat_seconds: float = 1.0
    max_heartbeat_seconds: float = 60.0
    health_interval_seconds: float = 2.0
    health_timeout_seconds: float = 2.0
    stop_seconds: float = 2.0
    retry_seconds: float = 1.0
    # Counts, in the whole process and for one caller.
    calls: int = 1_024
    calls_per_caller: int = 512
    waits: int = 10_000
    waits_per_caller: int = 5_000
    streams: int = 20_000
    streams_per_caller: int = 10_000
    # At most so many tasks take in calls of each unary method, beside the one that grpc.aio has for all; 0 leaves it alone.
    acceptors: int = 24
    # Reads, and writes, that are worked on at once; the others wait for their principal's turn. Enough for commits in groups.
    working: int = 64
    # A refusal for too many calls is told at a bounded pace, so that a caller without pauses has some: so many a second to one
    # caller, each within so many seconds; so many refusals wait at once in the process.
    refusals_per_second: float = 50.0
    hold_seconds: float = 0.5
    held: int = 4_096
    # Calls per second of one principal, and how many at once; 0 is no limit. `principals` bounds what is kept of them.
    reads_per_second: float = 200.0
    reads_burst: float = 400.0
    writes_per_second: float = 50.0
    writes_burst: float = 100.0
    principals: int = 10_000
    # Logs: the level of the line of a successful read, and of every other successful call.
    read_level: str = "debug"
    level: str = "info"
    reflection: bool = True
    # Who calls: whether reflection answers strangers, and how often the callers of open streams are judged again.
    reflection_open: bool = True
    recheck_seconds: float = 20.0


def transport_options(settings: RpcSettings) -> list[tuple[str, int]]:
    """Channel arguments of `grpc.aio.server`."""
    return [
        ("grpc.so_reuseport", 0),
        ("grpc.keepalive_time_ms", int(settings.keepalive_seconds * 1000)),
        ("grpc.keepalive_timeout_ms", int(settings.keepalive_timeout_seconds * 1000)),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", int(settings.min_ping_interval_seconds * 1000)),
        ("grpc.server_handshake_timeout_ms", int(settings.handshake_seconds * 1000)),
        ("grpc.server.max_pending_requests", settings.max_pending_requests),
        ("grpc.server.max_pending_requests_hard_limit", settings.max_pending_requests_hard),
        ("grpc.max_receive_message_length", settings.receive_bytes),
        ("grpc.max_send_message_length", settings.send_bytes),
        ("grpc.max_metadata_size", settings.metadata_bytes),
        ("grpc.absolute_max_metadata_size", settings.metadata_bytes),
    ]
