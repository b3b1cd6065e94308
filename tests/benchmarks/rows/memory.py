"""Memory that one idle watch costs the server, of an operation and of events: the growth of its resident memory over 2,000 streams more.

Guarantee: the streams were answered (each got its first message) and are idle; 200 more were opened before the first
look, so that what a first stream costs once is not counted. Each round has fresh processes.
Limit: resident memory grows by pages and by the allocator's arenas; over 2,000 streams that is below a twentieth.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import psutil

from tests.benchmarks import house
from tests.benchmarks.processes import ROOT, STOP_SECONDS, Server, SideError, environment
from tests.benchmarks.rows.unary import bare
from tests.benchmarks.runner import Row, Run, Sides
from tests.benchmarks.sides.watcher import EVENTS
from tests.benchmarks.stats import Target

FIRST, MORE = 200, 2000
OPERATIONS = 100
KIB = 1024
MESSAGE_BYTES = 200  # about an Operation


def per_stream(server: Server, names: Sequence[str], run: Run) -> float:
    """KiB that each of MORE streams adds to the server."""
    process = psutil.Process(server.pid)
    command = [sys.executable, "-m", "tests.benchmarks.sides.watcher", server.address, house.TENANTS[0], *names]
    with (
        (run.folder / "watcher.log").open("ab") as log,
        subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, env=environment()
        ) as client,
    ):
        try:
            _open(client, FIRST)
            before = process.memory_info().rss
            _open(client, MORE)
            after = process.memory_info().rss
            client.communicate(timeout=STOP_SECONDS)
        finally:
            client.kill()
    return (after - before) / MORE / KIB


def _open(client: subprocess.Popen[str], count: int) -> None:
    assert client.stdin is not None
    assert client.stdout is not None
    client.stdin.write(f"{count}\n")
    client.stdin.flush()
    if client.stdout.readline().strip() != "open":
        raise SideError(f"{count} streams could not be opened: see watcher.log")


def idle(run: Run, number: int) -> float:
    """The yardstick."""
    with bare(run.folder, MESSAGE_BYTES) as server:
        return per_stream(server, (), run)


@contextmanager
def open_memory(run: Run) -> Iterator[Sides]:
    """See the module."""

    def ours(number: int) -> float:
        with house.broker(run.folder / f"round-{number}") as server, house.calling(server) as stub:
            made = house.provision(stub, house.TENANTS[:1] * OPERATIONS)
            return per_stream(server, [answer.operation.operation_id for answer in made], run)

    yield Sides(ours, partial(idle, run))


@contextmanager
def open_memory_events(run: Run) -> Iterator[Sides]:
    """Watches of all events of a tenant that has instances."""

    def ours(number: int) -> float:
        with house.broker(run.folder / f"round-{number}") as server, house.calling(server) as stub:
            house.provision(stub, house.TENANTS[:1] * OPERATIONS)
            return per_stream(server, (EVENTS,), run)

    yield Sides(ours, partial(idle, run))


ROWS = (
    Row(
        name="memory",
        title=f"memory per idle watch of an operation, {MORE} more of them",
        unit="KiB",
        yardstick="an idle stream of a bare grpc.aio server",
        target=Target(40, 26, better="lower", judged="value"),
        open=open_memory,
    ),
    Row(
        name="memory_events",
        title=f"memory per idle watch of events, {MORE} more of them",
        unit="KiB",
        yardstick="an idle stream of a bare grpc.aio server",
        target=Target(40, 26, better="lower", judged="value"),
        open=open_memory_events,
    ),
)
