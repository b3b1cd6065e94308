"""The storm: writers, watchers of every kind, a broker that is killed and stopped and forgets, and the verdict.

Guarantee: `clean` is true only if nothing was missed, repeated, out of order or wrong, every planted fault was found as what
it is, and the broker was restarted; what could not be judged is said.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import purveyor
from purveyor.admin import AdminClient
from tests.recovery.broker import Broker
from tests.watching.house import PLAN, SERVICE, Ledger, make_broker
from tests.watching.judge import KINDS, Fault, Problem, Wish, judge
from tests.watching.pacing import rest
from tests.watching.tampered import FAULTS, Tampered
from tests.watching.watchers import LibraryWatcher, Watcher, WireWatcher
from tests.watching.writers import INSTANCES, LONG, end_moves, move, turn

TENANTS = ("acme", "beta", "core")
FURNITURE = ("p", "q", "r", "s", "t", "u")
STARTS = ("NOW", "EARLIEST", "SNAPSHOT")
OUTAGE_SECONDS = 20.0
REST_SECONDS = 30.0
PLANT_SECONDS = 30.0
FINISH_SECONDS = 60.0
SHOWN = 20  # problems


class Options(NamedTuple):
    """How long the storm lasts (seconds), how many of everything, and what is kept of the log."""

    seconds: float = 60.0
    watchers: int = 40
    writers: int = 8
    restart_every: float = 6.0
    kept: int = 400
    seed: int = 1
    verbs: frozenset[str] = frozenset({"PROVISION", "UPDATE", "BIND", "RENEW", "UNBIND", "REPAIR", "DEPROVISION"})


class Suite:
    """One run; `say` takes a line at a time."""

    def __init__(self, options: Options, say: Callable[[str], None]) -> None:
        self.options = options
        self.problems: list[Problem] = []
        self.events = self.restarts = self.planted = self.found = self.lost = self.streams = 0
        self.unseen: frozenset[str] = frozenset()
        self._say = say
        self._random = random.Random(options.seed)
        self._over = asyncio.Event()

    @property
    def clean(self) -> bool:
        """Whether everything was as it must be."""
        if self.unseen:
            return False
        return not self.problems and self.restarts > 0 and self.planted == self.found == len(FAULTS)

    @property
    def summary(self) -> str:
        """The last line."""
        counts = Counter(problem.fault for problem in self.problems)
        other = counts[Fault.WRONG] + counts[Fault.DISORDERED]
        return (
            f"verify-watch: events={self.events} watchers={self.options.watchers} restarts={self.restarts} "
            f"missed={counts[Fault.MISSED]} repeated={counts[Fault.REPEATED]} {f'other={other} ' if other else ''}"
            f"planted={self.planted} found={self.found}"
        )

    async def run(self) -> None:
        """The storm, then the verdict."""
        with tempfile.TemporaryDirectory(prefix="pv-") as path:
            folder = Path(path)
            broker = make_broker(folder, self.options.kept)
            await broker.start()
            try:
                await self._storm(broker, folder)
            finally:
                await broker.close()

    async def _storm(self, broker: Broker, folder: Path) -> None:
        ledger = Ledger(folder)
        await self._furnish(broker.address)
        watchers, tampered = self._watchers(broker.address, folder, ledger)
        async with asyncio.TaskGroup() as group:
            group.create_task(ledger.follow())
            writers = [group.create_task(self._write(broker, n)) for n in range(self.options.writers)]
            watching = [group.create_task(watcher.run()) for watcher in (*watchers, *tampered)]
            await self._restart_now_and_then(broker)
            await _planted(tampered)
            self._over.set()
            await asyncio.wait(writers)
            at_rest = await self._come_to_rest(ledger, broker)
            until = await ledger.read()
            for watcher in (*watchers, *tampered):
                watcher.story.until = until
                watcher.finishing.set()
            async with asyncio.timeout(FINISH_SECONDS):
                await asyncio.wait(watching)
            ledger.closed.set()
        await ledger.read()
        await self._judge(ledger, watchers, tampered, at_rest=at_rest)

    def _watchers(self, address: str, folder: Path, ledger: Ledger) -> tuple[list[Watcher], list[Tampered]]:
        watchers: list[Watcher] = []
        for number in range(self.options.watchers):
            start = STARTS[number % len(STARTS)]
            whole = start == "SNAPSHOT" and number % 2  # a long one, in the middle of which something happens
            wish = Wish(self._random.choice(TENANTS)) if whole else self._wish()
            rest = (f"{number} {start}", wish, start, ledger, self._random.getrandbits(32))
            if number % 4 == 0:
                watchers.append(LibraryWatcher(address, folder / f"place-{number}", *rest))
            else:
                watchers.append(WireWatcher(address, *rest))
        tampered = [
            kind(address, kind.__name__, Wish(TENANTS[0]), kind.start, ledger, self._random.getrandbits(32))
            for kind in FAULTS
        ]
        return watchers, tampered

    def _wish(self) -> Wish:
        kinds = self._random.choice((KINDS, KINDS, ("INSTANCE",), ("BINDING", "OPERATION"), ("OPERATION",)))
        return Wish(self._random.choice(TENANTS), kinds, self._random.choice(("", "", *INSTANCES)))

    async def _furnish(self, address: str) -> None:
        """Instances that stay, so that every snapshot is of several messages."""
        async with asyncio.TaskGroup() as group:
            for tenant in TENANTS:
                group.create_task(_provision(address, tenant, FURNITURE))

    async def _write(self, broker: Broker, number: int) -> None:
        """Order, bind, renew, rotate, change, damage and give back, on instances that other writers use too, until told to stop."""
        choose = random.Random(self.options.seed * 1000 + number)
        tenant, address = TENANTS[number % len(TENANTS)], broker.address
        async with (
            purveyor.Client(address, tenant=tenant, retry_for=OUTAGE_SECONDS, timeout=OUTAGE_SECONDS) as client,
            admin_of(broker) as admin,
        ):
            while not self._over.is_set():
                try:
                    await turn(client, admin, broker.folder / "root", choose)
                except purveyor.PurveyorError:
                    await rest(self._over, 0.01)  # somebody else was quicker, or the broker is away

    async def _restart_now_and_then(self, broker: Broker) -> None:
        """Kill -9 and graceful stops in turn, for the length of the storm."""
        end = time.monotonic() + self.options.seconds
        while (left := end - time.monotonic()) > 0:
            await rest(self._over, min(left, self.options.restart_every * (0.5 + self._random.random())))
            if time.monotonic() < end or not self.restarts:
                if self.restarts % 2:
                    await broker.stop()
                else:
                    broker.kill()
                    await broker.died()
                await broker.start()
                self.restarts += 1
                async with admin_of(broker) as admin:
                    with suppress(purveyor.PurveyorError):  # one is going on
                        await move(admin, TENANTS[self.restarts % len(TENANTS)], self.restarts // len(TENANTS))

    async def _come_to_rest(self, ledger: Ledger, broker: Broker) -> bool:
        """Wait until the broker does nothing more by itself: no operation is left, and no binding that ends soon; False when
        that does not come."""
        end = time.monotonic() + REST_SECONDS
        async with admin_of(broker) as admin:
            await end_moves(admin)
            while await ledger.unfinished() or [1 async for _ in admin.expiring_bindings(within=LONG / 2)]:
                if time.monotonic() > end:
                    self._say(f"{await ledger.unfinished()} operations did not end: pictures are not judged")
                    return False
                ledger.news.clear()
                await rest(ledger.news, 1.0)
        return True

    async def _judge(self, ledger: Ledger, watchers: list[Watcher], tampered: list[Tampered], *, at_rest: bool) -> None:
        living = await ledger.living() if at_rest else None
        self.events = ledger.head
        verbs = await ledger.verbs()
        self.unseen = self.options.verbs - verbs
        self._say(f"operations: {' '.join(sorted(verbs))}{f'; none of {self.unseen}' if self.unseen else ''}")
        for watcher in watchers:
            found = judge(watcher.story, ledger.facts, living)
            self.problems += found
            for line in watcher.story.path if found else ():
                self._say(f"{watcher.story.name}: {line}")
            self.lost += watcher.lost
            self.streams += watcher.streams
        for control in tampered:
            said = judge(control.story, ledger.facts, living)
            self.planted += control.planted
            self.found += bool(said) and {problem.fault for problem in said} == {control.fault}
            self._say(f"planted {type(control).__name__}: {[problem.text for problem in said][:2]}")
        told = sum(len(watcher.story.told) for watcher in watchers)
        self._say(f"streams={self.streams} deliveries={told} compacted={self.lost} seed={self.options.seed}")
        for problem in self.problems[:SHOWN]:
            self._say(f"{problem.fault}: {problem.text}")


def admin_of(broker: Broker) -> AdminClient:
    """An operator's client."""
    address = f"unix:{broker.folder}/data/admin.sock"
    return AdminClient(address, timeout=OUTAGE_SECONDS, retry_for=OUTAGE_SECONDS)


async def _provision(address: str, tenant: str, names: Sequence[str]) -> None:
    async with purveyor.Client(address, tenant=tenant, retry_for=OUTAGE_SECONDS, timeout=OUTAGE_SECONDS) as client:
        for name in names:
            await client.provision(SERVICE, PLAN, instance_id=name, wait=OUTAGE_SECONDS)


async def _planted(tampered: list[Tampered]) -> None:
    """Until every fault is planted, by chance in few events not yet; what is missing then is missing in the last line."""
    with suppress(TimeoutError):
        async with asyncio.timeout(PLANT_SECONDS):
            for control in tampered:
                await control.done.wait()
