"""The loop that gives back what its platform no longer knows, where the settings say so.

Guarantee: only an instance that two inventories a grace apart have left out, that nobody claimed, and that has no live binding; at
most `cap` in a round; through the door as anybody's deprovision, as it was when it was looked at; never one that is protected,
adopted or paused. Nothing under the freezes `deletes`, `reaping` and `all`, nor while a restored store is being reviewed.
A round looks at a bounded number of orphans and the next one goes on from there.
Limit: what it may not touch is for operators to see: `purveyor inventory list`. The place in the walk is not stored.
"""

from __future__ import annotations

import structlog

from purveyor_server.domain.automation import why_kept
from purveyor_server.domain.errors import PurveyorError, Reason
from purveyor_server.domain.etags import etag_of
from purveyor_server.domain.freezes import ALL, DELETES, REAPING
from purveyor_server.domain.model import Instance
from purveyor_server.domain.platforms import OrphanPolicy, PlatformRules
from purveyor_server.domain.states import InstanceState
from purveyor_server.lifecycle.contract import ITSELF, Deprovision
from purveyor_server.lifecycle.lifecycle import Lifecycle
from purveyor_server.store.contract import Page, Store

_log = structlog.get_logger(__name__)
PAGE = 100  # orphans looked at at once
PAGES = 10  # of them in a round: what may not be touched is passed over, however much of it there is
STOPS = frozenset({ALL, DELETES, REAPING})


class PlatformLoop:
    """Platform-orphans whose grace is over."""

    name = "platforms"

    def __init__(self, store: Store, use_cases: Lifecycle, rules: PlatformRules, interval: float) -> None:
        self._store = store
        self._use_cases = use_cases
        self._rules = rules
        self._interval = interval
        self._after = ""  # where the next round goes on

    @property
    def interval(self) -> float:
        """Seconds."""
        return self._interval

    async def once(self) -> float | None:
        """Give back at most `cap` of them."""
        if self._rules.policy is not OrphanPolicy.DEPROVISION or await self._stopped():
            return None
        left = self._rules.cap
        for _ in range(PAGES):
            page = await self._store.platform_orphans(Page(PAGE, self._after), self._rules.grace)
            for orphan in page:
                if not left:
                    return None
                self._after = orphan.instance.uid
                left -= not orphan.bindings and await self._give_back(orphan.instance)
            if len(page) < PAGE:
                self._after = ""
                break
        return None

    async def _stopped(self) -> bool:
        frozen = {freeze.name for freeze in await self._store.freezes()}
        return bool(frozen & STOPS) or await self._store.recovery() is not None

    async def _give_back(self, instance: Instance) -> bool:
        """Ask for it as any caller would; whether it was accepted."""
        if why_kept(instance) or instance.state is InstanceState.DEPROVISIONING:
            return False
        request = Deprovision(tenant=instance.tenant, instance_id=instance.instance_id, etag=etag_of(instance))
        try:
            outcome = await self._use_cases.deprovision(ITSELF, request)
        except PurveyorError as error:
            if error.reason is Reason.DRAINING:
                raise
            _log.info("platform-orphan is kept", instance_uid=instance.uid, reason=str(error.reason))
            return False
        operation = outcome.operation.operation_id if outcome.operation is not None else ""
        _log.info("platform-orphan is given back", instance_uid=instance.uid, operation=operation)
        return True
