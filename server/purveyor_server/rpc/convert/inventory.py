"""Inventories of platforms as messages."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

from purveyor.v1 import inventory_pb2 as pb
from purveyor_server.lifecycle.admin.stranding import Stranded
from purveyor_server.lifecycle.inventories import Begin, Part, Taken
from purveyor_server.rpc.convert.values import from_timestamp, to_timestamp
from purveyor_server.rpc.interceptors.messages import Unreadable


async def decode_parts(stream: AsyncIterator[Any]) -> AsyncGenerator[Part, None]:
    """The messages of an inventory as they come. Raises MESSAGE_TOO_LARGE, INVALID_REQUEST."""
    async for message in stream:
        if isinstance(message, Unreadable):
            raise message.error
        yield _part(message)


def _part(message: pb.SyncInventoryRequest) -> Part:
    return Part(
        tenant=message.tenant,
        begin=_begin(message.begin) if message.HasField("begin") else None,
        instance_ids=tuple(message.instance_ids),
        end=message.HasField("end"),
    )


def _begin(begin: pb.InventoryBegin) -> Begin:
    return Begin(
        snapshot_id=begin.snapshot_id,
        expected=begin.total_expected,
        taken_at=from_timestamp(begin, "snapshot_time"),
        validate_only=begin.validate_only,
    )


def encode_taken(taken: Taken) -> pb.SyncInventoryResponse:
    """What became of it."""
    report = taken.report
    return pb.SyncInventoryResponse(
        snapshot_id=report.snapshot_id,
        named=report.named,
        known=report.known,
        unknown=report.unknown,
        orphaned_instance_ids=report.orphaned,
        healed_instance_ids=report.healed,
        orphans=report.missing,
        replayed=taken.replayed,
    )


def encode_stranded(found: Stranded) -> pb.PlatformOrphan:
    """A platform-orphan."""
    instance = found.instance
    return pb.PlatformOrphan(
        tenant=instance.tenant,
        instance_id=instance.instance_id,
        uid=instance.uid,
        owner=instance.owner,
        since_time=to_timestamp(instance.platform_orphan_since),
        seen_time=to_timestamp(found.seen_at),
        due_time=to_timestamp(found.due_at),
        kept=found.kept,
    )
