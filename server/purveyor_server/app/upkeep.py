"""Background work of a running broker that belongs to no operation: retention, counters, anchors of the audit records, and
whether backends answer.

Guarantee: a failure is logged and the loop goes on; nothing here can stop the broker or delay its start.
Limit: one process does it all; replicas will need a lease for retention.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import timedelta

import structlog

from purveyor_server.domain.errors import PurveyorError
from purveyor_server.domain.model import ProviderRef
from purveyor_server.kit.backoff import Backoff
from purveyor_server.kit.tasks import TaskGroup
from purveyor_server.providers.contract import ProviderError, RightsMissing, Unreachable
from purveyor_server.providers.inspection import Inspector
from purveyor_server.providers.registry import ProviderRegistry
from purveyor_server.store.contract import Commands, Retention, Store
from purveyor_server.store.operating import OperatorReads

_log = structlog.get_logger(__name__)
CHECK_AGAIN = Backoff(first=5.0, ceiling=60.0)  # seconds between two questions to a backend that is not ready
PAUSE = 0.02  # seconds between two pages of retention, so that commands of callers get in between


async def keep_retention(store: Commands, policy: Retention, interval: timedelta) -> None:
    """Forget what may be forgotten, now and every `interval`, for ever."""
    while True:
        try:
            removed = await retain_all(store, policy)
            if removed:
                _log.info("retention removed rows", rows=removed)
        except PurveyorError as failure:
            _log.warning("retention failed", reason=str(failure.reason))
        await asyncio.sleep(interval.total_seconds())


async def retain_all(store: Commands, policy: Retention) -> int:
    """Call `retain` until nothing is left to remove; returns the number of rows removed."""
    total = 0
    while removed := await store.retain(policy):
        total += removed
        await asyncio.sleep(PAUSE)
    return total


async def check_counters(store: Store) -> int:
    """Compare what is counted for each tenant with what is there, once, and put right what is wrong; returns how many were."""
    wrong, tenant = 0, await _next(store, "")
    while tenant:
        try:
            if await store.miscounted(tenant):
                repaired = await store.recount(tenant)
                wrong += repaired
                _log.error("counters of a tenant were wrong and are put right", tenant=tenant, counters=repaired)
        except PurveyorError as failure:
            _log.warning("counters of a tenant could not be checked", tenant=tenant, reason=str(failure.reason))
        await asyncio.sleep(PAUSE)
        tenant = await _next(store, tenant)
    return wrong


async def _next(store: Store, after: str) -> str | None:
    try:
        return await store.next_tenant(after)
    except PurveyorError as failure:
        _log.warning("the check of counters broke off", reason=str(failure.reason))
        return None


async def tell_anchor(store: OperatorReads, interval: timedelta) -> None:
    """Log the end of the chain of audit records now and every `interval`, for ever: whoever keeps the log has anchors."""
    while True:
        try:
            head = (await store.audit_marks()).head
            if head is not None:
                _log.info("audit chain", number=head.number, chain=head.chain.hex())
        except PurveyorError as failure:
            _log.warning("the audit chain could not be read", reason=str(failure.reason))
        await asyncio.sleep(interval.total_seconds())


class ProviderWatch:
    """Asks the backends of the catalog that is served: those that are new in it, or configured anew."""

    def __init__(self, registry: ProviderRegistry, inspector: Inspector, tasks: TaskGroup) -> None:
        self._registry, self._inspector, self._tasks = registry, inspector, tasks
        self._refs: dict[str, ProviderRef] = {}

    def follow(self, refs: Mapping[str, ProviderRef]) -> None:
        """From now on these; who is not among them any more is not asked again."""
        before, self._refs = self._refs, dict(refs)
        for name, ref in refs.items():
            if before.get(name) != ref:
                self._tasks.start(f"check {name}", self._check(ref))

    async def _check(self, ref: ProviderRef) -> None:
        await watch_until_ready(self._registry, ref, self._inspector, lambda: self._refs.get(ref.name) == ref)


async def watch_until_ready(
    registry: ProviderRegistry, ref: ProviderRef, inspector: Inspector, wanted: Callable[[], bool] = lambda: True
) -> None:
    """Ask the backend of `ref` until it can be worked with or is not `wanted` any more; each new answer is logged once and
    noted."""
    said = ""
    attempt = 0
    while True:
        failure = (await registry.check([ref]))[ref.name]
        if not wanted():
            return
        inspector.note(ref.name, failure)
        if failure is None:
            _log.info("provider is ready", provider=ref.name, kind=ref.kind)
            return
        words = f"{type(failure).__name__} {failure}"
        if words != said:
            said = words
            _report(ref, failure)
        await asyncio.sleep(CHECK_AGAIN.delay(attempt))
        attempt += 1


def _report(ref: ProviderRef, failure: Exception) -> None:
    fields = {"provider": ref.name, "kind": ref.kind, "problem": str(failure)}
    if isinstance(failure, ProviderError) and failure.detail:
        fields["detail"] = failure.detail
    if isinstance(failure, RightsMissing):
        _log.error("provider lacks rights in its backend", **fields)
    elif isinstance(failure, Unreachable | TimeoutError):
        _log.warning("provider does not reach its backend", **fields)
    else:
        _log.error("provider cannot be used", **fields)
