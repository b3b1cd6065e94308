"""One run: what its client asked for, what it was told, and what is wrong with the outcome.

Guarantee: a request is sent with the same request id however often it is repeated; what was answered once is held against
every later answer. Problems are of three kinds. LOST: something accepted is unknown, ended otherwise than it must, or does
not work. DUPLICATED: a second operation, incarnation or outside thing for one request. LEFT_BEHIND: something that no
record accounts for, or that is different after everything was given back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import Any, NamedTuple

import asyncpg

from purveyor import Client, FailedPreconditionError, NotFoundError, OperationHandle
from tests.recovery.lane import PLAN, SERVICE, Lane
from tests.recovery.listings import Connection

END_SECONDS = 60.0
MAX_CLEAN_UPS = 10
LOGIN_SECONDS = 10.0
SUCCEEDED = frozenset({"SUCCEEDED"})
FAILED = frozenset({"FAILED"})
CANCELLED = frozenset({"CANCELLED"})
Json = dict[str, Any]
Handle = OperationHandle[Any]


class Kind(StrEnum):
    """What a problem is counted as."""

    LOST = "lost"
    DUPLICATED = "duplicated"
    LEFT_BEHIND = "left_behind"


class Problem(NamedTuple):
    """Something wrong, in words."""

    kind: Kind
    text: str


class Run:
    """`tag` is unique in the whole suite; `tenant`, `instance_id` are the scenario's own or those of its fixture."""

    def __init__(self, lane: Lane, tag: str, tenant: str = "", instance_id: str = "") -> None:
        self.lane = lane
        self.tag = tag
        self.tenant = tenant or f"t-{tag}"
        self.instance_id = instance_id or f"i-{tag}"
        self.binding_id = f"b-{tag}"
        self.successor_id = f"s-{tag}"
        self.plan = PLAN
        self.problems: list[Problem] = []
        self.expected: dict[str, frozenset[str]] = {}
        self.answered: dict[str, str] = {}
        self.cancelled: set[str] = set()
        self.repeating = False
        self.sessions: list[Connection] = []

    def report(self, kind: Kind, text: str) -> None:
        """Note a problem."""
        self.problems.append(Problem(kind, text))

    async def client(self) -> Client:
        """A client of the broker that runs now."""
        return await self.lane.connected(self.tenant)

    # Asking

    async def ask(self, key: str, expected: frozenset[str], call: Callable[[Client, str], Awaitable[Handle]]) -> Handle:
        """Send a request, or repeat it; `expected` are the states in which its operation may end."""
        self.expected[key] = expected
        handle = await call(await self.client(), f"{self.tag}-{key}")
        first = self.answered.setdefault(key, handle.id)
        if first != handle.id:
            self.report(Kind.DUPLICATED, f"{key}: answered with operation {first}, repeated with {handle.id}")
        return handle

    async def provision(self, parameters: Json, expected: frozenset[str] = SUCCEEDED, key: str = "provision") -> Handle:
        """Ask for the instance."""
        return await self.ask(
            key, expected,
            lambda client, request: client.provision(
                SERVICE, self.plan, instance_id=self.instance_id, parameters=parameters, request_id=request
            ),
        )  # fmt: skip

    async def update(self, parameters: Json, expected: frozenset[str] = SUCCEEDED, key: str = "update") -> Handle:
        """Ask for a change of the instance."""
        return await self.ask(
            key, expected,
            lambda client, request: client.update(self.instance_id, parameters=parameters, request_id=request),
        )  # fmt: skip

    async def deprovision(self, key: str = "deprovision") -> Handle:
        """Give the instance back."""
        return await self.ask(
            key, SUCCEEDED,
            lambda client, request: client.deprovision(self.instance_id, allow_missing=True, request_id=request),
        )  # fmt: skip

    async def bind(
        self, parameters: Json | None = None, expected: frozenset[str] = SUCCEEDED, ttl: float | None = None
    ) -> Handle:
        """Ask for the binding."""
        return await self.ask(
            "bind", expected,
            lambda client, request: client.bind(
                self.instance_id, binding_id=self.binding_id, parameters=parameters or {}, ttl=ttl, request_id=request
            ),
        )  # fmt: skip

    async def unbind(self, key: str = "unbind", binding_id: str = "") -> Handle:
        """Give the binding back."""
        return await self.ask(
            key, SUCCEEDED,
            lambda client, request: client.unbind(
                self.instance_id, binding_id or self.binding_id, allow_missing=True, request_id=request
            ),
        )  # fmt: skip

    async def renew(self, ttl: float, expected: frozenset[str] = SUCCEEDED) -> Handle:
        """Move the end of the binding."""
        return await self.ask(
            "renew", expected,
            lambda client, request: client.renew(
                self.instance_id, self.binding_id, ttl=ttl, allow_shorter=True, request_id=request
            ),
        )  # fmt: skip

    async def rotate(self, overlap: float) -> Handle:
        """Ask for the successor of the binding."""
        return await self.ask(
            "rotate", SUCCEEDED,
            lambda client, request: client.rotate(
                self.instance_id, self.binding_id, successor_id=self.successor_id, overlap=overlap, request_id=request
            ),
        )  # fmt: skip

    async def cancel(self, key: str) -> None:
        """Cancel the operation of `key`; when repeated it may have ended already."""
        self.cancelled.add(key)
        try:
            await (await self.client()).cancel(self.answered[key])
        except FailedPreconditionError as error:
            if not self.repeating:
                self.report(Kind.LOST, f"{key}: cancel refused: {error}")

    # Waiting and judging

    async def end(self, handle: Handle, key: str) -> None:
        """Wait for the end of an operation and judge it."""
        if not handle.id:
            return  # nothing was there to do
        async with asyncio.timeout(END_SECONDS):
            async for _ in handle:
                pass
        status = handle.status
        if status.state not in self.expected[key]:
            why = f" ({status.failure.reason}: {status.failure.message})" if status.failure else ""
            self.report(Kind.LOST, f"{key}: ended {status.state}{why}, not {'/'.join(sorted(self.expected[key]))}")

    async def end_all(self) -> None:
        """Wait for the end of everything that was answered."""
        client = await self.client()
        for key, operation in self.answered.items():
            if operation:
                await self.end(await client.operation(operation), key)

    async def end_own(self, verb: str) -> None:
        """Wait for the end of what the broker does to the instance by itself; each must succeed."""
        client = await self.client()
        for status in [s async for s in client.operations(f'instance_id = "{self.instance_id}" AND verb = "{verb}"')]:
            handle = await client.operation(status.operation_id)
            async with asyncio.timeout(END_SECONDS):
                async for _ in handle:
                    pass
            self.check(f"a {verb} of the broker", handle.status.state, "SUCCEEDED")

    async def end_clean_ups(self) -> None:
        """Wait until no clean-up of the instance is left, and nothing to clean up."""
        client = await self.client()
        for _ in range(MAX_CLEAN_UPS):
            where = f'instance_id = "{self.instance_id}" AND verb = "CLEANUP"'
            open_ones = [status async for status in client.operations(where) if not status.done]
            if not open_ones:
                break
            async with asyncio.timeout(END_SECONDS):
                async for _ in await client.operation(open_ones[0].operation_id):
                    pass
        self.check("what is left to clean up", (await client.instance(self.instance_id)).cleanup_required, ())

    async def check_known(self) -> None:
        """After a restart: every answered operation is known."""
        client = await self.client()
        for key, operation in self.answered.items():
            try:
                if operation:
                    await client.operation(operation)
            except NotFoundError:
                self.report(Kind.LOST, f"{key}: operation {operation} was answered and is unknown after the restart")

    async def check_stored(self) -> None:
        """After a restart, before anything is repeated: every request and cancel that was committed is there."""
        client = await self.client()
        for key in self.expected:
            if not await self.find(key):
                self.report(Kind.LOST, f"{key}: its request was committed and is unknown after the restart")
        for key in self.cancelled:
            if not (await client.operation(self.answered[key])).status.cancel_requested:
                self.report(Kind.LOST, f"{key}: its cancel was committed and is unknown after the restart")

    async def find(self, key: str) -> str:
        """The operation that the request of `key` made, empty when there is none."""
        request = f"{self.tag}-{key}"
        async for status in (await self.client()).operations(f'instance_id = "{self.instance_id}"'):
            if status.request_id == request:
                return status.operation_id
        return ""

    async def check_records(self) -> None:
        """One operation per request, one incarnation per id."""
        client = await self.client()
        seen = [s async for s in client.operations(f'instance_id = "{self.instance_id}"') if s.request_id]
        own = [status for status in seen if status.request_id.startswith(f"{self.tag}-")]
        for key, operation in self.answered.items():
            count = sum(status.request_id == f"{self.tag}-{key}" for status in own)
            if operation and not count:
                self.report(Kind.LOST, f"{key}: no operation is recorded for its request")
            if count > 1:
                self.report(Kind.DUPLICATED, f"{key}: {count} operations for one request")
        uids = {status.instance_uid for status in own}
        if len(uids) > 1:
            self.report(Kind.DUPLICATED, f"{len(uids)} incarnations of {self.instance_id}: {sorted(uids)}")
        for name in (self.binding_id, self.successor_id):
            bindings = {status.binding_uid for status in own if status.binding_id == name}
            if len(bindings) > 1:
                self.report(Kind.DUPLICATED, f"{len(bindings)} incarnations of {name}: {sorted(bindings)}")

    async def check_backend(self) -> None:
        """What there is in the server is what the records say."""
        recorded = await self.lane.recorded(self.tenant)
        there = await self.lane.names()
        for name in sorted(recorded - there):
            self.report(Kind.LOST, f"recorded, not there: {name}")
        for name in sorted(there - recorded):
            self.report(Kind.LEFT_BEHIND, f"there, not recorded: {name}")

    async def state(self) -> str:
        """State of the instance; DELETED when there is none."""
        try:
            return (await (await self.client()).instance(self.instance_id)).state
        except NotFoundError:
            return "DELETED"

    async def binding_state(self, binding_id: str = "") -> str:
        """State of the binding; DELETED when there is none."""
        try:
            return (await (await self.client()).binding(self.instance_id, binding_id or self.binding_id)).state
        except NotFoundError:
            return "DELETED"

    def check(self, what: str, found: object, wanted: object) -> None:
        """Judge a fact."""
        if found != wanted:
            self.report(Kind.LOST, f"{what} is {found}, not {wanted}")

    # Using

    async def log_in(self, binding_id: str = "") -> Connection:
        """A session with the binding's credentials; it is closed when the run ends."""
        secrets = await (await self.client()).credentials(self.instance_id, binding_id or self.binding_id)
        session = await open_session(secrets.reveal())
        self.sessions.append(session)
        return session

    async def check_usable(self, binding_id: str = "") -> None:
        """The binding's credentials let in, and SQL works."""
        try:
            session = await self.log_in(binding_id)
            await session.execute("CREATE TABLE used (n int); INSERT INTO used VALUES (41)")
            answer = await session.fetchval("UPDATE used SET n = n + 1 RETURNING n")
            await session.execute("DROP TABLE used")
            self.check("what SQL answers", answer, 42)
        except (asyncpg.PostgresError, OSError, NotFoundError, FailedPreconditionError) as error:
            self.report(Kind.LOST, f"the binding does not work: {type(error).__name__}: {error}")

    async def check_refused(self, secrets: dict[str, Any]) -> None:
        """Credentials of a binding that is gone let nobody in, and the sessions made with them are over."""
        for session in self.sessions:
            try:
                await session.fetchval("SELECT 1", timeout=LOGIN_SECONDS)
            except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError):
                continue
            self.report(Kind.LEFT_BEHIND, "a session of a binding that is gone still works")
        try:
            session = await open_session(secrets)
        except asyncpg.PostgresError:
            return
        self.report(Kind.LEFT_BEHIND, "credentials of a binding that is gone let in")
        await session.close(timeout=LOGIN_SECONDS)

    async def close(self) -> None:
        """End the sessions that are still open."""
        for session in self.sessions:
            session.terminate()
        self.sessions.clear()


async def open_session(secrets: dict[str, Any]) -> Connection:
    """Log in with credentials as a consumer would."""
    return await asyncpg.connect(
        host=secrets["host"], port=int(secrets["port"]), user=secrets["username"], password=secrets["password"],
        database=secrets["database"], timeout=LOGIN_SECONDS, command_timeout=LOGIN_SECONDS,
    )  # fmt: skip
