"""The methods of AdminService about orphans and inventories; a part of `AdminService`."""

# ruff: noqa: ARG002 - as in rpc/admin.py

from __future__ import annotations

from contextlib import aclosing
from typing import Any

from purveyor.v1 import orphan_pb2 as pb
from purveyor.v1.admin_service_pb2_grpc import AdminServiceServicer
from purveyor_server.lifecycle.admin.administration import Administration
from purveyor_server.rpc.calls import current_call, current_caller
from purveyor_server.rpc.convert import orphans as convert


class OrphanMethods(AdminServiceServicer):
    """See `AdminService`."""

    _admin: Administration

    async def ListOrphans(self, request: pb.ListOrphansRequest, context: Any) -> pb.ListOrphansResponse:
        states = convert.decode_states(request.states)
        page = await self._admin.list_orphans(
            current_caller(), request.provider, states, request.page_size, request.page_token
        )
        found = [convert.encode_sighting(sighting) for sighting in page.items]
        return pb.ListOrphansResponse(orphans=found, next_page_token=page.next_page_token)

    async def SweepInventory(  # type: ignore[override] # as WatchOperation of BrokerService
        self, request: pb.SweepInventoryRequest, context: Any
    ) -> None:
        call = current_call()
        sweeping = self._admin.sweep(current_caller(), request.provider, convert.decode_act(request))
        async with aclosing(sweeping) as told:  # type: ignore[type-var] # a generator behind an iterator's type
            async for swept in told:
                inventory = convert.encode_inventory(swept.inventory)
                await call.write(pb.SweepInventoryResponse(inventory=inventory, done=swept.done))

    async def QuarantineOrphan(self, request: pb.QuarantineOrphanRequest, context: Any) -> pb.QuarantineOrphanResponse:
        key, act = convert.decode_key(request), convert.decode_act(request)
        found = await self._admin.quarantine_orphan(current_caller(), key, act)
        return pb.QuarantineOrphanResponse(orphan=convert.encode_sighting(found))

    async def ReleaseOrphan(self, request: pb.ReleaseOrphanRequest, context: Any) -> pb.ReleaseOrphanResponse:
        key, act = convert.decode_key(request), convert.decode_act(request)
        found = await self._admin.release_orphan(current_caller(), key, act)
        return pb.ReleaseOrphanResponse(orphan=convert.encode_sighting(found))

    async def ReapOrphan(self, request: pb.ReapOrphanRequest, context: Any) -> pb.ReapOrphanResponse:
        key, act = convert.decode_key(request), convert.decode_act(request)
        found = await self._admin.reap_orphan(current_caller(), key, act)
        return pb.ReapOrphanResponse(orphan=convert.encode_sighting(found))

    async def IgnoreOrphan(self, request: pb.IgnoreOrphanRequest, context: Any) -> pb.IgnoreOrphanResponse:
        key, act = convert.decode_key(request), convert.decode_act(request)
        found = await self._admin.ignore_orphan(current_caller(), key, act, undo=request.undo)
        return pb.IgnoreOrphanResponse(orphan=convert.encode_sighting(found))

    async def ResumeSweep(self, request: pb.ResumeSweepRequest, context: Any) -> pb.ResumeSweepResponse:
        act = convert.decode_act(request)
        found, resumed = await self._admin.resume_sweep(current_caller(), request.provider, act)
        inventory = None if found is None else convert.encode_inventory(found)
        return pb.ResumeSweepResponse(inventory=inventory, resumed=resumed)

    async def RebuildReport(  # type: ignore[override] # as above
        self, request: pb.RebuildReportRequest, context: Any
    ) -> None:
        call = current_call()
        async with aclosing(self._admin.rebuild_report(current_caller())) as told:  # type: ignore[type-var] # as above
            async for line in told:
                await call.write(convert.encode_rebuilt(line))
