"""What operators do about orphans and sweeps, as a part of `AdminClient`."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING
from uuid import uuid4

import grpc.aio

from purveyor import decode
from purveyor.errors import InvalidRequestError, Violation
from purveyor.failures import from_rpc
from purveyor.opened import OpenedClient
from purveyor.orphan_values import InventoryStatus, Orphan, RebuildLine
from purveyor.pages import walk
from purveyor.v1 import orphan_pb2 as messages
from purveyor.v1.admin_service_pb2_grpc import AdminServiceStub

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Sequence
    from typing import Any, TypeVar

    Part = TypeVar("Part")

SWEEP_SECONDS = 3600.0  # the longest sweep or report


class OrphanCalls(OpenedClient):
    """Things in backends that no record stands for."""

    @property
    def _orphan_stub(self) -> AdminServiceStub:
        return AdminServiceStub(self.connection.channel)

    async def orphans(
        self, provider: str = "", *, states: Sequence[str] = (), page_size: int = 0
    ) -> AsyncIterator[Orphan]:
        """What sweeps have seen and no record stands for, of one provider or of all; without `states` what has not ended.

        Raises InvalidRequestError for an unknown state.
        """
        numbers = [state_number(state) for state in states]
        request = messages.ListOrphansRequest(provider=provider, states=numbers, page_size=page_size)
        async for page in walk(self.connection, self._orphan_stub.ListOrphans, request):
            for found in page.orphans:
                yield orphan_of(found)

    async def sweep(self, provider: str, reason: str, *, validate_only: bool = False) -> AsyncIterator[InventoryStatus]:
        """Compare the backend of a provider with the records now, and do what its policy says; how far it is, the last one
        at its end. Raises FailedPreconditionError."""
        request = messages.SweepInventoryRequest(
            provider=provider, reason=reason, request_id=str(uuid4()), validate_only=validate_only
        )
        async with aclosing(self._parts(self._orphan_stub.SweepInventory(request, timeout=SWEEP_SECONDS))) as told:
            async for part in told:
                yield inventory_of(part.inventory)

    async def quarantine_orphan(
        self, provider: str, kind: str, name: str, reason: str, *, validate_only: bool = False
    ) -> Orphan:
        """Make a thing unusable, and keep it; see `failure`. Raises NotFoundError, FailedPreconditionError (IN_USE)."""
        request = messages.QuarantineOrphanRequest(
            provider=provider, kind=kind, name=name, reason=reason, request_id=str(uuid4()), validate_only=validate_only
        )
        return orphan_of((await self.connection.call(self._orphan_stub.QuarantineOrphan, request)).orphan)

    async def release_orphan(
        self, provider: str, kind: str, name: str, reason: str, *, validate_only: bool = False
    ) -> Orphan:
        """Take a quarantine back; sweeps leave it alone from then on. Raises NotFoundError, FailedPreconditionError."""
        request = messages.ReleaseOrphanRequest(
            provider=provider, kind=kind, name=name, reason=reason, request_id=str(uuid4()), validate_only=validate_only
        )
        return orphan_of((await self.connection.call(self._orphan_stub.ReleaseOrphan, request)).orphan)

    async def reap_orphan(
        self, provider: str, kind: str, name: str, reason: str, *, validate_only: bool = False
    ) -> Orphan:
        """Remove a thing for good; see `failure`. Raises NotFoundError, FailedPreconditionError (IN_USE)."""
        request = messages.ReapOrphanRequest(
            provider=provider, kind=kind, name=name, reason=reason, request_id=str(uuid4()), validate_only=validate_only
        )
        return orphan_of((await self.connection.call(self._orphan_stub.ReapOrphan, request)).orphan)

    async def ignore_orphan(
        self, provider: str, kind: str, name: str, reason: str, *, undo: bool = False, validate_only: bool = False
    ) -> Orphan:
        """Have sweeps leave a thing alone, or with `undo` not any more. Raises NotFoundError, FailedPreconditionError."""
        request = messages.IgnoreOrphanRequest(
            provider=provider, kind=kind, name=name, reason=reason, request_id=str(uuid4()),
            undo=undo, validate_only=validate_only,
        )  # fmt: skip
        return orphan_of((await self.connection.call(self._orphan_stub.IgnoreOrphan, request)).orphan)

    async def resume_sweep(
        self, provider: str, reason: str, *, validate_only: bool = False
    ) -> tuple[InventoryStatus | None, bool]:
        """Have the sweeps of a provider go on after a brake; how they are, and whether they had been stopped."""
        request = messages.ResumeSweepRequest(
            provider=provider, reason=reason, request_id=str(uuid4()), validate_only=validate_only
        )
        answer = await self.connection.call(self._orphan_stub.ResumeSweep, request)
        return inventory_of(answer.inventory) if answer.HasField("inventory") else None, answer.resumed

    async def rebuild_report(self) -> AsyncIterator[RebuildLine]:
        """What the markers in the backends say that the store should hold, and records of which no backend has anything."""
        call = self._orphan_stub.RebuildReport(messages.RebuildReportRequest(), timeout=SWEEP_SECONDS)
        async with aclosing(self._parts(call)) as told:
            async for line in told:
                yield RebuildLine(
                    provider=line.provider,
                    finding=decode.enum_name(messages.RebuildReportResponse.Finding, line.finding, "FINDING_"),
                    kind=line.kind,
                    name=line.name,
                    uid=line.uid,
                    revision=line.revision,
                    resource=line.resource,
                    first=line.first,
                    later=line.later,
                    problem=line.problem,
                )

    async def _parts(self, call: grpc.aio.UnaryStreamCall[Any, Part]) -> AsyncGenerator[Part, None]:
        """The messages of a stream, its failure as a PurveyorError."""
        try:
            async for part in call:
                yield part
        except grpc.aio.AioRpcError as error:
            raise from_rpc(error, self.address, "") from error
        finally:
            call.cancel()


def state_number(name: str) -> messages.Orphan.State.ValueType:
    """A state by its name. Raises InvalidRequestError."""
    known = {found.removeprefix("STATE_"): number for found, number in messages.Orphan.State.items() if number}
    if name.upper() not in known:
        text = f"{name!r} is none of {', '.join(known)}"
        raise InvalidRequestError(f"states: {text}", reason="INVALID_REQUEST", violations=(Violation("states", text),))
    return known[name.upper()]


def orphan_of(found: messages.Orphan) -> Orphan:
    """A thing without a record."""
    return Orphan(
        provider=found.provider,
        kind=found.kind,
        name=found.name,
        uid=found.uid,
        revision=found.revision,
        state=decode.enum_name(messages.Orphan.State, found.state, "STATE_"),
        standing=decode.enum_name(messages.Orphan.Standing, found.standing, "STANDING_"),
        sweeps=found.sweeps,
        first_seen_time=decode.time_of(found.first_seen_time),
        last_seen_time=decode.time_of(found.last_seen_time),
        quarantine_time=decode.time_of(found.quarantine_time) if found.HasField("quarantine_time") else None,
        try_time=decode.time_of(found.try_time) if found.HasField("try_time") else None,
        failure=found.failure,
    )


def inventory_of(found: messages.InventoryStatus) -> InventoryStatus:
    """How the sweeps of a provider go."""
    return InventoryStatus(
        provider=found.provider,
        mode=decode.enum_name(messages.InventoryStatus.Mode, found.mode, "MODE_"),
        sweep=found.sweep,
        complete=found.complete,
        owned=found.owned,
        orphans=found.orphans,
        quarantined=found.quarantined,
        reaped=found.reaped,
        failed=found.failed,
        begin_time=decode.time_of(found.begin_time),
        end_time=decode.time_of(found.end_time) if found.HasField("end_time") else None,
        problem=found.problem,
        brake_reason=found.brake_reason,
        brake_time=decode.time_of(found.brake_time) if found.HasField("brake_time") else None,
    )
