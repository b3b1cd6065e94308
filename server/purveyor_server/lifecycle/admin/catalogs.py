"""Catalogs in the hands of operators: judged, compared, applied, looked up.

Guarantee: a text that is not valid, a policy that makes no sense and a danger without a policy are refused by name, and nothing
is changed; what is applied, its plan snapshots and its audit record are one command. Sent again, it is the same version.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import msgspec

from purveyor_server.domain.campaigns import Aim
from purveyor_server.domain.catalogchanges import (
    Change,
    Policies,
    Policy,
    PolicyMode,
    parse_policy,
    plan_name,
    unsettled,
)
from purveyor_server.domain.errors import PurveyorError, Reason, Resource, invalid
from purveyor_server.domain.quotas import PlanKey
from purveyor_server.lifecycle.admin import campaigns
from purveyor_server.lifecycle.admin.acts import enter, tell
from purveyor_server.lifecycle.admin.contract import Act, AdminParts
from purveyor_server.lifecycle.catalogs import Applied, Proposal, Wish
from purveyor_server.lifecycle.catalogtext import CatalogTextError, TextProblem
from purveyor_server.lifecycle.contract import Caller, PageOf
from purveyor_server.lifecycle.door import Action
from purveyor_server.lifecycle.paging import Question, read_token, write_token
from purveyor_server.store.catalogs import CatalogVersion, Origin

DEFAULT_PAGE, MAX_PAGE = 100, 1000
MAX_POLICIES = 1000
DIGEST_CHARACTERS = 16


class Validation(msgspec.Struct, frozen=True):
    """What the judge says of a text."""

    problems: tuple[TextProblem, ...] = ()
    digest: str = ""
    services: int = 0
    plans: int = 0


class Comparison(msgspec.Struct, frozen=True):
    """A text against the catalog that is served: what it changes, and what of that stands in the way."""

    base: int
    digest: str
    changes: tuple[Change, ...]
    blocking: tuple[Change, ...] = ()


async def validate(parts: AdminParts, caller: Caller, text: str) -> Validation:
    """What is wrong with a text, providers asked."""
    enter(parts, caller, Action.VALIDATE_CATALOG)
    try:
        judged = await parts.catalogs.judge(text.encode())
    except CatalogTextError as failure:
        return Validation(failure.problems)
    services = judged.contents.services
    return Validation((), judged.digest, len(services), sum(len(service.plans) for service in services))


async def compare(parts: AdminParts, caller: Caller, text: str, policies: Iterable[str]) -> Comparison:
    """What a text would change. Raises INVALID_REQUEST for a text that is not valid and for policies that make no sense."""
    enter(parts, caller, Action.DIFF_CATALOG)
    wanted = _policies(policies)
    proposal = await _proposal(parts, text)
    parts.catalogs.check_policies(proposal, wanted)
    return _comparison(proposal, wanted)


async def apply(
    parts: AdminParts, caller: Caller, text: str, policies: Iterable[str], expected: int, act: Act
) -> Applied | Comparison:
    """Serve a catalog from now on; with `validate_only` what it would change.

    Campaigns of policies begin once it is served; one that cannot begin (CAMPAIGN_CONFLICT) fails the call, not the catalog: sent again
    with its request id, the call begins those that are missing. Raises CATALOG_REFUSED, ETAG_MISMATCH, REQUEST_ID_REUSED,
    OPERATION_IN_PROGRESS, INVALID_REQUEST, CAMPAIGN_CONFLICT.
    """
    reason = enter(parts, caller, Action.APPLY_CATALOG, act)
    if expected < 0:
        raise invalid("expected_version", "must not be negative")
    wish = Wish(
        caller=caller,
        reason=reason,
        origin=Origin.CALL,
        request_id=act.request_id,
        policies=_policies(policies),
        expected=expected,
    )
    if act.validate_only:
        proposal = await _proposal(parts, text)
        try:
            parts.catalogs.check(proposal, wish)
        except PurveyorError as failure:
            if failure.reason is not Reason.CATALOG_REFUSED:
                raise
        return _comparison(proposal, wish.policies)
    try:
        judged = await parts.catalogs.judge(text.encode())
    except CatalogTextError as failure:
        raise failure.refusal() from None
    applied = await parts.catalogs.apply(judged, wish)
    tell(parts, caller, Action.APPLY_CATALOG, act, f"catalog/{applied.version.version}")
    return msgspec.structs.replace(applied, campaigns=await _migrate(parts, wish, applied.version.version))


async def _migrate(parts: AdminParts, wish: Wish, version: int) -> tuple[str, ...]:
    """Begin the campaigns that policies ask for; again for the same version they are the same campaigns."""
    begun = []
    for plan, policy in sorted(wish.policies.items()):
        if policy.mode is PolicyMode.MIGRATE:
            aim = Aim(service_id=plan.service_id, from_plan_id=plan.plan_id, to_plan_id=policy.to)
            digest = hashlib.sha256(plan_name(plan).encode()).hexdigest()[:DIGEST_CHARACTERS]
            act = Act(reason=wish.reason, request_id=f"catalog-{version}-{digest}")
            made = await campaigns.begin(parts, wish.caller, campaigns.CampaignWish(aim=aim, follows=True), act)
            begun.append(made.campaign.campaign_id)
    return tuple(begun)


async def history(parts: AdminParts, caller: Caller, page_size: int, page_token: str) -> PageOf:
    """A page of `CatalogVersion`, the newest first, without texts. Raises INVALID_PAGE_TOKEN, INVALID_REQUEST."""
    enter(parts, caller, Action.LIST_CATALOGS)
    if page_size < 0:
        raise invalid("page_size", "must not be negative")
    size = min(page_size or DEFAULT_PAGE, MAX_PAGE)
    question = Question("catalogs", "", "", "", show_deleted=False, store=parts.store.store_id)
    before = int(read_token(parts.token_key, question, page_token)) if page_token else 0
    found = await parts.store.catalog_history(before, size + 1)
    more = write_token(parts.token_key, question, str(found[size - 1].version)) if len(found) > size else ""
    return PageOf(found[:size], more)


async def version(parts: AdminParts, caller: Caller, number: int) -> CatalogVersion:
    """One catalog with its text; 0 is the newest. Raises CATALOG_NOT_FOUND, INVALID_REQUEST."""
    enter(parts, caller, Action.GET_CATALOG_VERSION)
    if number < 0:
        raise invalid("version", "must not be negative")
    found = await (parts.store.catalog_version(number) if number else parts.store.catalog())
    if found is None:
        raise PurveyorError(
            Reason.CATALOG_NOT_FOUND,
            f"there is no catalog version {number}",
            metadata={"version": str(number)},
            resource=Resource("catalog", str(number)),
        )
    return found


async def _proposal(parts: AdminParts, text: str) -> Proposal:
    try:
        return await parts.catalogs.propose(await parts.catalogs.judge(text.encode()))
    except CatalogTextError as failure:
        raise failure.refusal() from None


def _comparison(proposal: Proposal, policies: Policies) -> Comparison:
    blocking = unsettled(proposal.changes, policies)
    return Comparison(proposal.base, proposal.judged.digest, proposal.changes, blocking)


def _policies(given: Iterable[str]) -> Policies:
    found: dict[PlanKey, Policy] = {}
    for text in given:
        plan, policy = parse_policy(text)
        if plan in found:
            raise invalid("policies", f"the plan {plan.service_id}/{plan.plan_id} has more than one")
        found[plan] = policy
        if len(found) > MAX_POLICIES:
            raise invalid("policies", f"are more than {MAX_POLICIES}")
    return found
