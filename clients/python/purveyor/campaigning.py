"""What operators ask of campaigns, as a part of `AdminClient`.

Guarantee: every change may be sent again; a watch that breaks is opened again and goes on with the present state, as that of
an operation.
"""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from purveyor import decode, encode
from purveyor.campaign_values import Campaign, CampaignItem, CampaignPlan
from purveyor.errors import PurveyorError
from purveyor.opened import OpenedClient
from purveyor.pages import walk
from purveyor.v1 import campaign_pb2 as messages
from purveyor.v1.admin_service_pb2_grpc import AdminServiceStub
from purveyor.watch import Pace, read

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_ASKED = ("service_id", "from_plan_id", "to_plan_id", "to_version", "tenant", "canary", "batch_size", "parallelism")
_TOLD = ("problem", "pending", "running", "succeeded", "failed", "skipped", "batch", "reason", "principal")


class CampaignCalls(OpenedClient):
    """Moving and upgrading every instance of a plan."""

    @property
    def _campaign_stub(self) -> AdminServiceStub:
        return AdminServiceStub(self.connection.channel)

    async def create_campaign(
        self,
        service_id: str,
        from_plan_id: str,
        reason: str,
        *,
        to_plan_id: str = "",
        tenant: str = "",
        canary: int | None = None,
        batch_size: int = 0,
        parallelism: int | None = None,
        max_failures: int = 0,
        request_id: str = "",
    ) -> Campaign:
        """Move every instance of a plan to `to_plan_id`, or upgrade them all to its maintenance version.

        `canary` instances go first (None: one) and must all succeed; then batches of `batch_size` (0: one batch), at most
        `parallelism` at once (None: 4); it pauses itself when more than `max_failures` fail. Raises InvalidRequestError,
        NotFoundError, FailedPreconditionError.
        """
        request = _order(
            service_id, from_plan_id, reason, to_plan_id, tenant, canary, batch_size, parallelism, max_failures
        )
        request.request_id = request_id or str(uuid4())
        return campaign_of((await self.connection.call(self._campaign_stub.CreateCampaign, request)).campaign)

    async def plan_campaign(
        self,
        service_id: str,
        from_plan_id: str,
        *,
        to_plan_id: str = "",
        tenant: str = "",
        canary: int | None = None,
        batch_size: int = 0,
        parallelism: int | None = None,
        max_failures: int = 0,
        page_size: int = 0,
    ) -> AsyncIterator[CampaignPlan]:
        """A dry run of `create_campaign`, page by page: what would become of each instance, and why."""
        request = _order(
            service_id, from_plan_id, "dry run", to_plan_id, tenant, canary, batch_size, parallelism, max_failures
        )
        request.validate_only, request.page_size = True, page_size
        async for page in walk(self.connection, self._campaign_stub.CreateCampaign, request):
            items = tuple(item_of(item) for item in page.items)
            yield CampaignPlan(campaign=campaign_of(page.campaign), total=page.total, items=items)

    async def campaign(self, campaign_id: str) -> Campaign:
        """How far a campaign is, with the first of its failures. Raises NotFoundError."""
        request = messages.GetCampaignRequest(campaign_id=campaign_id)
        return campaign_of((await self.connection.call(self._campaign_stub.GetCampaign, request)).campaign)

    async def campaigns(self, *, page_size: int = 0) -> AsyncIterator[Campaign]:
        """Campaigns, the newest first."""
        request = messages.ListCampaignsRequest(page_size=page_size)
        async for page in walk(self.connection, self._campaign_stub.ListCampaigns, request):
            for found in page.campaigns:
                yield campaign_of(found)

    async def campaign_items(
        self, campaign_id: str, *, state: str = "", page_size: int = 0
    ) -> AsyncIterator[CampaignItem]:
        """What became of each instance; of one `state` (as in `CampaignItem`) or of all. Raises NotFoundError."""
        request = messages.ListCampaignItemsRequest(campaign_id=campaign_id, page_size=page_size)
        if state:
            request.state = messages.CampaignItem.State.Value(f"STATE_{state.upper()}")
        async for page in walk(self.connection, self._campaign_stub.ListCampaignItems, request):
            for found in page.items:
                yield item_of(found)

    async def pause_campaign(self, campaign_id: str, reason: str, *, validate_only: bool = False) -> Campaign:
        """Begin nothing more for now. Raises NotFoundError, FailedPreconditionError when it is over."""
        request = messages.PauseCampaignRequest(
            campaign_id=campaign_id, reason=reason, request_id=str(uuid4()), validate_only=validate_only
        )
        return campaign_of((await self.connection.call(self._campaign_stub.PauseCampaign, request)).campaign)

    async def resume_campaign(self, campaign_id: str, reason: str, *, validate_only: bool = False) -> Campaign:
        """Go on; failures until now are accepted. Raises NotFoundError, FailedPreconditionError when it is over."""
        request = messages.ResumeCampaignRequest(
            campaign_id=campaign_id, reason=reason, request_id=str(uuid4()), validate_only=validate_only
        )
        return campaign_of((await self.connection.call(self._campaign_stub.ResumeCampaign, request)).campaign)

    async def abort_campaign(self, campaign_id: str, reason: str, *, validate_only: bool = False) -> Campaign:
        """Begin nothing more, ever; nothing is taken back. Raises NotFoundError, FailedPreconditionError."""
        request = messages.AbortCampaignRequest(
            campaign_id=campaign_id, reason=reason, request_id=str(uuid4()), validate_only=validate_only
        )
        return campaign_of((await self.connection.call(self._campaign_stub.AbortCampaign, request)).campaign)

    async def retry_campaign(
        self, campaign_id: str, reason: str, *, validate_only: bool = False
    ) -> tuple[Campaign, int]:
        """Try again what failed; how many. Raises NotFoundError, FailedPreconditionError."""
        request = messages.RetryCampaignRequest(
            campaign_id=campaign_id, reason=reason, request_id=str(uuid4()), validate_only=validate_only
        )
        answer = await self.connection.call(self._campaign_stub.RetryCampaign, request)
        return campaign_of(answer.campaign), answer.items

    async def watch_campaign(self, campaign_id: str) -> AsyncIterator[Campaign]:
        """The campaign as it is, then as it becomes; ends when nothing of it runs any more. Raises NotFoundError."""
        heartbeat = encode.duration("heartbeat", self.connection.limits.heartbeat)
        request = messages.WatchCampaignRequest(campaign_id=campaign_id, heartbeat_interval=heartbeat)
        pace, last = Pace(self.connection), None
        while True:
            failure = pace.begin()
            try:
                opened = read(
                    self.connection, self._campaign_stub.WatchCampaign, request, messages.WatchCampaignResponse
                )
                async with aclosing(opened) as answers:
                    async for answer in answers:
                        found = campaign_of(answer.campaign)
                        if found != last:
                            last, pace.attempt = found, 0
                            yield found
                        pace.hear()
                        if found.over:
                            return
            except PurveyorError as error:
                failure = error
            await pace.rest(failure)


