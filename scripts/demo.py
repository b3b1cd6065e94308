"""`make demo`: the story of one database, told by a real broker, a real PostgreSQL server and real clients.

Guarantee: every line with a tick was checked; the first claim that does not hold ends the demo with exit code 1 and the end
of the broker's log. Nothing is left: broker and PostgreSQL server are stopped and their folders removed, whatever happened.
Limit: the broker is killed when the operation's own stream shows a step under way; where the machine was quicker than the
signal, another instance is tried, at most MAX_KILLS times.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
import tempfile
import time
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import asyncpg
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

import purveyor
from purveyor.cli.progress import sentence
from purveyor_server.providers.postgresql import cluster

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable

SERVICE, PLAN, OTHER_PLAN = "postgresql", "shared-small", "shared-large"
OTHER_KINDS = ["schema", "dedicated"]
KEPT = {"database purveyor_schemas", "role purveyor_schemas_members"}  # what schemas share: made once
EXTENSIONS = {"extensions": ["citext", "hstore"]}  # more steps: more time to be killed in
DEMO_SECONDS = 110
RESULT_SECONDS = 60
START_SECONDS = 60
STOP_SECONDS = 60
QUERY_SECONDS = 10
PULSE_SECONDS = 0.02
MAX_KILLS = 5
MAX_GAP_SECONDS = 2.0  # of a client's query while the broker is dead; the machine may be busy starting the next broker
LOG_LINES = 30

console = Console(highlight=False, emoji=False, width=None if sys.stdout.isatty() else 110)


class ClaimError(Exception):
    """Something is not as told."""


def claim(text: str, holds: object) -> None:
    """Print a claim that holds. Raises ClaimError for one that does not."""
    if not holds:
        raise ClaimError(text)
    console.print(f"  [green]✓[/] {text}")


def chapter(title: str) -> None:
    """Begin a part of the story."""
    console.print(f"\n[bold]{title}[/]")


class Broker:
    """The broker's process over its lives; `folder` keeps its data, its socket and its log."""

    def __init__(self, folder: Path) -> None:
        self.data = folder / "broker"
        self.log = folder / "broker.log"
        self.address = f"unix:{self.data / 'broker.sock'}"
        self.postgres = self.data / "providers" / "main"
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start it; whether it answers is for a client to find out."""
        command = (sys.executable, "-m", "purveyor.cli", "serve", "--dev", "--data-dir", str(self.data))
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(*command, stdout=log, stderr=log)

    async def end(self, number: signal.Signals = signal.SIGTERM) -> int | None:
        """Send a signal and wait until it is gone. Returns its exit code, None if it did not run."""
        process, self._process = self._process, None
        if process is None:
            return None
        if process.returncode is None:
            process.send_signal(number)
        try:
            return await asyncio.wait_for(process.wait(), STOP_SECONDS)
        except TimeoutError:
            process.kill()
            return await process.wait()

    async def clean_up(self) -> None:
        """Remove the PostgreSQL servers, which outlive the broker by design, and their files, wherever they are."""
        await self.end()
        command = (sys.executable, "-m", "purveyor_server.providers.postgresql", "remove", str(self.postgres))
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.DEVNULL)
        await asyncio.wait_for(process.wait(), STOP_SECONDS)

    def dedicated(self) -> set[str]:
        """What there is of dedicated servers: a folder each, gone with the instance."""
        return {path.name for path in self.postgres.glob("dedicated/*/")}

    async def listing(self) -> set[str]:
        """Every database and role of the PostgreSQL server, as its administrator sees them."""
        state = cluster.load_state(self.postgres)
        if state is None:
            raise ClaimError("the PostgreSQL server was never made")
        password = (self.postgres / "admin.password").read_text(encoding="utf-8").strip()
        connection = await asyncpg.connect(
            host="127.0.0.1", port=state.port, user=cluster.ADMIN, password=password, database=cluster.ADMIN_DATABASE,
            timeout=QUERY_SECONDS,
        )  # fmt: skip
        try:
            rows = await connection.fetch(
                "SELECT 'database ' || datname AS name FROM pg_database UNION ALL SELECT 'role ' || rolname FROM pg_roles"
            )
        finally:
            await connection.close(timeout=QUERY_SECONDS)
        return {row["name"] for row in rows}


class Pulse:
    """A client that goes on querying; it counts its answers and its longest wait for one."""

    def __init__(self, connection: asyncpg.Connection[Any]) -> None:
        self._connection = connection
        self._task: asyncio.Task[None] | None = None
        self.answers = 0
        self.longest = 0.0

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._beat(), name="pulse")
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.wait({self._task})
        if not self._task.cancelled() and (failure := self._task.exception()):
            raise ClaimError(f"the client's query failed: {failure}") from failure

    async def _beat(self) -> None:
        while True:
            before = time.monotonic()
            await self._connection.fetchval("SELECT count(*) FROM orders", timeout=QUERY_SECONDS)
            self.longest = max(self.longest, time.monotonic() - before)
            self.answers += 1
            await asyncio.sleep(PULSE_SECONDS)


async def follow(handle: purveyor.OperationHandle[Any]) -> None:
    """Show an operation until its end: a bar on a terminal, lines elsewhere."""
    columns = (TextColumn("    {task.fields[verb]}"), BarColumn(bar_width=30), TextColumn("{task.percentage:>3.0f} %"))
    shown = ""
    with Progress(
        *columns, TextColumn("{task.description}", markup=False), console=console, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task("", total=100, verb=handle.status.verb.lower())
        async with asyncio.timeout(RESULT_SECONDS), aclosing(handle.watch()) as states:
            async for status in states:
                bar.update(task, completed=status.percent, description=sentence(status))
                line = f"    {status.percent:3.0f} %  {status.state.lower()}: {sentence(status)}"
                if line != shown and not console.is_terminal:
                    console.print(line, markup=False)
                shown = line


@asynccontextmanager
async def connected(credentials: purveyor.Credentials) -> AsyncIterator[asyncpg.Connection[Any]]:
    """A session with a binding's credentials."""
    connection = await asyncpg.connect(credentials.text("uri"), timeout=QUERY_SECONDS)
    try:
        yield connection
    finally:
        connection.terminate()


