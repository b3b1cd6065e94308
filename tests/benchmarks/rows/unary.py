"""Provision and GetInstance, each against a bare answer of the same sizes.

Provision: each round begins with an empty store and a broker of its own; 100 tenants have an instance before the clock
starts; eight of them, others in each round, order at once with eight callers each. Afterwards the broker must list exactly
what it answered. GetInstance: one broker for all rounds, the same callers, one instance of each tenant.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from google.protobuf.message import Message

from purveyor.v1 import broker_service_pb2 as pb
from tests.benchmarks import house, load
from tests.benchmarks.processes import Server, running, socket_path
from tests.benchmarks.runner import Row, Run, Sides
from tests.benchmarks.sides.bare import SERVICE as BARE
from tests.benchmarks.sides.bare import sized
from tests.benchmarks.stats import Target

CALLERS = 64
BODIES = 8  # processes of the load generator, each with the body of one tenant
WARM_UP = 320  # requests before the clock starts, on both sides


def tenants_of(number: int) -> list[str]:
    """The tenants that send in a round."""
    return [house.TENANTS[(number * BODIES + i) % len(house.TENANTS)] for i in range(BODIES)]


def whole(requests: int) -> int:
    """The next number that callers can share."""
    return -(-requests // CALLERS) * CALLERS


@contextmanager
def bare(folder: Path, answer_bytes: int) -> Iterator[Server]:
    """The yardstick with answers of `answer_bytes`."""
    folder.mkdir(parents=True, exist_ok=True)
    with socket_path() as path:
        command = ("tests.benchmarks.sides.bare", f"unix:{path}", str(answer_bytes))
        with running(command, path, folder / "bare.log") as server:
            yield server


def press(server: Server, method: str, bodies: Sequence[bytes], requests: int, answer: int, folder: Path) -> load.Ran:
    """Warm up, then measure; every answer must have about `answer` bytes."""
    warm_up = load.Load(server.path, method, tuple(bodies), CALLERS, WARM_UP)
    load.send(warm_up, folder / "load", load.about(WARM_UP, answer))
    job = load.Load(server.path, method, tuple(bodies), CALLERS, requests)
    return load.run(job, folder / "load", load.about(requests, answer))


def tell(run: Run, side: str, ran: load.Ran) -> None:
    """One line about a side."""
    run.tell(f"    {side}: {ran.rate:.0f}/s, median {ran.median:.1f} ms, p99 {ran.p99:.1f} ms")


class Bare:
    """The yardstick of one row: its requests and answers have the sizes of a sample."""

    def __init__(self, run: Run, request: Message, answer: Message) -> None:
        self._run = run
        self._body = sized(request.ByteSize()).SerializeToString()
        self._answer = answer.ByteSize()
        run.tell(f"  request {request.ByteSize()} bytes, answer {self._answer} bytes")

    def measure(self, number: int) -> float:
        """Answers per second."""
        with bare(self._run.folder, self._answer) as server:
            bodies = [self._body] * BODIES
            ran = press(server, f"/{BARE}/Unary", bodies, whole(self._run.requests), self._answer, self._run.folder)
        tell(self._run, "bare", ran)
        return ran.rate


@contextmanager
def open_provision(run: Run) -> Iterator[Sides]:
    """See the module."""
    request = house.provision_request(house.TENANTS[0])
    with house.broker(run.folder / "sample") as server, house.calling(server) as stub:
        sample = house.provision(stub, house.TENANTS[:1])[0]

    def ours(number: int) -> float:
        with house.broker(run.folder / f"round-{number}") as server:
            return accepted(server, number, run, "broker")

    yield Sides(ours, Bare(run, request, sample).measure)


def accepted(server: Server, number: int, run: Run, side: str) -> float:
    """Provisions per second, all of which are there afterwards."""
    requests = whole(run.requests)
    bodies = [house.provision_request(tenant).SerializeToString() for tenant in tenants_of(number)]
    with house.calling(server) as stub:
        sizes = [answer.ByteSize() for answer in house.provision(stub, house.TENANTS)]
        ran = press(server, f"{house.SERVICE}/Provision", bodies, requests, sizes[0], run.folder)
        house.check_accepted(house.listed(stub, house.TENANTS), len(house.TENANTS) + WARM_UP + requests)
    tell(run, side, ran)
    return ran.rate


@contextmanager
def open_get(run: Run) -> Iterator[Sides]:
    """See the module."""
    with house.broker(run.folder / "broker") as server, house.calling(server) as stub:
        made = house.provision(stub, house.TENANTS)
        ids = dict(zip(house.TENANTS, (answer.instance.instance_id for answer in made), strict=True))
        requests = [pb.GetInstanceRequest(tenant=tenant, instance_id=ids[tenant]) for tenant in house.TENANTS]
        by_tenant = dict(zip(house.TENANTS, requests, strict=True))
        sample = stub.GetInstance(requests[0], timeout=house.CALL_SECONDS)

        def ours(number: int) -> float:
            bodies = [by_tenant[tenant].SerializeToString() for tenant in tenants_of(number)]
            count = whole(run.requests)
            ran = press(server, f"{house.SERVICE}/GetInstance", bodies, count, sample.ByteSize(), run.folder)
            tell(run, "broker", ran)
            return ran.rate

        yield Sides(ours, Bare(run, requests[0], sample).measure)


ROWS = (
    Row(
        name="provision",
        title=f"durable Provision accepted, 1 KiB of parameters, {CALLERS} callers",
        unit="requests/s",
        yardstick="a bare grpc.aio answer of the same sizes",
        target=Target(0.45, 0.60),
        open=open_provision,
    ),
    Row(
        name="get",
        title=f"GetInstance, {CALLERS} callers",
        unit="requests/s",
        yardstick="a bare grpc.aio answer of the same sizes",
        target=Target(0.75, 0.90),
        open=open_get,
    ),
)
