"""The methods of AdminService that are about campaigns: decode, one use-case, encode."""

# ruff: noqa: ARG002 - as in rpc/admin.py

from __future__ import annotations

from contextlib import aclosing
from datetime import timedelta
from typing import Any

from purveyor.v1 import campaign_pb2 as pb
from purveyor_server.lifecycle.admin.administration import Administration
from purveyor_server.rpc.calls import current_call, current_caller
from purveyor_server.rpc.convert import campaigns as convert
from purveyor_server.rpc.convert.admin import decode_act
from purveyor_server.rpc.convert.requests import span

HEARTBEAT = timedelta(seconds=15)
LONGEST = timedelta(minutes=5)


class CampaignMethods:
    """Mixed into the service of operators."""

    _admin: Administration

    async def CreateCampaign(self, request: pb.CreateCampaignRequest, context: Any) -> pb.CreateCampaignResponse:
        wish, act = convert.decode_wish(request), decode_act(request)
        begun = await self._admin.begin_campaign(current_caller(), wish, act)
        return pb.CreateCampaignResponse(
            campaign=convert.encode_campaign(begun.campaign),
            total=begun.total,
            items=[convert.encode_item(item) for item in begun.items],
            next_page_token=begun.next_page_token,
        )

    async def GetCampaign(self, request: pb.GetCampaignRequest, context: Any) -> pb.GetCampaignResponse:
        view = await self._admin.campaign(current_caller(), request.campaign_id)
        return pb.GetCampaignResponse(campaign=convert.encode_view(view))

    async def ListCampaigns(self, request: pb.ListCampaignsRequest, context: Any) -> pb.ListCampaignsResponse:
        page = await self._admin.list_campaigns(current_caller(), request.page_size, request.page_token)
        found = [convert.encode_campaign(campaign) for campaign in page.items]
        return pb.ListCampaignsResponse(campaigns=found, next_page_token=page.next_page_token)

    async def ListCampaignItems(
        self, request: pb.ListCampaignItemsRequest, context: Any
    ) -> pb.ListCampaignItemsResponse:
        page = await self._admin.list_campaign_items(current_caller(), convert.decode_listing(request))
        found = [convert.encode_item(item) for item in page.items]
        return pb.ListCampaignItemsResponse(items=found, next_page_token=page.next_page_token)

    async def PauseCampaign(self, request: pb.PauseCampaignRequest, context: Any) -> pb.PauseCampaignResponse:
        view = await self._admin.pause_campaign(current_caller(), request.campaign_id, decode_act(request))
        return pb.PauseCampaignResponse(campaign=convert.encode_view(view))

    async def ResumeCampaign(self, request: pb.ResumeCampaignRequest, context: Any) -> pb.ResumeCampaignResponse:
        view = await self._admin.resume_campaign(current_caller(), request.campaign_id, decode_act(request))
        return pb.ResumeCampaignResponse(campaign=convert.encode_view(view))

    async def AbortCampaign(self, request: pb.AbortCampaignRequest, context: Any) -> pb.AbortCampaignResponse:
        view = await self._admin.abort_campaign(current_caller(), request.campaign_id, decode_act(request))
        return pb.AbortCampaignResponse(campaign=convert.encode_view(view))

    async def RetryCampaign(self, request: pb.RetryCampaignRequest, context: Any) -> pb.RetryCampaignResponse:
        view, items = await self._admin.retry_campaign(current_caller(), request.campaign_id, decode_act(request))
        return pb.RetryCampaignResponse(campaign=convert.encode_view(view), items=items)

    async def WatchCampaign(self, request: pb.WatchCampaignRequest, context: Any) -> None:
        call, heartbeat = current_call(), min(span(request, "heartbeat_interval", HEARTBEAT), LONGEST)
        watching = self._admin.watch_campaign(current_caller(), request.campaign_id, heartbeat)
        async with aclosing(watching) as newest:  # type: ignore[type-var] # a generator behind an iterator's type
            async for view in newest:
                await call.write(pb.WatchCampaignResponse(campaign=convert.encode_view(view)))
