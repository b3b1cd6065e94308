"""What operators do beyond freezes and repairs: catalogs, campaigns, and what is left of failures."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from purveyor_server.domain.campaigns import Aim, Campaign, CampaignState
from purveyor_server.domain.model import Operation
from purveyor_server.domain.principal import LOCAL
from purveyor_server.lifecycle.admin.campaigns import CampaignWish
from purveyor_server.lifecycle.admin.contract import Act
from purveyor_server.lifecycle.contract import Caller
from tests.year import actions
from tests.year.actions import Action
from tests.year.catalogs import SERVICE
from tests.year.house import DAY, House
from tests.year.judge import Judge

CALLER = Caller(LOCAL)
ACT = Act(reason="the year")
OVER = frozenset({CampaignState.ABORTED, CampaignState.SUCCEEDED, CampaignState.FINISHED_WITH_FAILURES})
PAGE = 100
CAMPAIGN_TIME = 20 * DAY  # seconds


class Operator:
    """An operator at work. `ask` gives the answer of a call, None when it is refused or cut off; `newest` are the newest
    operations that are known of instances."""

    def __init__(self, house: House, ask: Callable[[Any], Awaitable[Any]], newest: Mapping[str, Operation]) -> None:
        self._house = house
        self._ask = ask
        self._newest = newest
        self.turns = 0  # in which campaigns may update an instance: each of them, and each time that one is tried again

    async def do(self, action: Action) -> None:
        """One act."""
        admin = self._house.process.admin
        match action:
            case actions.Apply(catalog, policies):
                moves = sum("=migrate:" in policy for policy in policies)
                await self._turn(admin.apply_catalog(CALLER, catalog, policies, 0, ACT), moves)
            case actions.Campaign(plan, to):
                aim = Aim(service_id=SERVICE, from_plan_id=plan, to_plan_id=to)
                await self._turn(admin.begin_campaign(CALLER, CampaignWish(aim=aim), ACT))
            case actions.Steer(how):
                await self._steer(how)
            case actions.Retry(instance) if instance in self._newest:
                await self._ask(admin.retry(CALLER, self._newest[instance].operation_id, ACT))
            case actions.CleanUp(instance) if instance in self._newest:
                await self._ask(admin.clean_up(CALLER, self._newest[instance].operation_id, ACT))

    async def _turn(self, call: Any, turns: int = 1) -> None:
        """Ask for what gives campaigns so many turns, unless it is refused; a broker that dies meanwhile may have done it."""
        crashes = self._house.crashes
        if await self._ask(call) is not None or self._house.crashes > crashes:
            self.turns += turns

    async def _steer(self, how: actions.Steering) -> None:
        for campaign in (await self._campaigns())[:1]:
            await self._turn(self._steering(how, campaign.campaign_id), how is actions.Steering.RETRY)

    def _steering(self, how: actions.Steering, campaign_id: str) -> Any:
        admin = self._house.process.admin
        act = {
            actions.Steering.PAUSE: admin.pause_campaign,
            actions.Steering.RESUME: admin.resume_campaign,
            actions.Steering.ABORT: admin.abort_campaign,
            actions.Steering.RETRY: admin.retry_campaign,
        }[how]
        return act(CALLER, campaign_id, ACT)

    async def _campaigns(self) -> list[Campaign]:
        page = await self._ask(self._house.process.admin.list_campaigns(CALLER, PAGE, ""))
        return list(page.items) if page is not None else []

    async def end_campaigns(self) -> None:
        """What has paused goes on; what pauses again is given up."""
        if not await self._campaigns():
            return
        for how in (actions.Steering.RESUME, actions.Steering.ABORT):
            for campaign in await self._campaigns():
                if campaign.state is CampaignState.PAUSED:
                    await self._ask(self._steering(how, campaign.campaign_id))
            await self._house.live(CAMPAIGN_TIME)

    async def check_campaigns(self, judge: Judge, moves: Mapping[str, int]) -> None:
        """Every one is over, knows of each of its instances what became of it, and has asked for each once a turn."""
        campaigns = await self._campaigns()
        for uid, count in moves.items():
            if count > self.turns:
                judge.say(f"campaigns have updated the instance {uid} {count} times, in {self.turns} turns")
        for campaign in campaigns:
            if campaign.state not in OVER:
                judge.say(f"the campaign of {campaign.aim.from_plan_id} stays {campaign.state}: {campaign.problem}")
            elif campaign.counts.running or (campaign.counts.pending and campaign.state is not CampaignState.ABORTED):
                judge.say(f"the campaign of {campaign.aim.from_plan_id} is over with {campaign.counts}")
