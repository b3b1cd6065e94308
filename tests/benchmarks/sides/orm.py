"""The yardstick of the ORM row: Provision as it is often written, with an async ORM and one commit per request.

It checks the parameters by the same schema, writes the same rows (instance, operation, an event for each) in one transaction
and answers with the same messages. It has no interceptors, log, idempotency, conflict rules or engine, all of which favours
it. One connection: SQLite takes one writer, and more of them only wait for each other's lock (or fail for it).
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import jsonschema_rs
from google.protobuf import json_format
from sqlalchemy import ForeignKey, event, select
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "clients" / "python"))

from purveyor.v1 import broker_service_pb2 as pb
from purveyor.v1 import broker_service_pb2_grpc
from purveyor.v1.instance_pb2 import Instance
from purveyor.v1.operation_pb2 import Operation


class Base(DeclarativeBase):  # type: ignore[misc] # not installed where types are checked
    pass


class InstanceRow(Base):
    __tablename__ = "instances"
    uid: Mapped[str] = mapped_column(primary_key=True)
    tenant: Mapped[str] = mapped_column(index=True)
    instance_id: Mapped[str]
    service_id: Mapped[str]
    plan_id: Mapped[str]
    state: Mapped[int]
    parameters: Mapped[str]
    created_at: Mapped[datetime]


class OperationRow(Base):
    __tablename__ = "operations"
    operation_id: Mapped[str] = mapped_column(primary_key=True)
    instance_uid: Mapped[str] = mapped_column(ForeignKey("instances.uid"), index=True)
    state: Mapped[int]
    wanted: Mapped[str]
    due_at: Mapped[datetime] = mapped_column(index=True)
    created_at: Mapped[datetime]


class EventRow(Base):
    __tablename__ = "events"
    revision: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    tenant: Mapped[str] = mapped_column(index=True)
    body: Mapped[str]


class Service(broker_service_pb2_grpc.BrokerServiceServicer):
    """Provision, and ListInstances for the check afterwards."""

    def __init__(self, sessions: Any, schema: dict[str, Any]) -> None:
        self._sessions = sessions
        self._validator = jsonschema_rs.validator_for(schema)

    async def Provision(self, request: Any, context: Any) -> Any:
        parameters = json_format.MessageToDict(request.parameters)
        for error in self._validator.iter_errors(parameters):
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, error.message)
        now, uid, operation_id = datetime.now(UTC), str(uuid.uuid4()), str(uuid.uuid4())
        instance_id, text = request.instance_id or str(uuid.uuid4()), json.dumps(parameters)
        kind = {"service_id": request.service_id, "plan_id": request.plan_id}
        instance = InstanceRow(
            uid=uid, tenant=request.tenant, instance_id=instance_id, state=1, parameters=text, created_at=now, **kind
        )
        operation = OperationRow(
            operation_id=operation_id, instance_uid=uid, state=1, wanted=text, due_at=now, created_at=now
        )
        events = [EventRow(tenant=request.tenant, body=text) for _ in range(2)]
        async with self._sessions() as session:
            session.add_all([instance, operation, *events])
            await session.commit()
        return _answer(request, instance, operation)

    async def ListInstances(self, request: Any, context: Any) -> Any:
        async with self._sessions() as session:
            ids = await session.scalars(select(InstanceRow.instance_id).where(InstanceRow.tenant == request.tenant))
            return pb.ListInstancesResponse(instances=[Instance(instance_id=found) for found in ids])


def _answer(request: Any, row: InstanceRow, made: OperationRow) -> Any:
    operation = Operation(operation_id=made.operation_id, tenant=row.tenant, instance_id=row.instance_id)
    operation.create_time.FromDatetime(made.created_at)
    instance = Instance(tenant=row.tenant, instance_id=row.instance_id, uid=row.uid, state=row.state)
    instance.service_id, instance.plan_id = row.service_id, row.plan_id
    instance.create_time.FromDatetime(row.created_at)
    instance.last_operation.CopyFrom(operation)
    for settings in (instance.desired, instance.in_flight):
        settings.service_id, settings.plan_id = row.service_id, row.plan_id
        settings.parameters.CopyFrom(request.parameters)
    instance.parameters.CopyFrom(request.parameters)
    return pb.ProvisionResponse(operation=operation, instance=instance)


def durable(connection: Any, _record: Any) -> None:
    """As the broker's store has it."""
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.close()


async def serve(address: str, folder: Path) -> None:
    """Serve until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    engine = create_async_engine(f"sqlite+aiosqlite:///{folder / 'orm.db'}", pool_size=1, max_overflow=0)
    event.listen(engine.sync_engine, "connect", durable)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    schema = json.loads((folder / "schema.json").read_text())
    server = grpc.aio.server()
    sessions = async_sessionmaker(engine, expire_on_commit=False)
    service = Service(sessions, schema)  # type: ignore[abstract] # the other verbs answer UNIMPLEMENTED
    broker_service_pb2_grpc.add_BrokerServiceServicer_to_server(service, server)
    server.add_insecure_port(address)
    await server.start()
    await stop.wait()
    await server.stop(0)
    await engine.dispose()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], Path(sys.argv[2])))
