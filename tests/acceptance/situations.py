"""The rows of the conflict matrix, brought about in a running broker and held there.

Each row's builder makes one instance per id in that situation; `Scene.close` lets everything go on.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from purveyor.v1.instance_pb2 import Instance
from purveyor.v1.operation_pb2 import Operation, Step
from purveyor_server.domain.names import outside_name
from tests.acceptance.house import Gate, House, gate, holding, span, until_waiting
from tests.postgres_server import TestServer

CREATE = {"service_id": "s1", "plan_id": "small"}
TARGET, OTHER_TARGET = {"connection_limit": 7}, {"connection_limit": 8}
END, OTHER_END = (Timestamp(seconds=int(time.time()) + hours * 3600) for hours in (1, 2))  # of bindings


class Scene:
    """A row: `flight` has the operation in flight by instance id, `create` the request that each instance came from."""

    def __init__(self, house: House, postgres: TestServer, bound: frozenset[str] = frozenset()) -> None:
        self.house = house
        self.postgres = postgres
        self.bound = bound  # ids that get the binding `app` first
        self.create: dict[str, Any] = dict(CREATE)
        self.binding: dict[str, Any] = {}  # of the request that each binding came from
        self.flight: dict[str, str] = {}
        self._stack = AsyncExitStack()

    async def shut(self) -> Gate:
        """Hold back whatever changes roles and databases."""
        return await self._stack.enter_async_context(gate(self.postgres))

    async def hold(self, *pieces: tuple[str, str]) -> None:
        """Hold the locks of pieces."""
        await self._stack.enter_async_context(holding(self.postgres, *pieces))

    async def close(self) -> None:
        """Let all go on."""
        await self._stack.aclose()

    async def ready(self, ids: Sequence[str]) -> dict[str, Instance]:
        """READY instances from `create`, those of `bound` with a binding; one after the other."""
        made = {}
        for instance_id in ids:
            answer = await self.house.ask("Provision", instance_id=instance_id, **self.create, wait=span(20))
            assert answer.instance.state == Instance.STATE_READY, answer
            made[instance_id] = answer.instance
            if instance_id in self.bound:
                await self.house.active(instance_id)
        return made

    async def start(self, ids: Sequence[str], method: str, **fields: Any) -> None:
        """Accept `method` on each; its operation is in flight."""
        calls = (self.house.ask(method, instance_id=instance_id, **fields) for instance_id in ids)
        for instance_id, answer in zip(ids, await asyncio.gather(*calls), strict=True):
            self.flight[instance_id] = answer.operation.operation_id

    async def find_cleanups(self) -> None:
        """The clean-ups that follow what was in flight are in flight now."""
        for operation in await self.house.operations("verb = CLEANUP"):
            if not operation.done:
                self.flight[operation.instance_id] = operation.operation_id


Build = Callable[[Scene, Sequence[str]], Awaitable[None]]


async def never(scene: Scene, ids: Sequence[str]) -> None:
    """Never was."""
    await scene.shut()


async def provisioning(scene: Scene, ids: Sequence[str]) -> None:
    """The group's CREATE ROLE hangs."""
    await scene.shut()
    await scene.start(ids, "Provision", **scene.create)


async def ready(scene: Scene, ids: Sequence[str]) -> None:
    """Nothing in flight."""
    await scene.ready(ids)
    await scene.shut()


async def binding_work(scene: Scene, ids: Sequence[str]) -> None:
    """The CREATE ROLE of another binding hangs."""
    await scene.ready(ids)
    await scene.shut()
    await scene.start(ids, "Bind", binding_id="busy")


async def ready_cleanup(scene: Scene, ids: Sequence[str]) -> None:
    """An update was cancelled, and what it began cannot settle within its budget."""
    scene.create["plan_id"] = "unlucky"
    made = await scene.ready(ids)
    await scene.hold(*(("extensions", made[instance_id].uid) for instance_id in ids))
    await scene.start(ids, "UpdateInstance", parameters={"extensions": ["citext"]})
    await _cancel_started(scene, ids, "extensions")
    await scene.shut()


async def updating(scene: Scene, ids: Sequence[str]) -> None:
    """The ALTER DATABASE hangs."""
    await scene.ready(ids)
    await scene.shut()
    await scene.start(ids, "UpdateInstance", parameters=TARGET)


async def deprovisioning(scene: Scene, ids: Sequence[str]) -> None:
    """The first change of the removal hangs."""
    await scene.ready(ids)
    await scene.shut()
    await scene.start(ids, "Deprovision", cascade=True)


