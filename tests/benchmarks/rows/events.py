"""Durable changes and those who watch them, end to end, against etcd with the same clients.

A change is one Provision or one Put of a value as large as our event; each watch is a stream of its own, in two processes
with twenty connections each; one process writes. Each round has a fresh server on both sides.

`events_100`, `events_1000`: deliveries per second from the first change sent to the last delivery. `receipt`: from sending a
change to its receipt, over every watch and change, at a rate far below the capacity.

Guarantee: every watch got every change exactly once and in order, on both sides, or the row fails.
Limit: on few cores the clients, which are Python, use more of the machine than the server does, on both sides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from pathlib import Path
from statistics import quantiles
from typing import Any

from purveyor.v1 import broker_service_pb2 as pb
from tests.benchmarks import etcd, house
from tests.benchmarks.processes import Server, SideError
from tests.benchmarks.runner import Row, Run, Sides
from tests.benchmarks.stats import Target
from tests.benchmarks.talk import Client, talking

PROCESSES = 2
CALLERS = 16
WARM_UP = 20
DELIVERIES, LEAST = 60_000, 160  # of a round: deliveries, and changes
LOW_RATE, LOW_COUNT = 2.0, 20  # changes per second, and in a round
YARDSTICK = "etcd 3.4, one member, the same clients"
Open = Callable[[Path], AbstractContextManager[Server]]


def event_bytes(folder: Path) -> int:
    """What one of our events has on the wire."""
    with house.broker(folder) as server, house.calling(server) as stub:
        house.provision(stub, house.TENANTS[:1])
        request = pb.WatchEventsRequest(tenant=house.TENANTS[0], start=pb.WatchEventsRequest.START_EARLIEST)
        stream = stub.WatchEvents(request, timeout=house.CALL_SECONDS)
        size = int(next(stream).events[0].ByteSize())
        stream.cancel()
    return size


class Clients:
    """Watches and writers of one side, while its server runs."""

    def __init__(self, followers: Sequence[Client], writers: Client, watches: int) -> None:
        self._followers = followers
        self._writers = writers
        self._watches = watches
        self._next = 0

    def open(self) -> None:
        """Every watch stands afterwards. Raises SideError."""
        for client in self._followers:
            client.tell(f"open {self._watches // len(self._followers)}")
        answers = [client.answer() for client in self._followers]
        if sum(answer["opened"] for answer in answers) != self._watches:
            raise SideError(f"not every watch could be opened: {answers}")

    def run(self, how: str, count: int) -> tuple[list[float], list[dict[str, Any]]]:
        """Write `count` changes; when each was sent, and what the watches say of them."""
        first, self._next = self._next, self._next + count
        for client in self._followers:
            client.tell(f"take {first} {count}")
        for client in self._followers:
            client.answer()
        self._writers.tell(f"{how} {first} {count}")
        sent: list[float] = self._writers.answer()["sent"]
        answers = [client.answer() for client in self._followers]
        check(answers, count * self._watches)
        return sent, answers


def check(answers: Sequence[dict[str, Any]], deliveries: int) -> None:
    """Raise SideError unless every delivery is there, once, in order."""
    wrong = {name: sum(answer["wrong"][name] for answer in answers) for name in answers[0]["wrong"]}
    found = sum(answer["deliveries"] for answer in answers)
    if any(wrong.values()) or found != deliveries:
        failures = [failure for answer in answers for failure in answer["failures"]]
        raise SideError(f"{found} of {deliveries} deliveries, of which {wrong}; {failures}")


def latencies(sent: Sequence[float], answers: Sequence[dict[str, Any]]) -> list[float]:
    """Milliseconds from each sending to each of its receipts. The numbers of the changes have the order of `sent`."""
    found = []
    for answer in answers:
        came = answer["times"]
        for at, number in zip(sent, sorted(came, key=int), strict=True):
            found += [(receipt - at) * 1000 for receipt in came[number]]
    return found


@contextmanager
def clients(side: str, server: Server, watches: int, size: int, folder: Path) -> Iterator[Clients]:
    """Clients whose watches stand and have got WARM_UP changes."""
    with ExitStack() as stack:
        log = folder / "clients.log"
        followers = [stack.enter_context(talking("followers", log, side, server.address)) for _ in range(PROCESSES)]
        writers = stack.enter_context(talking("writers", log, side, server.address, str(size)))
        made = Clients(followers, writers, watches)
        made.open()
        made.run(f"at-once {CALLERS}", WARM_UP)
        yield made


@contextmanager
def open_both(watches: int, figure: Callable[[Clients, Server, Run], float], run: Run) -> Iterator[Sides]:
    """`figure` for both sides."""
    run.tell(f"  {etcd.version()}, values of {(size := event_bytes(run.folder / 'sample'))} bytes as our events")

    def measured(side: str, opened: Open, number: int) -> float:
        folder = run.folder / f"{side}-{number}"
        with opened(folder) as server, clients(side, server, watches, size, folder) as made:
            return figure(made, server, run)

    yield Sides(partial(measured, "ours", house.broker), partial(measured, "etcd", etcd.running))


def rate(watches: int, made: Clients, server: Server, run: Run) -> float:
    """Deliveries per second."""
    count = max(LEAST, DELIVERIES // watches)
    before = server.cpu_seconds
    sent, answers = made.run(f"at-once {CALLERS}", count)
    seconds: float = max(answer["last"] for answer in answers) - min(sent)
    used = (server.cpu_seconds - before) / seconds
    messages = sum(answer["messages"] for answer in answers) / watches
    run.tell(
        f"    {count} changes in {seconds:.2f} s, {messages:.0f} messages a watch; the server used {used:.0%} of a core"
    )
    return count * watches / seconds


def receipt(made: Clients, server: Server, run: Run) -> float:
    """p99 in milliseconds."""
    sent, answers = made.run(f"even {LOW_RATE}", LOW_COUNT)
    found = quantiles(latencies(sent, answers), n=100)
    run.tell(f"    median {found[49]:.1f} ms, p99 {found[98]:.1f} ms")
    return found[98]


ROWS = (
    *(
        Row(
            name=f"events_{watches}",
            title=f"durable change to {watches} watches of events, {CALLERS} callers",
            unit="deliveries/s",
            yardstick=YARDSTICK,
            target=Target(0.9, 1.5),
            open=partial(open_both, watches, partial(rate, watches)),
        )
        for watches in (100, 1000)
    ),
    Row(
        name="receipt",
        title=f"p99 from a change to its receipt, 1,000 watches, {LOW_RATE:g} changes/s",
        unit="ms",
        yardstick=YARDSTICK,
        target=Target(2.5, 1.2, better="lower"),
        open=partial(open_both, 1000, receipt),
    ),
)
