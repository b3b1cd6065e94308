"""A page of 100 out of 1,000,000 instances: the median over pages anywhere in the list, through a real broker.

The store is made once per run: a million copies of one finished instance with 1 KiB of parameters, shared out to 100 tenants,
their operations past retention. Eight of them are walked from the first page to the last, which gives the tokens; then each
round asks for the first, the middle and the last page of one of them and for pages at random, one call at a time.

Guarantee: the walk finds every instance of its tenant exactly once and in order; every timed page has 100 instances.
Limit: one caller; the answers are not decoded by the client. The yardstick is a bare answer of the same size, to the same client.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import grpc
from google.protobuf import duration_pb2

from purveyor.v1 import broker_service_pb2 as pb
from purveyor.v1.operation_pb2 import Operation
from tests.benchmarks import house
from tests.benchmarks.populate import copy_records
from tests.benchmarks.processes import Server, SideError
from tests.benchmarks.rows.unary import bare
from tests.benchmarks.runner import Row, Run, Sides
from tests.benchmarks.sides.bare import SERVICE as BARE
from tests.benchmarks.sides.bare import sized
from tests.benchmarks.stats import Target

INSTANCES, PAGE = 1_000_000, 100
WALKED = house.TENANTS[::13]
AT_RANDOM = 200  # pages of a round
WAIT_SECONDS = 20


def make(folder: Path, count: int) -> None:
    """A store with `count` instances in the folder of a broker."""
    tenant = "sample"
    with house.broker(folder, "quick") as server, house.calling(server) as stub:
        made = house.provision(stub, (tenant,))[0]
        wait = pb.WaitOperationRequest(
            tenant=tenant,
            operation_id=made.operation.operation_id,
            timeout=duration_pb2.Duration(seconds=WAIT_SECONDS),
        )
        ended = stub.WaitOperation(wait, timeout=house.CALL_SECONDS)
        if ended.operation.state != Operation.STATE_SUCCEEDED:
            raise SideError(f"the sample was not made: {ended.operation.state}")
    copy_records(folder / "data" / "purveyor.db", tenant, made.instance.instance_id, count, operations=False)


def walk(stub: Any, tenant: str, wanted: int) -> list[bytes]:
    """A request for each page of a tenant that has `wanted` instances. Raises SideError unless they are all there."""
    requests, seen, token = [], [], ""
    while True:
        request = pb.ListInstancesRequest(tenant=tenant, page_size=PAGE, page_token=token)
        requests.append(request.SerializeToString())
        page = stub.ListInstances(request, timeout=house.CALL_SECONDS)
        seen += [instance.uid for instance in page.instances]
        token = page.next_page_token
        if not token:
            break
    if len(seen) != wanted or sorted(set(seen)) != seen:
        raise SideError(
            f"the pages of {tenant} hold {len(seen)} instances, {len(set(seen))} different ones, not {wanted}"
        )
    return requests


def chosen(pages: list[list[bytes]], number: int) -> list[bytes]:
    """First, middle and last page of a tenant, then pages at random; others in every round."""
    chance, own = random.Random(number), pages[number % len(pages)]
    every = [request for requests in pages for request in requests]
    return [own[0], own[len(own) // 2], own[-1], *chance.choices(every, k=AT_RANDOM)]


def timed(server: Server, method: str, requests: list[bytes], least: int) -> float:
    """The median in milliseconds; every answer has at least `least` bytes."""
    times = []
    with grpc.insecure_channel(server.address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        call: Callable[..., bytes] = channel.unary_unary(method)
        call(requests[0], timeout=house.CALL_SECONDS)
        for request in requests:
            began = time.perf_counter()
            answer = call(request, timeout=house.CALL_SECONDS)
            times.append((time.perf_counter() - began) * 1000)
            if len(answer) < least:
                raise SideError(f"a page has {len(answer)} bytes, not {least}")
    return median(times)


@contextmanager
def open_page(run: Run) -> Iterator[Sides]:
    """See the module."""
    folder, began = run.folder / "broker", time.monotonic()
    make(folder, INSTANCES)
    size = (folder / "data" / "purveyor.db").stat().st_size / 1e9
    run.tell(f"  {INSTANCES:,} instances made in {time.monotonic() - began:.0f} s, {size:.1f} GB")
    with house.broker(folder, "quick") as server, house.calling(server) as stub:
        pages = [walk(stub, tenant, INSTANCES // len(house.TENANTS)) for tenant in WALKED]
        answer_bytes = stub.ListInstances(
            pb.ListInstancesRequest.FromString(pages[0][-1]), timeout=house.CALL_SECONDS
        ).ByteSize()
        run.tell(f"  {sum(map(len, pages))} pages walked; a page has {answer_bytes} bytes")
        least = answer_bytes * 95 // 100

        def ours(number: int) -> float:
            return timed(server, f"{house.SERVICE}/ListInstances", chosen(pages, number), least)

        def theirs(number: int) -> float:
            with bare(run.folder, answer_bytes) as yardstick:
                body = sized(len(pages[0][-1])).SerializeToString()
                return timed(yardstick, f"/{BARE}/Unary", [body] * AT_RANDOM, least)

        yield Sides(ours, theirs)


ROWS = (
    Row(
        name="page",
        title=f"page of {PAGE} out of {INSTANCES:,} instances, median over pages anywhere",
        unit="ms",
        yardstick="a bare grpc.aio answer of the same size",
        target=Target(2, 1, better="lower", judged="value"),
        open=open_page,
    ),
)