async def show_catalog(client: purveyor.Client) -> None:
    """What may be ordered."""
    catalog = await client.catalog()
    for service in catalog.services:
        for plan in service.plans:
            console.print(f"    {service.name}  {plan.name:<14} {plan.description}", markup=False)
    claim(f"the broker offers {SERVICE} {PLAN}", any(s.name == SERVICE for s in catalog.services))


async def first_listing(broker: Broker) -> set[str]:
    """The server's listing before anything was ordered; the broker brings the server up in the background."""
    async with asyncio.timeout(START_SECONDS):
        while True:
            try:
                return await broker.listing()
            except (ClaimError, OSError, asyncpg.PostgresError):
                await asyncio.sleep(0.1)


async def provision_and_bind(client: purveyor.Client) -> purveyor.ActiveBinding:
    """One instance with a live progress bar, and one binding."""
    handle = await client.provision(SERVICE, PLAN, instance_id="orders", request_id="demo-orders")
    await follow(handle)
    instance = await handle.result(timeout=RESULT_SECONDS)
    claim(f"instance orders is {instance.state}", instance.state == purveyor.InstanceState.READY and instance.usable)
    bound = await (await client.bind("orders", binding_id="app", wait=10)).result(timeout=RESULT_SECONDS)
    claim(f"binding app is {bound.state}, with credentials: {', '.join(bound.credentials)}", bound.credentials["uri"])
    claim("their values do not show in a repr", bound.credentials.text("password") not in repr(bound))
    return bound


async def use(connection: asyncpg.Connection[Any]) -> None:
    """Real SQL with the returned credentials."""
    version = await connection.fetchval("SHOW server_version", timeout=QUERY_SECONDS)
    await connection.execute("CREATE TABLE orders (id int PRIMARY KEY, item text)", timeout=QUERY_SECONDS)
    await connection.executemany(
        "INSERT INTO orders VALUES ($1, $2)", [(1, "tea"), (2, "bread")], timeout=QUERY_SECONDS
    )
    count = await connection.fetchval("SELECT count(*) FROM orders", timeout=QUERY_SECONDS)
    claim(f"PostgreSQL {version} took a table and {count} rows from the bound client", count == 2)  # noqa: PLR2004 - as inserted