def _order(
    service_id: str,
    from_plan_id: str,
    reason: str,
    to_plan_id: str,
    tenant: str,
    canary: int | None,
    batch_size: int,
    parallelism: int | None,
    max_failures: int,
) -> messages.CreateCampaignRequest:
    return messages.CreateCampaignRequest(
        service_id=service_id,
        from_plan_id=from_plan_id,
        to_plan_id=to_plan_id,
        tenant=tenant,
        canary=canary,
        batch_size=batch_size,
        parallelism=parallelism,
        max_failures=max_failures,
        reason=reason,
    )


def campaign_of(found: messages.Campaign) -> Campaign:
    """A campaign."""
    same: dict[str, Any] = {name: getattr(found, name) for name in (*_ASKED, "max_failures", *_TOLD)}
    return Campaign(
        campaign_id=found.campaign_id,
        state=decode.enum_name(messages.Campaign.State, found.state, "STATE_"),
        failures=tuple(item_of(item) for item in found.failures),
        create_time=decode.time_of(found.create_time),
        update_time=decode.time_of(found.update_time),
        end_time=decode.time_of(found.end_time),
        **same,
    )


def item_of(found: messages.CampaignItem) -> CampaignItem:
    """One instance of it."""
    return CampaignItem(
        tenant=found.tenant,
        instance_id=found.instance_id,
        instance_uid=found.instance_uid,
        state=decode.enum_name(messages.CampaignItem.State, found.state, "STATE_"),
        code=found.code,
        message=found.message,
        operation_id=found.operation_id,
        place=found.place,
        attempt=found.attempt,
        start_time=decode.time_of(found.start_time),
        end_time=decode.time_of(found.end_time),
    )
