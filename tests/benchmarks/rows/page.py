"""A page of 100 out of 1,000,000 instances: the median over pages anywhere in the list, through a real broker.

The store is made once per run: a million copies of one finished instance with 1 KiB of parameters, shared out to 100 tenants,
their operations past retention. Eight of them are walked from the first page to the last, which gives the tokens; then each
round asks for the first, the middle and the last page of one of them and for pages at random, one call at a time, through the
broker and then, beside it, of the store alone (`page_store`).

Guarantee: the walk finds every instance of its tenant exactly once and in order; every timed page has 100 instances.
Limit: one caller; the answers are not decoded by the client. The yardstick is a bare answer of the same size, to the same client.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import grpc
from google.protobuf import duration_pb2

from purveyor.v1 import broker_service_pb2 as pb
from purveyor.v1.operation_pb2 import Operation
from purveyor_server.store.contract import Page, Scope
from purveyor_server.store.sqlite.readers import Readers
from purveyor_server.store.sqlite.reads import SqliteReads
from purveyor_server.store.sqlite.settings import SqliteSettings
from tests.benchmarks import house
from tests.benchmarks.populate import copy_records
from tests.benchmarks.processes import Server, SideError
from tests.benchmarks.rows.unary import bare
from tests.benchmarks.runner import Beside, Row, Run, Sides
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


class Pages(NamedTuple):
    """The pages of one tenant: a request for each, and the key behind which the store reads it."""

    tenant: str
    requests: list[bytes]
    keys: list[str]


def walk(stub: Any, tenant: str, wanted: int) -> Pages:
    """Every page of a tenant that has `wanted` instances. Raises SideError unless they are all there."""
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
    return Pages(tenant, requests, ["", *seen[PAGE - 1 :: PAGE]][: len(requests)])


def chosen(pages: list[Pages], number: int) -> list[tuple[Pages, int]]:
    """First, middle and last page of a tenant, then pages at random; others in every round."""
    chance, own = random.Random(number), pages[number % len(pages)]
    count = len(own.requests)
    every = [(one, index) for one in pages for index in range(len(one.requests))]
    return [(own, 0), (own, count // 2), (own, count - 1), *chance.choices(every, k=AT_RANDOM)]


async def read(path: Path, wanted: list[tuple[Pages, int]]) -> float:
    """The store alone: the median in milliseconds of reading and decoding the same pages, as ListInstances does."""
    readers = Readers(path, SqliteSettings())
    await readers.open()
    try:
        reads, times = SqliteReads(readers), []
        for pages, index in wanted:
            began = time.perf_counter()
            page = Page(PAGE + 1, pages.keys[index])
            found = await reads.instances(Scope(frozenset({pages.tenant})), pages.tenant, (), page)
            times.append((time.perf_counter() - began) * 1000)
            if len(found) < PAGE:
                raise SideError(f"the store has {len(found)} instances on a page")
        return median(times)
    finally:
        await readers.close()


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
            pb.ListInstancesRequest.FromString(pages[0].requests[-1]), timeout=house.CALL_SECONDS
        ).ByteSize()
        run.tell(f"  {sum(len(one.requests) for one in pages)} pages walked; a page has {answer_bytes} bytes")
        least = answer_bytes * 95 // 100

        def ours(number: int) -> tuple[float, float]:
            wanted = chosen(pages, number)
            requests = [one.requests[index] for one, index in wanted]
            whole = timed(server, f"{house.SERVICE}/ListInstances", requests, least)
            return whole, asyncio.run(read(folder / "data" / "purveyor.db", wanted))

        def theirs(number: int) -> tuple[float | None, ...]:
            with bare(run.folder, answer_bytes) as yardstick:
                body = sized(len(pages[0].requests[-1])).SerializeToString()
                return timed(yardstick, f"/{BARE}/Unary", [body] * AT_RANDOM, least), None

        yield Sides(ours, theirs)


ROWS = (
    Row(
        name="page",
        title=f"page of {PAGE} out of {INSTANCES:,} instances, median over pages anywhere",
        unit="ms",
        yardstick="a bare grpc.aio answer of the same size",
        target=Target(2, 1, better="lower", judged="value"),
        open=open_page,
        beside=(Beside("page_store", "ms", Target(2, 1, better="lower", judged="value")),),
    ),
)
