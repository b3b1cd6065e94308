"""Lives of instances and bindings on a real PostgreSQL server, with strings of strangers wherever a caller may put one.

Guarantee: a fault is a call that is answered by INTERNAL or UNKNOWN, an operation that ends without a documented reason, a canary
(role, database, table, file) that is not as it was, or anything that is left behind in the server.
Limit: what the provider reads of parameters is little by design; names in the server are made from uids alone.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import asyncpg
import grpc
from google.protobuf import json_format
from google.protobuf.message import Message
from hypothesis import strategies as st

from purveyor.v1 import admin_service_pb2_grpc, adopt_pb2, broker_service_pb2_grpc, drift_pb2, operation_pb2
from purveyor.v1.error_reason_pb2 import ERROR_REASON_INTERNAL
from tests.acceptance.house import request, span
from tests.fuzz.strings import NASTY, ORDINARY, texts, values
from tests.postgres_server import TestServer

TENANT = "acme"
SECONDS = 30.0
WAIT = 20
REFUSED = frozenset(
    {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.FAILED_PRECONDITION}
)
CANARY = "canary"
ROWS = 3


class Life(NamedTuple):
    """What is asked for in one life."""

    instance_id: str
    parameters: dict[str, Any]
    changed: dict[str, Any]
    binding: dict[str, Any]
    labels: dict[str, str]
    context: dict[str, Any]
    successor: str
    reason: str
    source: dict[str, Any]  # of an adoption


_EXTENSIONS = st.lists(st.one_of(texts(200), ORDINARY), max_size=3)
_PARAMETERS = st.one_of(
    st.fixed_dictionaries({}, optional={"extensions": _EXTENSIONS, "connection_limit": values()}),
    st.dictionaries(texts(60), values(), max_size=3),
)
LIVES = st.builds(
    Life,
    st.one_of(st.sampled_from(("drop-table", "a.b~c", "pg_catalog", "...") ), st.from_regex(r"[A-Za-z0-9._~-]{1,40}", fullmatch=True)),
    _PARAMETERS,
    _PARAMETERS,
    st.one_of(st.dictionaries(texts(60), values(), max_size=2), st.fixed_dictionaries({"connection_limit": values()})),
    st.dictionaries(texts(40), texts(200), max_size=2),
    st.dictionaries(texts(40), values(), max_size=2),
    st.one_of(st.just(""), st.from_regex(r"[A-Za-z0-9._~-]{1,40}", fullmatch=True), texts(100)),
    st.one_of(st.just("a trial"), texts(400)),
    st.one_of(
        st.fixed_dictionaries({"database": st.one_of(texts(80), st.sampled_from((CANARY, *NASTY)))}),
        st.dictionaries(texts(40), values(), max_size=2),
    ),
)  # fmt: skip


class Canaries:
    """Things in the server that no caller may reach."""

    def __init__(self, postgres: TestServer) -> None:
        self._postgres = postgres

    async def put(self) -> None:
        """Make them."""
        async with self._postgres.superuser() as session:
            await session.execute(f"CREATE ROLE {CANARY}")
            await session.execute(f"CREATE DATABASE {CANARY}")
            await session.execute(f"CREATE TABLE {CANARY} AS SELECT generate_series(1, {ROWS}) AS n")

    async def hurt(self) -> list[str]:
        """Which of them are not as they were."""
        async with self._postgres.superuser() as session:
            role = await session.fetchval("SELECT count(*) FROM pg_roles WHERE rolname = $1", CANARY)
            database = await session.fetchval("SELECT count(*) FROM pg_database WHERE datname = $1", CANARY)
            try:
                rows = await session.fetchval(f"SELECT count(*) FROM {CANARY}")
            except asyncpg.UndefinedTableError:
                rows = 0
        files = list(self._postgres.root.rglob(CANARY))
        found = {"role": role == 1, "database": database == 1, "table": rows == ROWS, "no file": not files}
        return [name for name, sound in found.items() if not sound]

    async def take(self) -> None:
        """Remove what is left of them."""
        async with self._postgres.superuser() as session:
            await session.execute(f"DROP TABLE IF EXISTS {CANARY}")
            await session.execute(f"DROP DATABASE IF EXISTS {CANARY}")
            await session.execute(f"DROP ROLE IF EXISTS {CANARY}")

    async def careless(self) -> None:
        """The planted fault: a statement that puts strings together, as a provider without care would."""
        async with self._postgres.superuser() as session:
            for text in NASTY:
                try:
                    await session.execute(f"COMMENT ON ROLE {CANARY} IS '{text}'")
                except (asyncpg.PostgresError, ValueError):
                    continue


class Caller:
    """Sends the calls of one life, and judges what is answered."""

    def __init__(self, channel: grpc.Channel, operators: grpc.Channel, instance_id: str) -> None:
        self.found: list[str] = []
        self._broker: Any = broker_service_pb2_grpc.BrokerServiceStub(channel)  # type: ignore[arg-type] # typed for aio
        self._admin: Any = admin_service_pb2_grpc.AdminServiceStub(operators)  # type: ignore[arg-type] # as above
        self._named = {"tenant": TENANT, "instance_id": instance_id}

    def ask(self, method: str, **fields: Any) -> Any:
        """The answer to a caller, None when refused."""
        message = request(method, wait=span(WAIT), **(self._named | fields))
        return self._sent(method, getattr(self._broker, method), message)

    def order(self, method: str, kind: Any, **fields: Any) -> Any:
        """The answer to an operator, None when refused."""
        message = json_format.ParseDict({**self._named, "wait": f"{WAIT}s", **fields}, kind())
        return self._sent(method, getattr(self._admin, method), message)

    def _sent(self, method: str, call: Any, message: Message) -> Any:
        try:
            answer = call(message, timeout=SECONDS)
        except grpc.RpcError as error:
            if error.code() not in REFUSED:
                self.found.append(f"{method}: {error.code().name} {error.details()!r:.200}")
            return None
        self.found.extend(_judged(method, answer.operation))
        return answer


def live(channel: grpc.Channel, operators: grpc.Channel, life: Life) -> list[str]:
    """One life to its end; what was wrong with it."""
    caller = Caller(channel, operators, life.instance_id)
    ask = caller.ask
    told = {"labels": life.labels, "context": life.context}
    made = ask("Provision", service_id="s1", plan_id="unchecked", parameters=life.parameters, **told)
    if made is not None and made.instance.usable:
        ask("UpdateInstance", parameters=life.changed)
        if ask("Bind", binding_id="app", parameters=life.binding, ttl=span(600)) is not None:
            ask("RenewBinding", binding_id="app", ttl=span(1200))
            ask("RotateBinding", binding_id="app", successor_binding_id=life.successor)
        caller.order("RepairInstance", drift_pb2.RepairInstanceRequest, reason=life.reason)
    if made is not None:
        gone = ask("Deprovision", allow_missing=True, cascade=True)
        if gone is not None and gone.operation.state != operation_pb2.Operation.STATE_SUCCEEDED:
            caller.found.append(f"Deprovision: {gone.operation.failure.user_message!r:.200}")
    adoption = {"service_id": "s1", "plan_id": "unchecked", "source": life.source, "reason": life.reason}
    if caller.order("AdoptInstance", adopt_pb2.AdoptInstanceRequest, **adoption) is not None:
        caller.found.append(f"AdoptInstance: took {life.source!r:.200}")
    return caller.found


def _judged(method: str, operation: operation_pb2.Operation) -> list[str]:
    if not operation.done:
        return [f"{method}: not done after {WAIT} s: {operation.waiting.detail!r:.200}"]
    failed = operation.state != operation_pb2.Operation.STATE_SUCCEEDED
    return (
        [f"{method}: ended without a reason"]
        if failed and operation.failure.reason in {0, ERROR_REASON_INTERNAL}
        else []
    )
