"""The catalog that is served now: taken at the start, swapped while the broker runs, refused when it would endanger what lives.

Guarantee: a catalog is served only once it and its plan snapshots are stored; it is swapped as a whole, and who watches is told
at once. A dangerous one is never taken without a policy for every plan that it endangers, wherever it came from; what was
served goes on, and why is kept for the status.
Limit: a call that was prepared by the catalog before may be accepted just after: its instance has the plan that it was ordered
with. Parameters that change while a narrowed schema is judged are not seen.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import datetime

import msgspec
import structlog

from purveyor_server.domain.audit import AuditOutcome, AuditRecord
from purveyor_server.domain.catalog import NO_LABELS, Catalog
from purveyor_server.domain.catalogchanges import (
    Change,
    Contents,
    Policies,
    check_moves,
    check_policies,
    plan_name,
    refusal,
    told,
    unsettled,
)
from purveyor_server.domain.catalogdiff import diff
from purveyor_server.domain.errors import PurveyorError, Reason
from purveyor_server.domain.quotas import PlanKey, Used
from purveyor_server.kit.clock import Clock
from purveyor_server.lifecycle import recording
from purveyor_server.lifecycle.catalogtext import CatalogTextError, Judge, Judged
from purveyor_server.lifecycle.contract import ITSELF, Caller
from purveyor_server.lifecycle.door import Action
from purveyor_server.lifecycle.narrowing import narrowings, with_names
from purveyor_server.store.catalogs import CatalogChange, CatalogVersion, Origin
from purveyor_server.store.contract import Store

_log = structlog.get_logger(__name__)
MAX_ROUNDS = 4  # times a change is judged anew when plans come into use meanwhile
NO_POLICIES: Policies = {}


class Refused(msgspec.Struct, frozen=True):
    """A catalog file that was not taken: when it was looked at, its SHA-256, and why, a sentence each."""

    at: datetime
    digest: str
    why: tuple[str, ...]


class Proposal(msgspec.Struct, frozen=True):
    """A text against the catalog that is served (`base`)."""

    judged: Judged
    changes: tuple[Change, ...]
    used: Mapping[PlanKey, Used]
    base: int

    def blocking(self, policies: Policies) -> tuple[Change, ...]:
        """What stands in the way."""
        return unsettled(self.changes, policies)


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """How somebody wants a catalog applied. `expected`: only on top of this version (0: of any)."""

    caller: Caller
    reason: str
    origin: Origin
    request_id: str = ""
    policies: Policies = NO_POLICIES
    expected: int = 0


class Applied(msgspec.Struct, frozen=True):
    """The version that is served now, what it changed, whether this was asked for before, and the campaigns that it began."""

    version: CatalogVersion
    changes: tuple[Change, ...] = ()
    replayed: bool = False
    campaigns: tuple[str, ...] = ()


class LiveCatalog:
    """The catalog of a process; call it for the catalog as it is now."""

    def __init__(
        self,
        store: Store,
        judge: Judge,
        clock: Clock,
        labels: Mapping[str, Mapping[str, str]] = NO_LABELS,
        of_file: Judge | None = None,
    ) -> None:
        self._store, self._judge, self._clock, self._labels = store, judge, clock, labels
        self._of_file = of_file or judge  # it names the file in what it says
        self._catalog = Catalog(())
        self._contents = Contents()
        self._digest = ""
        self._seen = ""  # the digest of the file as it was last looked at
        self._changing = asyncio.Lock()
        self._moved = asyncio.Event()
        self.refused: Refused | None = None
        self.on_change: Callable[[Contents], None] = lambda _contents: None

    def __call__(self) -> Catalog:
        """The catalog that is served."""
        return self._catalog

    @property
    def contents(self) -> Contents:
        """All that it says."""
        return self._contents

    async def moved(self, seconds: float) -> None:
        """Return when another catalog is served, or after `seconds`."""
        moved = self._moved
        try:
            async with asyncio.timeout(seconds):
                await moved.wait()
        except TimeoutError:
            return

    def serve(self, contents: Contents, version: CatalogVersion) -> None:
        """Swap: from here on this catalog, which is stored, is the one."""
        self._swap(contents, version)
        self._tell()

    def _swap(self, contents: Contents, version: CatalogVersion) -> None:
        self._contents, self._digest = contents, version.digest
        self._catalog = Catalog(contents.services, version.version, version.digest, self._labels, contents.inventories)

    def _tell(self) -> None:
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()
        self.on_change(self._contents)
        services, plans = len(self._contents.services), len(self._catalog.offers)
        _log.info("catalog applied", version=self._catalog.version, services=services, plans=plans)

    # The file.

    async def begin(self, file: Judged) -> None:
        """What is served from the start: the file where it is new and endangers nothing, else the newest stored catalog."""
        self._seen = file.digest
        newest = await self._store.catalog()
        if newest is None:
            await self._store_and_serve(file, _file_wish("the first catalog"), None)
            return
        if newest.digest == file.digest:
            self.serve(file.contents, newest)
            return
        stored = await self._stored(newest)
        if stored is None:
            _log.warning("the catalog file is taken without a comparison")
            await self._store_and_serve(file, _file_wish("the stored catalog cannot be read any more"), None)
            return
        self._swap(stored.contents, newest)
        last = await self._store.catalog_of_file()
        if last is not None and last.digest == file.digest:
            _log.info("the catalog file is older than the applied catalog, which goes on", version=newest.version)
            self._tell()
        elif not await self._take_file(file, "the catalog file at the start"):
            self._tell()

    async def _stored(self, version: CatalogVersion) -> Judged | None:
        try:
            return await self.judge(version.body.encode(), ask_providers=False)
        except CatalogTextError as failure:
            _log.error(
                "the stored catalog cannot be read",
                version=version.version,
                problem=str(failure),
            )
            return None

    async def reload(self, text: bytes, *, again: bool = False) -> bool:
        """Take the file's text if it is new and endangers nothing; whether another catalog is served now. With `again` one that was
        refused is judged once more."""
        try:
            file = await asyncio.to_thread(self._of_file, text)
        except CatalogTextError as failure:
            self._refuse("", tuple(f"{p.place} {p.path}: {p.message}" for p in failure.problems))
            return False
        if file.digest == self._digest:
            self._seen, self.refused = file.digest, None
            return False
        if file.digest == self._seen and not (again and self.refused is not None):
            return False
        self._seen = file.digest
        return await self._take_file(file, "the catalog file changed")

    async def _take_file(self, file: Judged, reason: str) -> bool:
        try:
            applied = await self.apply(file, _file_wish(reason))
        except PurveyorError as failure:
            if failure.reason is not Reason.CATALOG_REFUSED:
                self._refuse(file.digest, (failure.message,))
            else:
                self._refuse(file.digest, tuple(f"{p.kind}: {p.description}" for p in failure.preconditions))
            return False
        return not applied.replayed

    def _refuse(self, digest: str, why: tuple[str, ...]) -> None:
        self.refused = Refused(self._clock.now(), digest, why)
        _log.error("the catalog file is not taken, the catalog before goes on", version=self._catalog.version, why=why)

    # What operators and the file have in common.

    async def judge(self, text: bytes, *, ask_providers: bool = True) -> Judged:
        """What a text says. Raises CatalogTextError."""
        return await asyncio.to_thread(self._judge, text, ask_providers=ask_providers)

    async def propose(self, judged: Judged) -> Proposal:
        """A text against what is served, and against what instances have."""
        contents, base = self._contents, self._catalog.version
        used = await self._store.plan_usage()
        changes = diff(contents, judged.contents, used)
        found = await narrowings(self._store, contents, judged.contents, used)
        named = await with_names(self._store, (*changes, *found))
        return Proposal(judged, named, used, base)

    def check(self, proposal: Proposal, wish: Wish) -> None:
        """Raise ETAG_MISMATCH, INVALID_REQUEST or CATALOG_REFUSED unless the wish may be granted."""
        if wish.expected and wish.expected != proposal.base:
            raise PurveyorError(
                Reason.ETAG_MISMATCH,
                f"the catalog is at version {proposal.base}, not {wish.expected}: look at it first",
                metadata={"expected": str(wish.expected), "current": str(proposal.base)},
            )
        self.check_policies(proposal, wish.policies)
        if blocking := proposal.blocking(wish.policies):
            raise refusal(blocking)

    def check_policies(self, proposal: Proposal, policies: Policies) -> None:
        """Raise INVALID_REQUEST for policies that make no sense with this text."""
        new = Catalog(proposal.judged.contents.services)
        check_policies(policies, proposal.changes, new)
        check_moves(policies, self._contents, new)

    async def apply(self, judged: Judged, wish: Wish) -> Applied:
        """Store a catalog and serve it. Goes on to its end when its caller goes away: what is stored is served.

        Raises CATALOG_REFUSED, ETAG_MISMATCH, REQUEST_ID_REUSED, INVALID_REQUEST for policies that make no sense, and what the
        store raises.
        """
        working = asyncio.ensure_future(self._apply(judged, wish))
        working.add_done_callback(_heard)
        return await asyncio.shield(working)

    async def _apply(self, judged: Judged, wish: Wish) -> Applied:
        async with self._changing:
            await self._catch_up()
            if (made := await self._before(judged, wish)) is not None:
                return made
            for rounds in range(MAX_ROUNDS):
                proposal = await self.propose(judged)
                self.check(proposal, wish)
                try:
                    version = await self._store_and_serve(judged, wish, proposal)
                except PurveyorError as failure:
                    if failure.reason is not Reason.OPERATION_IN_PROGRESS or rounds == MAX_ROUNDS - 1:
                        raise
                else:
                    return Applied(version, proposal.changes)
        raise AssertionError("the last round returns or raises")

    async def _catch_up(self) -> None:
        """Serve what is stored and is not served: the answer of its command was lost (OUTCOME_UNKNOWN)."""
        newest = await self._store.catalog()
        if newest is None or newest.version <= self._catalog.version:
            return
        stored = await self._stored(newest)
        if stored is not None:
            _log.warning("a catalog was stored and not served: it is now", version=newest.version)
            self.serve(stored.contents, newest)

    async def _before(self, judged: Judged, wish: Wish) -> Applied | None:
        """What the same request did before."""
        if not wish.request_id:
            return None
        made = await self._store.catalog_of_request(wish.caller.subject, wish.request_id)
        if made is None:
            return None
        if made.digest != judged.digest:
            raise PurveyorError(
                Reason.REQUEST_ID_REUSED,
                f"the request id {wish.request_id!r} has applied another catalog before",
                metadata={"request_id": wish.request_id, "version": str(made.version)},
            )
        return Applied(made, replayed=True)

    async def _store_and_serve(self, judged: Judged, wish: Wish, proposal: Proposal | None) -> CatalogVersion:
        snapshots = tuple(Catalog(judged.contents.services).snapshots.values())
        change = CatalogChange(
            principal=wish.caller.subject,
            reason=wish.reason,
            origin=wish.origin,
            request_id=wish.request_id,
            expected=None if proposal is None else proposal.base,
            used=None if proposal is None else proposal.used,
            record=lambda version: self._record(wish, version, proposal),
        )
        version = await self._store.apply_catalog(judged.digest, judged.text, snapshots, change)
        if self.refused is not None and (wish.origin is Origin.FILE or self.refused.digest == judged.digest):
            self.refused = None  # else the file is still not what is served
        self.serve(judged.contents, version)
        return version

    def _record(self, wish: Wish, version: CatalogVersion, proposal: Proposal | None) -> AuditRecord:
        levels = [str(change.level) for change in proposal.changes] if proposal is not None else []
        return recording.record(
            wish.caller,
            Action.APPLY_CATALOG,
            f"catalog/{version.version}",
            self._clock.now(),
            AuditOutcome.DONE,
            request_id=wish.request_id,
            reason=wish.reason,
            details={
                "sha256": version.digest,
                "origin": str(version.origin),
                "changes": {level: levels.count(level) for level in sorted(set(levels))},
                "policies": {plan_name(key): f"{of.mode} {of.to}".strip() for key, of in sorted(wish.policies.items())},
            },
        )


def _heard(working: asyncio.Future[Applied]) -> None:
    """A failure whose caller is gone is nobody's business but its own: it changed nothing."""
    if not working.cancelled():
        working.exception()


def sentences(changes: tuple[Change, ...]) -> tuple[str, ...]:
    """Changes in words, with their instances."""
    return tuple(f"{change.kind}: {told(change)}" for change in changes)


def _file_wish(reason: str) -> Wish:
    return Wish(caller=ITSELF, reason=reason, origin=Origin.FILE)
