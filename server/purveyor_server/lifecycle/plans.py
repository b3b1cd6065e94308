"""Plan snapshots that use-cases need, with what their providers say, ready for pure functions.

Guarantee: a rule inside a store command never asks a provider, the catalog file or the store; it asks this book, and when
the book does not know a plan the command is refused with `UnpreparedError`, the book learns, and the command runs again.
Limit: bounded; when full it forgets all and learns again.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import structlog

from purveyor_server.domain.catalog import Catalog, Offer
from purveyor_server.domain.errors import Precondition, PurveyorError, Reason
from purveyor_server.domain.model import PlanSnapshot
from purveyor_server.domain.policies import CleanupPolicy, LeasePolicy
from purveyor_server.lifecycle.ports import LifecycleSettings, Plans
from purveyor_server.providers.contract import Ability
from purveyor_server.providers.registry import ProviderMissingError
from purveyor_server.store.contract import Store

_log = structlog.get_logger(__name__)
MAX_KNOWN = 10_000
UNPREPARED_RETRY = 1.0  # seconds


class UnpreparedError(PurveyorError):
    """The records changed after the use-case had looked at them; prepared anew, a few times."""


def unprepared(digest: str = "") -> UnpreparedError:
    """The refusal of one round; as the last word it is ABORTED."""
    return UnpreparedError(
        Reason.OPERATION_IN_PROGRESS,
        "the instance is changing faster than the request can be prepared: send it again",
        metadata={"plan": digest},
        retry_after=UNPREPARED_RETRY,
    )


class KnownPlan(msgspec.Struct, frozen=True):
    """A plan snapshot with its provider's word. `contract` is None while the provider is missing."""

    snapshot: PlanSnapshot
    contract: str | None
    abilities: frozenset[Ability]
    budget: float  # seconds for an operation
    rollback_budget: float = 0.0  # seconds for its undo; 0 = what the engine gives
    cleanup: CleanupPolicy = CleanupPolicy()  # of what a failed create or bind leaves
    lease: LeasePolicy = LeasePolicy()  # the live plan's word, else the snapshot's
    rotatable: bool = False  # likewise

    @property
    def ends_by_itself(self) -> bool:
        """Whether the backend ends an access on time, and has to be told when."""
        return Ability.EXPIRY in self.abilities


class PlanBook:
    """Known plans by digest."""

    def __init__(self, store: Store, catalog: Callable[[], Catalog], plans: Plans, settings: LifecycleSettings) -> None:
        self._store = store
        self._catalog = catalog
        self._plans = plans
        self._settings = settings
        self._known: dict[str, KnownPlan] = {}
        self._missing: set[str] = set()

    def get(self, digest: str) -> KnownPlan:
        """The plan of `digest`; raises UnpreparedError when the book has to learn it first."""
        known = self._known.get(digest)
        if known is None:
            raise unprepared(digest)
        return known

    def of(self, offer: Offer) -> KnownPlan:
        """The plan of an offer, as the catalog had it that the offer is of, whatever has been applied since."""
        return self._describe(offer.snapshot)

    async def learn(self, digest: str) -> None:
        """Read the plan of `digest` from the store. Raises INTERNAL when it is not there: a record names it."""
        snapshot = await self._store.plan(digest)
        if snapshot is None:
            _log.error("plan snapshot is missing", plan=digest)
            raise PurveyorError(Reason.INTERNAL, "internal error")
        self._describe(snapshot)

    def refresh(self, digest: str) -> None:
        """Ask again for what may have changed since: a provider that was missing, the limits of the live plan."""
        known = self._known.get(digest)
        if known is not None:
            self._describe(known.snapshot)

    def refresh_missing(self) -> None:
        """Ask again for every plan whose provider was missing: cheap, for there are none in a sound broker."""
        for digest in tuple(self._missing):
            self.refresh(digest)

    def _describe(self, snapshot: PlanSnapshot) -> KnownPlan:
        contract, abilities = self._ask(snapshot)
        lease, rotatable = self._lease(snapshot)
        cleanup = self._cleanup(snapshot)
        known = KnownPlan(snapshot, contract, abilities, *self._budgets(snapshot), cleanup, lease, rotatable)
        if len(self._known) >= MAX_KNOWN:
            self._known.clear()
            self._missing.clear()
        self._known[snapshot.digest] = known
        (self._missing.add if contract is None else self._missing.discard)(snapshot.digest)
        return known

    def _ask(self, snapshot: PlanSnapshot) -> tuple[str | None, frozenset[Ability]]:
        try:
            return self._plans.contract(snapshot.provider), self._plans.abilities(snapshot.provider)
        except ProviderMissingError as error:
            _log.warning("provider is missing", provider=snapshot.provider.name, detail=str(error))
            return None, frozenset()

    def _budgets(self, snapshot: PlanSnapshot) -> tuple[float, float]:
        """Seconds forward and back: the live plan's limits, else the defaults; a removal needs no live catalog."""
        try:
            limits = self._catalog().offer(snapshot.service_id, snapshot.plan_id).plan.limits
        except PurveyorError:
            return self._settings.removal_budget.total_seconds(), 0.0
        return limits.operation.total_seconds(), limits.rollback.total_seconds() if limits.rollback else 0.0

    def _cleanup(self, snapshot: PlanSnapshot) -> CleanupPolicy:
        """The live plan's policy, else the snapshot's."""
        try:
            return self._catalog().offer(snapshot.service_id, snapshot.plan_id).plan.cleanup
        except PurveyorError:
            return snapshot.cleanup

    def _lease(self, snapshot: PlanSnapshot) -> tuple[LeasePolicy, bool]:
        """How long bindings live, and whether they may be rotated."""
        try:
            plan = self._catalog().offer(snapshot.service_id, snapshot.plan_id).plan
        except PurveyorError:
            return snapshot.lease, snapshot.binding_rotatable
        return plan.lease, plan.binding_rotatable


def provider_missing(snapshot: PlanSnapshot) -> PurveyorError:
    """FAILED_PRECONDITION for work that the broker cannot do at present; removals are accepted all the same."""
    name = snapshot.provider.name
    text = (
        f"the provider {name!r} of plan {snapshot.plan_id!r} is not available: an operator must install or configure it"
    )
    return PurveyorError(
        Reason.WRONG_STATE,
        text,
        metadata={"provider": name, "plan_id": snapshot.plan_id},
        preconditions=(Precondition("PROVIDER", f"provider/{name}", text),),
    )
