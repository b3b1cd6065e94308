"""Provision and GetInstance, each against a bare answer of the same sizes.

Provision: each round begins with an empty store and a broker of its own; 100 tenants have an instance before the clock
starts; eight of them, others in each round, order at once with eight callers each. Afterwards the broker must list exactly
what it answered. GetInstance: one broker for all rounds, the same callers, one instance of each tenant. Beside each rate:
the processor time of the server per request, all threads, user and system, over the timed requests.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from google.protobuf.message import Message

from purveyor.v1 import broker_service_pb2 as pb
from tests.benchmarks import house, load
from tests.benchmarks.processes import Server, running, socket_path
from tests.benchmarks.runner import Beside, Row, Run, Sides
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


class Pressed(NamedTuple):
    """What a load did, and the server's processor time per request in milliseconds."""

    ran: load.Ran
    cpu: float

    @property
    def figures(self) -> tuple[float, float]:
        """As the rows have them."""
        return self.ran.rate, self.cpu


def press(server: Server, method: str, bodies: Sequence[bytes], requests: int, answer: int, folder: Path) -> Pressed:
    """Warm up, then measure; every answer must have about `answer` bytes."""
    warm_up = load.Load(server.path, method, tuple(bodies), CALLERS, WARM_UP)
    load.send(warm_up, folder / "load", load.about(WARM_UP, answer))
    job = load.Load(server.path, method, tuple(bodies), CALLERS, requests)
    before = server.cpu_seconds
    ran = load.run(job, folder / "load", load.about(requests, answer))
    return Pressed(ran, (server.cpu_seconds - before) / requests * 1000)


def tell(run: Run, side: str, pressed: Pressed) -> None:
    """One line about a side."""
    ran = pressed.ran
    run.tell(
        f"    {side}: {ran.rate:.0f}/s, median {ran.median:.1f} ms, p99 {ran.p99:.1f} ms, {pressed.cpu:.2f} ms of CPU each"
    )


class Bare:
    """The yardstick of one row: its requests and answers have the sizes of a sample."""

    def __init__(self, run: Run, request: Message, answer: Message) -> None:
        self._run = run
        self._body = sized(request.ByteSize()).SerializeToString()
        self._answer = answer.ByteSize()
        run.tell(f"  request {request.ByteSize()} bytes, answer {self._answer} bytes")

    def measure(self, number: int) -> tuple[float, float]:
        """Answers per second, and processor time of each."""
        with bare(self._run.folder, self._answer) as server:
            bodies = [self._body] * BODIES
            pressed = press(server, f"/{BARE}/Unary", bodies, whole(self._run.requests), self._answer, self._run.folder)
        tell(self._run, "bare", pressed)
        return pressed.figures


@contextmanager
def open_provision(run: Run) -> Iterator[Sides]:
    """See the module."""
    request = house.provision_request(house.TENANTS[0])
    with house.broker(run.folder / "sample") as server, house.calling(server) as stub:
        sample = house.provision(stub, house.TENANTS[:1])[0]

    def ours(number: int) -> tuple[float, float]:
        with house.broker(run.folder / f"round-{number}") as server:
            return accepted(server, number, run, "broker").figures

    yield Sides(ours, Bare(run, request, sample).measure)


def accepted(server: Server, number: int, run: Run, side: str) -> Pressed:
    """Provisions, all of which are there afterwards."""
    requests = whole(run.requests)
    bodies = [house.provision_request(tenant).SerializeToString() for tenant in tenants_of(number)]
    with house.calling(server) as stub:
        sizes = [answer.ByteSize() for answer in house.provision(stub, house.TENANTS)]
        pressed = press(server, f"{house.SERVICE}/Provision", bodies, requests, sizes[0], run.folder)
        house.check_accepted(house.listed(stub, house.TENANTS), len(house.TENANTS) + WARM_UP + requests)
    tell(run, side, pressed)
    return pressed


@contextmanager
def open_get(run: Run) -> Iterator[Sides]:
    """See the module."""
    with house.broker(run.folder / "broker") as server, house.calling(server) as stub:
        made = house.provision(stub, house.TENANTS)
        ids = dict(zip(house.TENANTS, (answer.instance.instance_id for answer in made), strict=True))
        requests = [pb.GetInstanceRequest(tenant=tenant, instance_id=ids[tenant]) for tenant in house.TENANTS]
        by_tenant = dict(zip(house.TENANTS, requests, strict=True))
        sample = stub.GetInstance(requests[0], timeout=house.CALL_SECONDS)

        def ours(number: int) -> tuple[float, float]:
            bodies = [by_tenant[tenant].SerializeToString() for tenant in tenants_of(number)]
            count = whole(run.requests)
            pressed = press(server, f"{house.SERVICE}/GetInstance", bodies, count, sample.ByteSize(), run.folder)
            tell(run, "broker", pressed)
            return pressed.figures

        yield Sides(ours, Bare(run, requests[0], sample).measure)


ROWS = (
    Row(
        name="provision",
        title=f"durable Provision accepted, 1 KiB of parameters, {CALLERS} callers",
        unit="requests/s",
        yardstick="a bare grpc.aio answer of the same sizes",
        target=Target(0.45, 0.60),
        open=open_provision,
        beside=(Beside("provision_cpu", "ms/request"),),
    ),
    Row(
        name="get",
        title=f"GetInstance, {CALLERS} callers",
        unit="requests/s",
        yardstick="a bare grpc.aio answer of the same sizes",
        target=Target(0.75, 0.90),
        open=open_get,
        beside=(Beside("get_cpu", "ms/request"),),
    ),
)