async def bind_again(client: purveyor.Client, first: purveyor.ActiveBinding) -> purveyor.ActiveBinding:
    """A second binding works with what the first one made."""
    second = await (await client.bind("orders", binding_id="report", wait=10)).result(timeout=RESULT_SECONDS)
    claim("a second binding has a login of its own", second.credentials["username"] != first.credentials["username"])
    async with connected(second.credentials) as connection:
        await connection.execute("INSERT INTO orders VALUES (3, 'salt')", timeout=QUERY_SECONDS)
        items = await connection.fetch("SELECT item FROM orders ORDER BY id", timeout=QUERY_SECONDS)
    claim("it reads and writes the first one's table", [row["item"] for row in items] == ["tea", "bread", "salt"])
    return second


async def kill_in_mid_provision(client: purveyor.Client, broker: Broker) -> tuple[str, purveyor.OperationHandle[Any]]:
    """Kill -9 while a step of a second instance is under way. Returns the instance's id and the handle from before."""
    for attempt in range(1, MAX_KILLS + 1):
        name = f"invoices-{attempt}"
        handle = await client.provision(SERVICE, PLAN, instance_id=name, parameters=EXTENSIONS)
        async with aclosing(handle.watch(steps=True)) as states:
            async for status in states:
                if status.done or any(step.state == "STARTED" for step in status.steps[1:]):
                    break
        if not status.done:
            await broker.end(signal.SIGKILL)
            under_way = next(step.name for step in status.steps if step.state == "STARTED")
            claim(f"the broker was killed with -9 during step {under_way!r} of {name}", not handle.done)
            return name, handle
        console.print(f"  {name} was made before the signal could be sent; once more", style="dim")
    raise ClaimError(f"{MAX_KILLS} provisions were all quicker than a signal")


async def crash_and_recover(client: purveyor.Client, broker: Broker, session: asyncpg.Connection[Any]) -> list[str]:
    """The broker dies and comes back; the bound client does not notice, and the operation finishes."""
    async with Pulse(session) as pulse:
        name, handle = await kill_in_mid_provision(client, broker)
        died, answered = time.time(), pulse.answers
        await asyncio.sleep(0.5)  # a while without any broker
        claim("nobody answers at the broker's socket", not await answers(broker))
        claim(f"the bound client got {pulse.answers - answered} answers meanwhile", pulse.answers > answered)
        await broker.start()
        await follow(handle)
        instance = await handle.result(timeout=RESULT_SECONDS)
    ended = handle.status.end_time
    claim(f"the handle from before the crash saw {name} become {instance.state}", instance.state == "READY")
    claim("it was finished by the broker that was started after the crash", ended and ended.timestamp() > died)
    claim(
        f"the bound client had {pulse.answers} answers in all, none lost, the slowest in {pulse.longest * 1000:.0f} ms",
        pulse.longest < MAX_GAP_SECONDS,
    )
    return [item.instance_id async for item in client.instances()]


async def other_kinds(client: purveyor.Client, broker: Broker) -> None:
    """The same contract over other things: a schema in a shared database, and a server of one's own."""
    for kind in OTHER_KINDS:
        await (await client.provision(SERVICE, f"{kind}-small", instance_id=kind)).result(timeout=RESULT_SECONDS)
        bound = await (await client.bind(kind, binding_id="app", wait=10)).result(timeout=RESULT_SECONDS)
        async with connected(bound.credentials) as session:
            await session.execute("CREATE TABLE things (id int)", timeout=QUERY_SECONDS)
        claim(f"{kind}: provisioned, bound and used, on port {bound.credentials['port']}", bound.state == "ACTIVE")
    claim("the dedicated one is a server of its own, with files of its own", broker.dedicated())


async def answers(broker: Broker) -> bool:
    """Whether anybody answers at the broker's socket."""
    async with purveyor.Client(broker.address, tenant="team-a", retry_for=0) as client:
        return await refusal(client.catalog()) != "UNAVAILABLE"


async def refusal(call: Awaitable[object]) -> str:
    """The reason (or, from a broken connection, the code) that a call is refused with; empty when it is not."""
    try:
        await call
    except purveyor.PurveyorError as refused:
        return refused.reason or refused.code
    return ""


async def repeat_and_conflict(client: purveyor.Client) -> None:
    """The same request again is the same thing; another one under the same id is refused."""
    again = await client.provision(SERVICE, PLAN, instance_id="orders", request_id="demo-orders")
    claim("the same request again is answered as a replay, nothing new is started", again.replayed and again.done)
    reason = await refusal(client.provision(SERVICE, OTHER_PLAN, instance_id="orders"))
    claim(f"another request under the same id is refused: {reason}", reason == "INSTANCE_ALREADY_EXISTS")
    reason = await refusal(client.deprovision("orders"))
    claim(f"an instance in use is not given back: {reason}", reason == "BINDINGS_EXIST")


