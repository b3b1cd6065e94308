"""What platforms tell about what they still have, as parts of `Client` and `AdminClient`.

Guarantee: an inventory has one `snapshot_id` however often it is sent, so that sending it again is safe.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

from purveyor import decode
from purveyor.inventory_values import InventoryOutcome, PlatformOrphan
from purveyor.opened import OpenedClient
from purveyor.pages import walk
from purveyor.v1 import inventory_pb2
from purveyor.v1.admin_service_pb2_grpc import AdminServiceStub

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator
    from datetime import datetime
    from typing import Any

    from purveyor.values import Instance

IDS_OF_A_MESSAGE = 4000  # of at most 255 bytes each: below what a message may hold


class InventoryCalls(OpenedClient):
    """For platforms, of the client's tenant."""

    tenant: str

    async def sync_inventory(
        self,
        instance_ids: Iterable[str],
        *,
        snapshot_id: str | None = None,
        snapshot_time: datetime | None = None,
        validate_only: bool = False,
    ) -> InventoryOutcome:
        """Tell which instances there still are of those that this caller has ordered; the others become platform-orphans.

        `snapshot_time`: as of when (None: now); what was ordered later is not judged. Raises FailedPreconditionError
        (INVENTORY_REFUSED) for what looks like an accident: nothing is changed then.
        """
        names = list(instance_ids)
        begin = inventory_pb2.InventoryBegin(
            snapshot_id=snapshot_id or str(uuid4()), total_expected=len(names), validate_only=validate_only
        )
        if snapshot_time is not None:
            begin.snapshot_time.FromDatetime(snapshot_time)
        parts = list(_parts(self.tenant, begin, names))

        async def send(messages: Any, *, timeout: float) -> Any:  # noqa: ASYNC109 - gRPC's own
            return await self.connection.stub.SyncInventory(iter(messages), timeout=timeout)

        method: Any = send  # called as a method of one message is
        request: Any = parts
        answer: inventory_pb2.SyncInventoryResponse = await self.connection.call(
            method, request, request_id=begin.snapshot_id
        )
        return InventoryOutcome(
            snapshot_id=answer.snapshot_id,
            named=answer.named,
            known=answer.known,
            unknown=answer.unknown,
            orphaned=tuple(answer.orphaned_instance_ids),
            healed=tuple(answer.healed_instance_ids),
            orphans=answer.orphans,
            replayed=answer.replayed,
        )

    async def claim(self, instance_id: str, *, validate_only: bool = False) -> Instance:
        """Say of a platform-orphan that it is this caller's own after all. Raises NotFoundError, FailedPreconditionError."""
        request = inventory_pb2.ClaimInstanceRequest(
            tenant=self.tenant, instance_id=instance_id, request_id=str(uuid4()), validate_only=validate_only
        )
        return decode.instance((await self.connection.call(self.connection.stub.ClaimInstance, request)).instance)


class PlatformOrphanCalls(OpenedClient):
    """For operators."""

    async def platform_orphans(self, *, page_size: int = 0) -> AsyncIterator[PlatformOrphan]:
        """Instances of every tenant that their platforms no longer name."""
        request = inventory_pb2.ListPlatformOrphansRequest(page_size=page_size)
        stub = AdminServiceStub(self.connection.channel)
        async for page in walk(self.connection, stub.ListPlatformOrphans, request):
            for found in page.orphans:
                yield _orphan(found)


def _parts(
    tenant: str, begin: inventory_pb2.InventoryBegin, names: list[str]
) -> Iterator[inventory_pb2.SyncInventoryRequest]:
    count = max(1, -(-len(names) // IDS_OF_A_MESSAGE))
    for number in range(count):
        some = names[number * IDS_OF_A_MESSAGE : (number + 1) * IDS_OF_A_MESSAGE]
        message = inventory_pb2.SyncInventoryRequest(tenant=tenant, instance_ids=some)
        if number == 0:
            message.begin.CopyFrom(begin)
        if number == count - 1:
            message.end.SetInParent()
        yield message


def _orphan(found: inventory_pb2.PlatformOrphan) -> PlatformOrphan:
    return PlatformOrphan(
        tenant=found.tenant,
        instance_id=found.instance_id,
        uid=found.uid,
        owner=found.owner,
        since_time=decode.time_of(found.since_time),
        seen_time=decode.time_of(found.seen_time),
        due_time=decode.time_of(found.due_time),
        kept=found.kept,
    )
