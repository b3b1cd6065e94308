"""What one tenant that floods the broker does to the others: their 99th percentile with the flood, against that without.

Every tenant has a static token, so that each is a principal of its own; the limits are the defaults. Eight tenants read ten times
and order twice a second each, an order until its instance is there (a provider whose step is done at once): calls, engine and
store are in it. The flood is one more tenant that sends Provision and GetInstance from 256 connections each, one after the
other without a pause, whatever it is answered. Both sides have a fresh broker; a round with a failed call of the others fails.

Limit: broker, flood and the others share one machine. The flood runs at the lowest priority, else its own processor time would be
measured instead of what the broker does with it; it takes all that is left all the same.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import quantiles
from typing import Any

import grpc

from purveyor.v1 import admin_service_pb2 as pb
from purveyor.v1 import admin_service_pb2_grpc, options_pb2
from purveyor.v1 import broker_service_pb2 as broker_pb
from tests.benchmarks import house
from tests.benchmarks.load import frame, program
from tests.benchmarks.processes import Server
from tests.benchmarks.runner import Beside, Row, Run, Sides
from tests.benchmarks.stats import Target
from tests.benchmarks.talk import talking

OTHERS = house.TENANTS[:8]
FLOODER = house.TENANTS[99]
RATE = 10.0  # reads a second of each of the others
SECONDS = 10.0
CONNECTIONS = 256  # of each of the flood's two kinds of calls
FLOOD_SECONDS = 60  # longer than a round: it is ended
FLOODED_SECONDS = 5.0  # before the clock starts: its bursts are used up


class UnfairError(Exception):
    """The others were refused or failed."""


def make_tokens(folder: Path) -> dict[str, str]:
    """A static token for each tenant, made on the admin listener."""
    roles = [options_pb2.ROLE_VIEWER, options_pb2.ROLE_CONSUMER]
    with grpc.insecure_channel(f"unix:{folder / 'data' / 'admin.sock'}") as channel:
        grpc.channel_ready_future(channel).result(house.CALL_SECONDS)
        made: Any = admin_service_pb2_grpc.AdminServiceStub  # typed for aio, made for both
        stub = made(channel)
        return {
            tenant: stub.CreateToken(
                pb.CreateTokenRequest(name=tenant, roles=roles, tenants=[tenant], reason="a benchmark"),
                timeout=house.CALL_SECONDS,
            ).text
            for tenant in (*OTHERS, FLOODER)
        }


@contextmanager
def flooding(server: Server, folder: Path, token: str) -> Iterator[None]:
    """The flood, until the end of the context."""
    bodies = {
        "Provision": house.provision_request(FLOODER).SerializeToString(),
        "GetInstance": broker_pb.GetInstanceRequest(tenant=FLOODER, instance_id="none").SerializeToString(),
    }
    processes: list[subprocess.Popen[bytes]] = []
    with ExitStack() as stack:
        for name, body in bodies.items():
            (folder / name).write_bytes(frame(body))
            log = stack.enter_context((folder / f"{name}.log").open("wb"))
            process = subprocess.Popen(
                [
                    "nice", "-n", "19", program(), f"--duration={FLOOD_SECONDS}", f"--clients={CONNECTIONS}",
                    "--max-concurrent-streams=1", f"--data={folder / name}", "--header=content-type: application/grpc",
                    "--header=te: trailers", f"--header=authorization: Bearer {token}", f"--base-uri=unix:{server.path}",
                    f"http://localhost{house.SERVICE}/{name}",
                ],
                stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip
            stack.callback(process.wait)
            stack.callback(process.kill)
            processes.append(process)
        yield
        if any(process.poll() is not None for process in processes):
            raise UnfairError("the flood ended before the others did")


def p99(times: list[float]) -> float:
    """In milliseconds."""
    return quantiles(times, n=100)[98]


def measured(run: Run, folder: Path, *, flood: bool, settings: str = house.SETTINGS) -> tuple[float, float]:
    """The others' p99 of reads and of orders, in milliseconds."""
    with house.broker(folder, "quick", settings) as server:
        tokens = make_tokens(folder)
        (folder / "tokens.json").write_text(json.dumps({tenant: tokens[tenant] for tenant in OTHERS}))
        with ExitStack() as stack:
            others = stack.enter_context(
                talking("polite", folder / "polite.log", server.address, str(folder / "tokens.json"), str(RATE))
            )
            others.answer()
            if flood:
                stack.enter_context(flooding(server, folder, tokens[FLOODER]))
            others.tell(f"go {FLOODED_SECONDS}")
            others.answer()
            before = server.cpu_seconds
            others.tell(f"go {SECONDS}")
            told = others.answer()
            busy = (server.cpu_seconds - before) / SECONDS
    if told["failures"]:
        raise UnfairError(f"of {len(OTHERS)} tenants that call now and then some were failed: {told['failures']}")
    reads, writes = p99(told["reads"]), p99(told["writes"])
    run.tell(
        f"    {'with' if flood else 'without'} the flood: reads {quantiles(told['reads'], n=100)[49]:.1f} ms, p99 {reads:.1f};"
        f" orders {quantiles(told['writes'], n=100)[49]:.1f} ms, p99 {writes:.1f}; {busy:.2f} processors"
    )
    return reads, writes


@contextmanager
def open_fairness(run: Run) -> Iterator[Sides]:
    """See the module."""
    yield Sides(
        lambda number: measured(run, run.folder / f"flood-{number}", flood=True),
        lambda number: measured(run, run.folder / f"calm-{number}", flood=False),
    )


ROWS = (
    Row(
        name="fairness",
        title="p99 of other tenants' reads while one floods",
        unit="ms",
        yardstick="the same without the flood",
        target=Target(3.0, 1.5, better="lower"),
        open=open_fairness,
        beside=(Beside("fairness_orders", "ms", Target(3.0, 1.5, better="lower")),),
    ),
)