async def unbind(client: purveyor.Client, bound: purveyor.ActiveBinding, session: asyncpg.Connection[Any]) -> None:
    """The binding's access ends: new logins and the open session."""
    await (await client.unbind("orders", bound.binding_id, wait=10)).result(timeout=RESULT_SECONDS)
    try:
        async with connected(bound.credentials):
            raise ClaimError("the old credentials still work")
    except asyncpg.InvalidAuthorizationSpecificationError as refused:
        claim(f"the old credentials are refused: {type(refused).__name__}", refused.sqlstate)
    try:
        await session.fetchval("SELECT 1", timeout=QUERY_SECONDS)
    except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError):
        claim("the session that was still open was ended", True)
    else:
        raise ClaimError("the open session of the old binding goes on")


async def give_back(client: purveyor.Client, broker: Broker, names: list[str], before: set[str]) -> None:
    """Everything goes, and the server's own listings show it."""
    made = await broker.listing() - before
    console.print(f"  the PostgreSQL server holds {len(made)} databases and roles that the broker made", style="dim")
    for name in names:
        await (await client.deprovision(name, cascade=True)).result(timeout=RESULT_SECONDS)
        claim(f"instance {name} is gone", await refusal(client.instance(name)) == "INSTANCE_NOT_FOUND")
    left = await broker.listing() - before - KEPT
    told = (
        f"{len(made - KEPT)} before, {', '.join(sorted(left)) or 'none'} now, but for the database that schemas share"
    )
    claim(f"nothing is left in the server ({told}), nor of the dedicated one", made and not left | broker.dedicated())


async def tell(broker: Broker) -> None:
    """The whole story. Raises ClaimError at the first thing that is not as told."""
    async with AsyncExitStack() as stack:
        chapter("1  A broker with nothing configured")
        await broker.start()
        client = await stack.enter_async_context(
            purveyor.Client(broker.address, tenant="team-a", timeout=START_SECONDS, retry_for=START_SECONDS)
        )
        await show_catalog(client)
        before = await first_listing(broker)
        claim(f"its own PostgreSQL server answers, with {len(before)} databases and roles so far", before)
        chapter("2  Provision and bind")
        app = await provision_and_bind(client)
        chapter("3  Use it")
        session = await stack.enter_async_context(connected(app.credentials))
        await use(session)
        await bind_again(client, app)
        chapter("4  kill -9 in mid-provision")
        names = await crash_and_recover(client, broker, session)
        chapter("5  The same again, and something else")
        await repeat_and_conflict(client)
        chapter("6  Other kinds of plans")
        await other_kinds(client, broker)
        chapter("7  Give it back")
        await unbind(client, app, session)
        await give_back(client, broker, [*names, *OTHER_KINDS], before)
    claim("the broker stops cleanly", await broker.end() == 0)


async def main() -> int:
    """Tell the story in a folder of its own and leave nothing. Returns the exit code."""
    start = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="purveyor-demo-"))
    broker = Broker(folder)
    code = 1
    try:
        async with asyncio.timeout(DEMO_SECONDS):
            await tell(broker)
        code = 0
    except (ClaimError, purveyor.PurveyorError, TimeoutError, OSError, asyncpg.PostgresError) as failure:
        console.print(f"\n[red]✗[/] not as told: {type(failure).__name__}: {failure}", markup=True)
        show_log(broker.log)
    finally:
        await broker.clean_up()
        shutil.rmtree(folder, ignore_errors=True)
    clean = not await answers(broker) and not await asyncio.to_thread(folder.exists)
    end = "all as told" if code == 0 else "failed"
    console.print(f"\n{end}, in {time.monotonic() - start:.1f} s; {'nothing' if clean else 'SOMETHING'} is left behind")
    return code if clean else 1


def show_log(log: Path) -> None:
    """The end of the broker's log, to see what went wrong."""
    if log.exists():
        for line in log.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_LINES:]:
            console.print(f"  {line}", markup=False, style="dim")


if __name__ == "__main__":
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    sys.exit(asyncio.run(main()))
