"""The operators' side of the door: one method per use-case.

Guarantee: every method asks for its role (OPERATOR; ADMIN where it says who may do, or have, what, and for the audit records)
before it reads anything; every change leaves an audit record in its own command.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from datetime import timedelta

from purveyor_server.domain.freezes import Freeze
from purveyor_server.domain.model import Instance, Operation
from purveyor_server.domain.quotas import Limits, PlanKey
from purveyor_server.domain.recovery import Recovery
from purveyor_server.domain.tokens import Token
from purveyor_server.lifecycle.admin import (
    auditing,
    campaigns,
    catalogs,
    editing,
    explaining,
    failing,
    freezing,
    keys,
    leasing,
    looking,
    pausing,
    purging,
    quotas,
    reporting,
    roots,
    saving,
    stranding,
    tokens,
)
from purveyor_server.lifecycle.admin.contract import (
    Abandoned,
    Act,
    AdminParts,
    AuditListing,
    BackupFile,
    Cause,
    Difference,
    KeyReport,
    Mark,
    Purged,
    QuotaReport,
    Report,
    Rotation,
    Verification,
)
from purveyor_server.lifecycle.admin.orphancases import OrphanCases
from purveyor_server.lifecycle.catalogs import Applied
from purveyor_server.lifecycle.contract import Adopt, Caller, OperationDetails, Outcome, PageOf, Repair
from purveyor_server.providers.abilities import RootRotated
from purveyor_server.store.catalogs import CatalogVersion
from purveyor_server.store.observing import Drifted


class Administration(OrphanCases):
    """What operators may do."""

    def __init__(self, parts: AdminParts) -> None:
        self._parts = parts

    async def status(self, caller: Caller) -> Report:
        """How the broker does."""
        return await reporting.report(self._parts, caller)

    async def explain(self, caller: Caller, operation_id: str) -> tuple[OperationDetails, tuple[Cause, ...]]:
        """Why an operation does not move."""
        return await explaining.explain(self._parts, caller, operation_id)

    async def freeze(self, caller: Caller, name: str, act: Act) -> Freeze:
        """Stop something."""
        return await freezing.freeze(self._parts, caller, name, act)

    async def thaw(self, caller: Caller, name: str, act: Act) -> tuple[Freeze | None, int]:
        """Let it go again."""
        return await freezing.thaw(self._parts, caller, name, act)

    async def purge(self, caller: Caller, aim: purging.Aim, act: Act) -> Purged:
        """Forget an instance or a binding."""
        return await purging.purge(self._parts, caller, aim, act)

    async def list_expiring(self, caller: Caller, asked: leasing.Expiring) -> PageOf:
        """Bindings that end soon, or that are REVOCATION_BLOCKED."""
        return await leasing.list_expiring(self._parts, caller, asked)

    async def edit_step(
        self, caller: Caller, operation_id: str, step: str, mark: Mark | None, act: Act
    ) -> OperationDetails:
        """Write a line of a journal by hand."""
        return await editing.edit_step(self._parts, caller, operation_id, step, mark, act)

    async def retry(self, caller: Caller, operation_id: str, act: Act) -> Operation:
        """Go on from the failed step, or begin anew."""
        return await failing.retry(self._parts, caller, operation_id, act)

    async def clean_up(self, caller: Caller, operation_id: str, act: Act) -> Operation:
        """Remove what a failed operation left."""
        return await failing.clean_up(self._parts, caller, operation_id, act)

    async def abandon(self, caller: Caller, operation_id: str, act: Act) -> Abandoned:
        """End an operation and touch nothing."""
        return await failing.abandon(self._parts, caller, operation_id, act)

    async def audit(self, caller: Caller, listing: AuditListing) -> PageOf:
        """Who did what."""
        return await auditing.list_records(self._parts, caller, listing)

    def verify_audit(self, caller: Caller, anchors: Mapping[int, bytes]) -> AsyncIterator[Verification]:
        """Whether the records are what was written."""
        return auditing.verify(self._parts, caller, anchors)

    async def set_log_level(self, caller: Caller, level: str, act: Act) -> str:
        """Log more or less."""
        return await reporting.set_log_level(self._parts, caller, level, act)

    async def rotate_root(self, caller: Caller, provider: str, act: Act) -> RootRotated:
        """New credentials for the broker's own accounts in a backend."""
        return await roots.rotate_root(self._parts, caller, provider, act)

    def backup(self, caller: Caller) -> AbstractAsyncContextManager[BackupFile]:
        """A copy of the store."""
        return saving.backup(self._parts, caller)

    def review_recovery(self, caller: Caller) -> AsyncIterator[Difference]:
        """What differs after a restore."""
        return saving.review_recovery(self._parts, caller)

    async def finish_recovery(self, caller: Caller, act: Act) -> tuple[Recovery, int]:
        """Go on after a restore."""
        return await saving.finish_recovery(self._parts, caller, act)

    async def list_keys(self, caller: Caller) -> tuple[KeyReport, ...]:
        """Which keys seal how much."""
        return await keys.list_keys(self._parts, caller)

    def rotate_keys(self, caller: Caller, act: Act) -> AsyncIterator[Rotation]:
        """Seal everything with the key that is first in its source now."""
        return keys.rotate_keys(self._parts, caller, act)

    async def retire_key(self, caller: Caller, label: str, act: Act) -> bool:
        """Take a key out of its source once nothing is sealed with it."""
        return await keys.retire_key(self._parts, caller, label, act)

    async def create_token(self, caller: Caller, wish: tokens.TokenWish, act: Act) -> tokens.MadeToken:
        """Make a static token."""
        return await tokens.create_token(self._parts, caller, wish, act)

    async def list_tokens(self, caller: Caller, page_size: int, page_token: str) -> PageOf:
        """Which static tokens there are."""
        return await tokens.list_tokens(self._parts, caller, page_size, page_token)

    async def revoke_token(self, caller: Caller, token_id: str, act: Act) -> Token:
        """Take a static token back."""
        return await tokens.revoke_token(self._parts, caller, token_id, act)

    async def list_quotas(self, caller: Caller, tenant: str, page_size: int, page_token: str) -> PageOf:
        """What tenants have and may have."""
        return await quotas.list_quotas(self._parts, caller, tenant, page_size, page_token)

    async def set_quota(self, caller: Caller, tenant: str, plan: PlanKey, limits: Limits, act: Act) -> QuotaReport:
        """Say how much a tenant, or a plan in it, may have."""
        return await quotas.set_quota(self._parts, caller, tenant, plan, limits, act)

    async def delete_quota(self, caller: Caller, tenant: str, plan: PlanKey, act: Act) -> tuple[QuotaReport, bool]:
        """Take that back."""
        return await quotas.delete_quota(self._parts, caller, tenant, plan, act)

    async def begin_campaign(self, caller: Caller, wish: campaigns.CampaignWish, act: Act) -> campaigns.Begun:
        """Move, or upgrade, every instance of a plan."""
        return await campaigns.begin(self._parts, caller, wish, act)

    async def campaign(self, caller: Caller, campaign_id: str) -> campaigns.CampaignView:
        """How far a campaign is."""
        return await campaigns.get(self._parts, caller, campaign_id)

    async def list_campaigns(self, caller: Caller, page_size: int, page_token: str) -> PageOf:
        """Which campaigns there are, and were."""
        return await campaigns.list_campaigns(self._parts, caller, page_size, page_token)

    async def list_campaign_items(self, caller: Caller, listing: campaigns.ItemListing) -> PageOf:
        """What becomes of each instance."""
        return await campaigns.list_items(self._parts, caller, listing)

    async def pause_campaign(self, caller: Caller, campaign_id: str, act: Act) -> campaigns.CampaignView:
        """Begin nothing more for now."""
        return await campaigns.pause(self._parts, caller, campaign_id, act)

    async def resume_campaign(self, caller: Caller, campaign_id: str, act: Act) -> campaigns.CampaignView:
        """Go on."""
        return await campaigns.resume(self._parts, caller, campaign_id, act)

    async def abort_campaign(self, caller: Caller, campaign_id: str, act: Act) -> campaigns.CampaignView:
        """Begin nothing more, ever."""
        return await campaigns.abort(self._parts, caller, campaign_id, act)

    async def retry_campaign(self, caller: Caller, campaign_id: str, act: Act) -> tuple[campaigns.CampaignView, int]:
        """Try again what failed."""
        return await campaigns.retry(self._parts, caller, campaign_id, act)

    def watch_campaign(
        self, caller: Caller, campaign_id: str, heartbeat: timedelta
    ) -> AsyncIterator[campaigns.CampaignView]:
        """How far it is, as that changes."""
        return campaigns.watch(self._parts, caller, campaign_id, heartbeat)

    async def validate_catalog(self, caller: Caller, text: str) -> catalogs.Validation:
        """What is wrong with a catalog's text."""
        return await catalogs.validate(self._parts, caller, text)

    async def diff_catalog(self, caller: Caller, text: str, policies: Iterable[str]) -> catalogs.Comparison:
        """What it would change."""
        return await catalogs.compare(self._parts, caller, text, policies)

    async def apply_catalog(
        self, caller: Caller, text: str, policies: Iterable[str], expected: int, act: Act
    ) -> Applied | catalogs.Comparison:
        """Serve it from now on."""
        return await catalogs.apply(self._parts, caller, text, policies, expected, act)

    async def list_catalogs(self, caller: Caller, page_size: int, page_token: str) -> PageOf:
        """Which catalogs there were."""
        return await catalogs.history(self._parts, caller, page_size, page_token)

    async def catalog_version(self, caller: Caller, version: int) -> CatalogVersion:
        """One of them with its text."""
        return await catalogs.version(self._parts, caller, version)

    async def drain(self, caller: Caller, act: Act) -> None:
        """Begin to stop."""
        await quotas.drain(self._parts, caller, act)

    async def observe_instance(self, caller: Caller, tenant: str, instance_id: str, act: Act) -> Drifted:
        """Look at its backend now."""
        return await looking.observe_instance(self._parts, caller, tenant, instance_id, act)

    async def list_drift(self, caller: Caller, page_size: int, page_token: str) -> PageOf:
        """What is not in order."""
        return await looking.list_drift(self._parts, caller, page_size, page_token)

    async def pause(self, caller: Caller, tenant: str, instance_id: str, act: Act) -> Instance:
        """Leave an instance alone."""
        return await pausing.pause(self._parts, caller, tenant, instance_id, act)

    async def resume(self, caller: Caller, tenant: str, instance_id: str, act: Act) -> Instance:
        """Look after it again."""
        return await pausing.resume(self._parts, caller, tenant, instance_id, act)

    async def repair(self, caller: Caller, request: Repair) -> Outcome:
        """Make every piece of an instance again."""
        return await self._parts.orders.repair(caller, request)

    async def list_platform_orphans(self, caller: Caller, page_size: int, page_token: str) -> PageOf:
        """What platforms no longer name."""
        return await stranding.list_platform_orphans(self._parts, caller, page_size, page_token)

    async def adopt(self, caller: Caller, request: Adopt) -> Outcome:
        """Bring an existing thing under management."""
        return await self._parts.orders.adopt(caller, request)
