"""Campaigns as messages."""

from __future__ import annotations

from collections.abc import Sequence

from purveyor.v1 import campaign_pb2 as pb
from purveyor_server.domain.campaigns import Aim, Campaign, CampaignState, Item, ItemState, Pace
from purveyor_server.lifecycle.admin.campaigns import CampaignView, CampaignWish, ItemListing
from purveyor_server.rpc.convert.values import to_timestamp

STATES = {state: pb.Campaign.State.Value(f"STATE_{state}") for state in CampaignState}
ITEM_STATES = {state: pb.CampaignItem.State.Value(f"STATE_{state}") for state in ItemState}
_ITEM_STATES = {number: state for state, number in ITEM_STATES.items()}


def decode_wish(request: pb.CreateCampaignRequest) -> CampaignWish:
    """What is ordered."""
    return CampaignWish(
        aim=Aim(
            service_id=request.service_id,
            from_plan_id=request.from_plan_id,
            to_plan_id=request.to_plan_id,
            tenant=request.tenant,
        ),
        canary=request.canary if request.HasField("canary") else None,
        batch_size=request.batch_size,
        parallelism=request.parallelism if request.HasField("parallelism") else Pace().parallelism,
        max_failures=request.max_failures,
        page_size=request.page_size,
        page_token=request.page_token,
    )


def decode_listing(request: pb.ListCampaignItemsRequest) -> ItemListing:
    """Which items are asked for; a state that this version does not know is as if none was named."""
    return ItemListing(
        campaign_id=request.campaign_id,
        state=_ITEM_STATES.get(request.state),
        page_size=request.page_size,
        page_token=request.page_token,
    )


def encode_view(view: CampaignView) -> pb.Campaign:
    """A campaign with its failures."""
    return encode_campaign(view.campaign, view.failures)


def encode_campaign(campaign: Campaign, failures: Sequence[Item] = ()) -> pb.Campaign:
    """A campaign."""
    aim, pace, counts = campaign.aim, campaign.pace, campaign.counts
    return pb.Campaign(
        campaign_id=campaign.campaign_id,
        service_id=aim.service_id,
        from_plan_id=aim.from_plan_id,
        to_plan_id=aim.to_plan_id,
        to_version=campaign.to_version,
        tenant=aim.tenant,
        canary=pace.canary,
        batch_size=pace.batch_size,
        parallelism=pace.parallelism,
        max_failures=pace.max_failures,
        state=STATES[campaign.state],
        problem=campaign.problem,
        pending=counts.pending,
        running=counts.running,
        succeeded=counts.succeeded,
        failed=counts.failed,
        skipped=counts.skipped,
        batch=campaign.batch,
        failures=[encode_item(item) for item in failures],
        reason=campaign.reason,
        principal=campaign.principal,
        create_time=to_timestamp(campaign.created_at),
        update_time=to_timestamp(campaign.updated_at),
        end_time=None if campaign.ended_at is None else to_timestamp(campaign.ended_at),
    )


def encode_item(item: Item) -> pb.CampaignItem:
    """One instance of it."""
    return pb.CampaignItem(
        place=item.place,
        tenant=item.tenant,
        instance_id=item.instance_id,
        instance_uid=item.uid,
        state=ITEM_STATES[item.state],
        operation_id=item.operation_id,
        code=item.code,
        message=item.message,
        attempt=item.attempt,
        start_time=None if item.started_at is None else to_timestamp(item.started_at),
        end_time=None if item.ended_at is None else to_timestamp(item.ended_at),
    )