async def delete_failed(scene: Scene, ids: Sequence[str]) -> None:
    """The removal's time was over while an earlier run still held its pieces."""
    scene.create["plan_id"] = "hasty"
    made = await scene.ready(ids)
    bindings = (await scene.house.ask("ListBindings")).bindings
    logins = [("login", binding.uid) for binding in bindings if binding.instance_id in made]
    await scene.hold(*(("database", made[instance_id].uid) for instance_id in ids), *logins)
    await scene.start(ids, "Deprovision", cascade=True)
    await asyncio.gather(*(scene.house.ended(scene.flight[instance_id]) for instance_id in ids))
    await scene.shut()


async def failed(scene: Scene, ids: Sequence[str]) -> None:
    """The server has no such extension; everything was undone."""
    scene.create["parameters"] = {"extensions": ["not_there"]}
    await scene.start(ids, "Provision", **scene.create)
    await asyncio.gather(*(scene.house.ended(scene.flight[instance_id]) for instance_id in ids))
    await scene.shut()


async def failed_kept(scene: Scene, ids: Sequence[str]) -> None:
    """The server has no such extension; nothing was undone."""
    scene.create["plan_id"] = "kept"
    await failed(scene, ids)


async def failed_cleanup(scene: Scene, ids: Sequence[str]) -> None:
    """A provision was cancelled, and what it began cannot settle within its budget."""
    scene.create["plan_id"] = "unlucky"
    shut = await scene.shut()
    await scene.start(ids, "Provision", **scene.create)
    made = {instance.instance_id: instance.uid for instance in await scene.house.instances()}
    await scene.hold(*(("database", made[instance_id]) for instance_id in ids))
    await shut.open()
    await _cancel_started(scene, ids, "database")
    await shut.shut()


async def deleted(scene: Scene, ids: Sequence[str]) -> None:
    """Tombstones."""
    await scene.ready(ids)
    await scene.start(ids, "Deprovision")
    await asyncio.gather(*(scene.house.ended(scene.flight[instance_id]) for instance_id in ids))
    await scene.shut()


async def _cancel_started(scene: Scene, ids: Sequence[str], step: str) -> None:
    """Cancel each operation in flight once `step` is started; in the end a clean-up is in flight."""

    def started(operation: Operation) -> bool:
        return any(found.name == step and found.state == Step.STATE_STARTED for found in operation.steps)

    async def cancel(operation_id: str) -> None:
        await scene.house.follow(operation_id, started)
        await scene.house.ask("CancelOperation", operation_id=operation_id)
        assert (await scene.house.ended(operation_id)).cleanup_required

    await asyncio.gather(*(cancel(scene.flight[instance_id]) for instance_id in ids))
    await scene.find_cleanups()


BUILDERS: dict[str, Build] = {
    "never was": never,
    "PROVISIONING": provisioning,
    "READY": ready,
    "READY, binding work in flight": binding_work,
    "READY, clean-up of an update in flight": ready_cleanup,
    "UPDATING": updating,
    "DEPROVISIONING": deprovisioning,
    "DELETE_FAILED": delete_failed,
    "FAILED (create)": failed,
    "FAILED (create), clean-up runs or is due": failed_cleanup,
    "FAILED (create), remains kept for an operator": failed_kept,
    "DELETED": deleted,
}


HOME = "home"  # the instance of the rows of bindings; `ids` are binding ids there


async def _bound(scene: Scene, ids: Sequence[str], method: str, **fields: Any) -> None:
    """Accept a bind, an unbind or a renewal of each."""
    calls = (scene.house.ask(method, instance_id=HOME, binding_id=binding_id, **fields) for binding_id in ids)
    for binding_id, answer in zip(ids, await asyncio.gather(*calls), strict=True):
        scene.flight[binding_id] = answer.operation.operation_id


async def _active(scene: Scene, ids: Sequence[str]) -> list[tuple[str, str]]:
    """ACTIVE bindings; their logins as pieces."""
    await scene.ready([HOME])
    made = [await scene.house.active(HOME, binding_id, **scene.binding) for binding_id in ids]
    return [("login", answer.binding.uid) for answer in made]


async def never_bound(scene: Scene, ids: Sequence[str]) -> None:
    """Only the instance is there; one of the ids was bound before."""
    await _active(scene, ids[:1])
    await _bound(scene, ids[:1], "Unbind")
    await scene.house.ended(scene.flight.pop(ids[0]))
    await scene.shut()


