"""From starting the process to its first answered call.

Guarantee: both sides are started as `python -m ...`, by the same parent, and asked over a unix socket as soon as it takes
connections; the bytecode of both sides is compiled before, whatever the environment says of writing it. The broker is the command that a user starts, with the PostgreSQL
provider, on a data folder that exists; its backend is not there, which a start does not wait for.
Limit: the client's own time to connect and call, a few milliseconds, is part of both.
"""

from __future__ import annotations

import compileall
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import grpc
from google.protobuf.wrappers_pb2 import BytesValue

from purveyor.v1 import broker_service_pb2 as pb
from purveyor.v1 import broker_service_pb2_grpc
from tests.benchmarks.house import CALL_SECONDS
from tests.benchmarks.processes import ROOT, launch, socket_path
from tests.benchmarks.runner import Row, Run, Sides
from tests.benchmarks.sides.bare import SERVICE as BARE
from tests.benchmarks.stats import Target
from tests.unit.app_process import Site

COMPILED = ("server/purveyor_server", "clients/python/purveyor", "tests/benchmarks/sides")
Ask = Callable[[grpc.Channel], Any]


def first_answer(command: Sequence[str], path: str, run: Run, ask: Ask) -> float:
    """Milliseconds from the start to the answer; the process is stopped afterwards."""
    started = time.perf_counter()
    server = launch(command, path, run.folder / "start.log")
    try:
        server.listening()
        with grpc.insecure_channel(server.address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
            ask(channel)
            passed = time.perf_counter() - started
        server.stop()
    finally:
        server.kill()
    return passed * 1000


def ask_catalog(channel: grpc.Channel) -> Any:
    """GetCatalog."""
    stub: Any = broker_service_pb2_grpc.BrokerServiceStub  # typed for aio, made for both
    return stub(channel).GetCatalog(pb.GetCatalogRequest(tenant="tenant"), timeout=CALL_SECONDS)


def ask_bare(channel: grpc.Channel) -> Any:
    """One answer of the yardstick."""
    call = channel.unary_unary(
        f"/{BARE}/Unary", request_serializer=BytesValue.SerializeToString, response_deserializer=BytesValue.FromString
    )
    return call(BytesValue(value=b"x" * 60), timeout=CALL_SECONDS)


@contextmanager
def open_start(run: Run) -> Iterator[Sides]:
    """See the module."""
    for folder in COMPILED:
        compileall.compile_dir(ROOT / folder, quiet=1)
    with socket_path() as path:
        site = Site(run.folder, f'[listen]\naddresses = ["unix:{path}"]\n')

        def ours(number: int) -> float:
            command = ("purveyor_server", "serve", "--config", str(site.config))
            return first_answer(command, path, run, ask_catalog)

        def theirs(number: int) -> float:
            command = ("tests.benchmarks.sides.bare", f"unix:{path}", "60")
            return first_answer(command, path, run, ask_bare)

        run.tell(f"  first starts, not counted: {ours(0):.0f} and {theirs(0):.0f} ms")
        yield Sides(ours, theirs)


ROWS = (
    Row(
        name="start",
        title="from the start of the process to its first answer",
        unit="ms",
        yardstick="a bare grpc.aio server",
        target=Target(4, 2.5, better="lower"),
        open=open_start,
    ),
)
