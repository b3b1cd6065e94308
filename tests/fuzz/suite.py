"""The whole trial: parsers, lives on the backend, messages on the wire, and the faults that are planted in each.

Guarantee: `clean` is true only if no input met a fault, nothing is left in the server, and every planted fault was found.
"""

from __future__ import annotations

import asyncio
import functools
import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent import futures
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import grpc
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from tests.acceptance.house import LEFT, SETTINGS, broker, calling, catalog_of
from tests.fuzz import backend, parsers, wire
from tests.postgres_server import TestServer
from tests.unit.app_process import Process

SHOWN = 20  # failures
IN_A_ROW = 4  # messages to one method; the first is the simplest there is


class Options(NamedTuple):
    """How many inputs: of each parser, messages, lives; and the seed."""

    parsed: int = 3000
    sent: int = 4000
    lives: int = 60
    seed: int = 1


class Suite:
    """One run; `say` takes a line at a time."""

    def __init__(self, options: Options, say: Callable[[str], None]) -> None:
        self.options = options
        self.inputs = self.planted = self.found = 0
        self.failures: list[str] = []
        self._say = say

    @property
    def clean(self) -> bool:
        """Nothing was wrong, and every planted fault was found."""
        return not self.failures and self.planted == self.found > 0

    @property
    def summary(self) -> str:
        """The last line."""
        return f"fuzz: inputs={self.inputs} failures={len(self.failures)} planted={self.planted} found={self.found}"

    def run(self, postgres: TestServer) -> None:
        """Everything, in turn."""
        self._parse()
        before = asyncio.run(postgres.listing())
        canaries = backend.Canaries(postgres)
        asyncio.run(canaries.put())
        try:
            with tempfile.TemporaryDirectory(prefix="pvf") as path:
                self._serve(Path(path), postgres)
            self._note("canaries", 0, [f"hurt: {name}" for name in asyncio.run(canaries.hurt())])
            asyncio.run(canaries.careless())
            self._control("a statement put together", asyncio.run(canaries.hurt()))
        finally:
            asyncio.run(canaries.take())
        after = asyncio.run(postgres.listing())
        self._note("listing", 0, [f"left in the server: {part}" for part in LEFT if after[part] != before[part]])
        with faulty_server() as address, grpc.insecure_channel(address) as channel:
            self._control(
                "a call that fails without a reason",
                self._attempts(wire.sent(wire.methods("BrokerService")[0]), IN_A_ROW, channel, wire.fault),
            )

    def _serve(self, folder: Path, postgres: TestServer) -> None:
        admin = f'[admin]\naddresses = ["unix:{folder}/admin.sock"]\n'
        with broker(folder / "b", catalog_of(postgres), SETTINGS + admin) as process:
            with (
                grpc.insecure_channel(process.site.socket) as channel,
                grpc.insecure_channel(f"unix:{folder}/admin.sock") as operators,
            ):
                lived = functools.partial(_lived, operators)
                lives = self._attempts(backend.LIVES, self.options.lives, channel, lived)
                self._note("lives on PostgreSQL", self.options.lives, lives)
                self._send(channel, "BrokerService", self.options.sent)
                self._send(operators, "AdminService", self.options.sent)
            asyncio.run(_give_back(process))
            self._note("log", 0, [str(event)[:300] for event in process.events if is_defect(event)])

    def _send(self, channel: grpc.Channel, service: str, count: int) -> None:
        """Rounds over all methods, a few messages to each, so that none is left out by chance and calls meet others' effects."""
        methods, found = wire.methods(service), []
        rounds = max(1, count // (len(methods) * IN_A_ROW))
        for number in range(rounds):
            for method in methods:
                found += self._attempts(wire.sent(method), IN_A_ROW, channel, wire.fault, self.options.seed + number)
        self._note(f"messages to {len(methods)} methods of {service}", rounds * len(methods) * IN_A_ROW, found)

    def _parse(self) -> None:
        count = self.options.parsed
        for target in parsers.TARGETS:
            self._note(target.name, count, parsers.faults(target, count, self.options.seed))
        for target in parsers.PLANTED:
            self._control(target.name, parsers.faults(target, count, self.options.seed))

    def _attempts(
        self,
        inputs: st.SearchStrategy[Any],
        count: int,
        channel: grpc.Channel,
        judge: Callable[[grpc.Channel, Any], str],
        start: int | None = None,
    ) -> list[str]:
        found: list[str] = []

        @seed(self.options.seed if start is None else start)
        @settings(
            max_examples=count,
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=parsers.PHASES,
        )
        @given(inputs)
        def attempt(one: Any) -> None:
            if wrong := judge(channel, one):
                found.append(wrong)

        attempt()
        return found

    def _note(self, what: str, count: int, found: list[str]) -> None:
        self.inputs += count
        self.failures += found
        if count or found:
            self._say(f"{what}: {count} inputs, {len(found)} failures")
        for wrong in sorted(set(found))[:SHOWN]:
            self._say(f"  {wrong}")

    def _control(self, what: str, found: list[str]) -> None:
        self.planted += 1
        self.found += bool(found)
        self._say(f"planted: {what}: {'found' if found else 'NOT FOUND'}")


def is_defect(event: Mapping[str, Any]) -> bool:
    """A log event that says that our own code met something that it did not expect."""
    return event.get("event") in {"call failed by a defect", "operation could not be worked on", "engine loop failed"}


def _lived(operators: grpc.Channel, channel: grpc.Channel, life: backend.Life) -> str:
    return "; ".join(backend.live(channel, operators, life))


async def _give_back(process: Process) -> None:
    """What the messages made is given back, so that the listing can be compared."""
    for tenant in ("acme", "beta"):
        async with calling(process, tenant) as house:
            await house.give_back()


@contextmanager
def faulty_server() -> Iterator[str]:
    """A server whose every call fails as nobody wants it: the planted fault of the wire."""

    class Faulty(grpc.GenericRpcHandler):
        def service(self, _details: Any) -> Any:
            def fail(_request: Any, context: grpc.ServicerContext) -> Any:
                context.abort(grpc.StatusCode.UNKNOWN, "Traceback")

            return grpc.unary_unary_rpc_method_handler(fail)

    server = grpc.server(futures.ThreadPoolExecutor(1), handlers=[Faulty()])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()