async def binding(scene: Scene, ids: Sequence[str]) -> None:
    """The CREATE ROLE hangs."""
    await scene.ready([HOME])
    await scene.shut()
    await _bound(scene, ids, "Bind")


async def active(scene: Scene, ids: Sequence[str]) -> None:
    """Nothing in flight."""
    await _active(scene, ids)
    await scene.shut()


async def active_work(scene: Scene, ids: Sequence[str]) -> None:
    """The ALTER ROLE of a renewal hangs."""
    await _active(scene, ids)
    await scene.shut()
    await _bound(scene, ids, "RenewBinding", expire_time=END, allow_shorter=True)


async def expired(scene: Scene, ids: Sequence[str]) -> None:
    """The time of each is over, and no sweep was there yet."""
    scene.binding["ttl"] = span(1)
    await _active(scene, ids)
    ends = [found.expire_time.ToSeconds() for found in (await scene.house.ask("ListBindings")).bindings]
    async with scene.postgres.superuser() as connection:
        await connection.execute(f"SELECT pg_sleep_until(to_timestamp({max(ends) + 1.1}))")
    await scene.shut()


async def unbinding(scene: Scene, ids: Sequence[str]) -> None:
    """The ALTER ROLE hangs."""
    await _active(scene, ids)
    await scene.shut()
    await _bound(scene, ids, "Unbind")


async def bind_failed(scene: Scene, ids: Sequence[str]) -> None:
    """Cancelled and undone."""
    await scene.ready([HOME])
    shut = await scene.shut()
    await _bound(scene, ids, "Bind")
    await _cancel_all(scene, ids)
    await shut.open()
    await asyncio.gather(*(scene.house.ended(scene.flight[binding_id]) for binding_id in ids))
    await shut.shut()


async def bind_cleanup(scene: Scene, ids: Sequence[str]) -> None:
    """Cancelled; before it was undone the locks were taken by others, who got in line while the step hung."""
    scene.create["plan_id"] = "unlucky"
    await scene.ready([HOME])
    shut = await scene.shut()
    await _bound(scene, ids, "Bind")
    made = (await scene.house.ask("ListBindings", instance_id=HOME)).bindings
    for operation_id in scene.flight.values():
        await scene.house.follow(operation_id, lambda operation: operation.steps)
    await _cancel_all(scene, ids)
    taking = [asyncio.create_task(scene.hold(("login", found.uid))) for found in made]
    await until_waiting(scene.postgres, len(made))
    await shut.open()
    await asyncio.gather(*taking)
    for binding_id in ids:
        assert (await scene.house.ended(scene.flight[binding_id])).cleanup_required
    for operation in await scene.house.operations("verb = CLEANUP"):
        scene.flight[operation.binding_id] = operation.operation_id
    await shut.shut()


async def bind_kept(scene: Scene, ids: Sequence[str]) -> None:
    """What members of the instance are members of was away; nothing was undone."""
    scene.create["plan_id"] = "kept"
    group = outside_name("grp", (await scene.ready([HOME]))[HOME].uid)
    async with scene.postgres.superuser() as connection:
        await connection.execute(f"ALTER ROLE {group} RENAME TO away")
        await _bound(scene, ids, "Bind")
        ended = await asyncio.gather(*(scene.house.ended(scene.flight[binding_id]) for binding_id in ids))
        await connection.execute(f"ALTER ROLE away RENAME TO {group}")
    assert all(operation.cleanup_required for operation in ended), ended
    await scene.shut()


async def revocation_blocked(scene: Scene, ids: Sequence[str]) -> None:
    """The time of the unbind was over while an earlier run still held the login."""
    scene.create["plan_id"] = "hasty"
    await scene.hold(*await _active(scene, ids))
    await _bound(scene, ids, "Unbind")
    await asyncio.gather(*(scene.house.ended(scene.flight[binding_id]) for binding_id in ids))
    await scene.shut()


async def _cancel_all(scene: Scene, ids: Sequence[str]) -> None:
    for binding_id in ids:
        await scene.house.ask("CancelOperation", operation_id=scene.flight[binding_id])


BINDING_BUILDERS: dict[str, Build] = {
    "never was, or DELETED": never_bound,
    "BINDING": binding,
    "ACTIVE": active,
    "ACTIVE, work on it in flight": active_work,
    "EXPIRED": expired,
    "UNBINDING": unbinding,
    "FAILED": bind_failed,
    "FAILED, clean-up runs or is due": bind_cleanup,
    "FAILED, remains kept for an operator": bind_kept,
    "REVOCATION_BLOCKED": revocation_blocked,
}
