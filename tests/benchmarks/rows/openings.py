"""Watches of events that are all opened at once, and how many of them are refused or get nothing.

Each round has a fresh broker and a fresh client: 5,000 calls are made before any answer is looked at, over 50 connections, a
hundred streams each. Then one instance is ordered. A watch counts as refused when it gets no first message within a minute,
as lost when it is not given the instance within another.

Limit: one process of clients on the same machine; how long the opening takes is told and not judged, since the client is
about as busy as the broker.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tests.benchmarks import house
from tests.benchmarks.runner import Beside, Row, Run, Sides
from tests.benchmarks.stats import Target
from tests.benchmarks.talk import talking

WATCHES = 5_000


@contextmanager
def open_watches(run: Run) -> Iterator[Sides]:
    """See the module."""

    def ours(number: int) -> tuple[float, float]:
        folder = run.folder / f"round-{number}"
        with (
            house.broker(folder) as server,
            house.calling(server) as stub,
            talking("opener", folder / "clients.log", server.address, str(WATCHES)) as client,
        ):
            opened = client.answer()
            made = house.provision(stub, house.TENANTS[:1])[0]
            client.tell(f"change {made.instance.instance_id}")
            told = client.answer()
        refused, lost = WATCHES - opened["opened"], opened["opened"] - told["given"]
        run.tell(f"    opened in {opened['seconds']:.1f} s; {refused} refused, {lost} lost {told['failures'] or ''}")
        return float(refused + max(0, lost)), opened["seconds"]

    yield Sides(ours)


ROWS = (
    Row(
        name="open_5000",
        title=f"{WATCHES:,} watches of events opened at once: refused or lost",
        unit="watches",
        yardstick="none",
        target=Target(0, 0, better="lower", judged="value"),
        open=open_watches,
        beside=(Beside("open_5000_seconds", "s"),),
    ),
)
