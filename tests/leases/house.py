"""What the tests of this folder share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from purveyor_server.domain.audit import AuditOutcome
from purveyor_server.domain.errors import PurveyorError
from purveyor_server.domain.freezes import Freeze
from purveyor_server.domain.model import Binding, Operation
from purveyor_server.domain.policies import LeasePolicy
from purveyor_server.domain.states import OperationState
from purveyor_server.kit.clock import ManualClock
from purveyor_server.lifecycle.contract import ITSELF, Outcome, Renew, Rotate
from purveyor_server.lifecycle.door import Action
from purveyor_server.lifecycle.recording import record
from purveyor_server.reconcile.leases import ExpiryLoop, RevocationLoop, RotationLoop
from purveyor_server.store.contract import SYSTEM, Page
from purveyor_server.store.leases import Due
from tests.fakes.broker import Broker, bind, open_broker, provision
from tests.fakes.situations import INSTANCE, LOCAL, TENANT, catalog, plan

HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)
POLICY = LeasePolicy(ttl=HOUR, max_ttl=4 * HOUR, renew_before=HOUR / 4, overlap=HOUR / 2)
SECOND = timedelta(seconds=1)


class House(NamedTuple):
    """A broker with an instance, its clock, and shorthands."""

    lab: Broker
    clock: ManualClock

    @property
    def now(self) -> datetime:
        return self.clock.now()

    async def offer(self, policy: LeasePolicy, **changes: Any) -> None:
        """From now on the plan says this."""
        offered = catalog(plan("small", lease=policy, **({"binding_rotatable": True} | changes)), plan("large"))
        await self.lab.store.apply_catalog(str(len(self.lab.catalog)), "", tuple(offered.snapshots.values()))
        self.lab.catalog.append(offered)

    async def active(self, binding_id: str = "app", **changes: Any) -> Binding:
        """A binding that is ACTIVE."""
        made = await self.lab.door.bind(LOCAL, bind(binding_id, **changes))
        await self.lab.end(made.operation)
        return await self.binding(binding_id)

    async def binding(self, binding_id: str = "app") -> Binding:
        found = await self.lab.store.binding(SYSTEM, TENANT, INSTANCE, binding_id)
        assert found is not None
        return found

    async def end(self, outcome: Outcome, state: OperationState = OperationState.SUCCEEDED) -> Operation:
        return await self.lab.end(outcome.operation, state)

    async def renew(self, binding_id: str = "app", **sent: Any) -> Outcome:
        body = {name: str(value) for name, value in sent.items()}
        return await self.lab.door.renew(
            LOCAL, Renew(tenant=TENANT, instance_id=INSTANCE, binding_id=binding_id, body=body, **sent)
        )

    async def rotate(self, binding_id: str = "app", **sent: Any) -> Outcome:
        body = {name: str(value) for name, value in sent.items()}
        return await self.lab.door.rotate(
            LOCAL, Rotate(tenant=TENANT, instance_id=INSTANCE, binding_id=binding_id, body=body, **sent)
        )

    async def refused(self, doing: Any) -> PurveyorError:
        try:
            await doing
        except PurveyorError as refusal:
            return refusal
        raise AssertionError("it was accepted")

    def expiry(self, page: int = 100) -> ExpiryLoop:
        return ExpiryLoop(self.lab.store, self.lab.door, self.clock, every=SECOND, page=page)

    def revocation(self, page: int = 100) -> RevocationLoop:
        return RevocationLoop(self.lab.store, self.lab.door, self.clock, every=SECOND, page=page)

    def rotation(self, per_hour: int = 100, page: int = 100) -> RotationLoop:
        return RotationLoop(self.lab.store, self.lab.door, self.clock, every=SECOND, page=page, per_hour=per_hour)

    async def freeze(self, name: str) -> None:
        noted = record(ITSELF, Action.FREEZE, f"freeze/{name}", self.now, AuditOutcome.DONE, reason="test")
        await self.lab.store.freeze(Freeze(name, "test", "test", self.now), noted)

    async def thaw(self, name: str) -> None:
        await self.lab.store.thaw(name, record(ITSELF, Action.THAW, name, self.now, AuditOutcome.DONE, reason="test"))

    async def due(self, due: Due, until: datetime, limit: int = 1000) -> list[str]:
        return [found.binding_id for found in await self.lab.store.due_bindings(due, until, Page(limit))]

    def later(self, span: timedelta) -> None:
        self.clock.advance(span.total_seconds())

    async def unfinished(self) -> tuple[Operation, ...]:
        return await self.lab.store.every_unfinished(Page(1000))


@asynccontextmanager
async def open_house(folder: Path, policy: LeasePolicy = POLICY, **settings: Any) -> AsyncIterator[House]:
    """A house whose instance is READY."""
    clock = ManualClock()
    async with open_broker(folder, clock, **settings) as lab:
        house = House(lab, clock)
        await house.offer(policy)
        await lab.end((await lab.door.provision(LOCAL, provision())).operation)
        yield house
