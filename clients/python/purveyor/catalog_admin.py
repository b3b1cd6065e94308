"""The calls of operators about catalogs, for `AdminClient`."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

from purveyor import decode
from purveyor.catalog_values import (
    AppliedCatalog,
    CatalogChange,
    CatalogCheck,
    CatalogDiff,
    CatalogProblem,
    CatalogRefusal,
    CatalogText,
    CatalogVersion,
)
from purveyor.opened import OpenedClient
from purveyor.pages import walk
from purveyor.v1 import catalog_admin_pb2 as messages
from purveyor.v1.admin_service_pb2_grpc import AdminServiceStub

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Sequence


class CatalogAdmin(OpenedClient):
    """A part of `AdminClient`. A text is what a catalog file holds; a policy is `SERVICE/PLAN=keep` or
    `SERVICE/PLAN=migrate:PLAN`, by ids."""

    @property
    def _catalog_stub(self) -> AdminServiceStub:
        return AdminServiceStub(self.connection.channel)

    async def validate_catalog(self, text: str) -> CatalogCheck:
        """Judge a text by all rules, those of the broker's providers included."""
        request = messages.ValidateCatalogRequest(text=text)
        answer = await self.connection.call(self._catalog_stub.ValidateCatalog, request)
        problems = tuple(CatalogProblem(path=p.path, message=p.message, place=p.place) for p in answer.problems)
        return CatalogCheck(problems=problems, sha256=answer.sha256, services=answer.services, plans=answer.plans)

    async def diff_catalog(self, text: str, policies: Sequence[str] = ()) -> CatalogDiff:
        """What a text would change, and how dangerous that is. Raises InvalidRequestError."""
        request = messages.DiffCatalogRequest(text=text, policies=policies)
        answer = await self.connection.call(self._catalog_stub.DiffCatalog, request)
        return CatalogDiff(
            base_version=answer.base_version,
            sha256=answer.sha256,
            changes=_changes(answer.changes),
            refused=answer.refused,
        )

    async def apply_catalog(
        self,
        text: str,
        reason: str,
        *,
        policies: Sequence[str] = (),
        expected_version: int = 0,
        request_id: str | None = None,
        validate_only: bool = False,
    ) -> AppliedCatalog:
        """Serve a catalog from now on; with `expected_version` only while that one is served.

        Raises FailedPreconditionError (CATALOG_REFUSED), AbortedError (another catalog is served), InvalidRequestError.
        """
        request = messages.ApplyCatalogRequest(
            text=text,
            policies=policies,
            expected_version=expected_version,
            reason=reason,
            request_id=request_id or str(uuid4()),
            validate_only=validate_only,
        )
        answer = await self.connection.call(self._catalog_stub.ApplyCatalog, request)
        return AppliedCatalog(
            catalog=_version(answer.catalog) if answer.HasField("catalog") else None,
            changes=_changes(answer.changes),
            refused=answer.refused,
            replayed=answer.replayed,
            campaign_ids=tuple(answer.campaign_ids),
        )

    async def catalog_history(self, *, page_size: int = 0) -> AsyncIterator[CatalogVersion]:
        """Which catalogs were applied, the newest first."""
        request = messages.ListCatalogsRequest(page_size=page_size)
        async for page in walk(self.connection, self._catalog_stub.ListCatalogs, request):
            for found in page.catalogs:
                yield _version(found)

    async def catalog_text(self, version: int = 0) -> CatalogText:
        """One of them with its text; 0: the newest. Raises NotFoundError."""
        request = messages.GetCatalogVersionRequest(version=version)
        answer = await self.connection.call(self._catalog_stub.GetCatalogVersion, request)
        return CatalogText(catalog=_version(answer.catalog), text=answer.text)


def refusal(found: messages.CatalogRefusal) -> CatalogRefusal:
    """Why the catalog file is not taken."""
    return CatalogRefusal(
        refuse_time=decode.time_of(found.refuse_time), sha256=found.sha256, reasons=tuple(found.reasons)
    )


def _version(found: messages.CatalogVersion) -> CatalogVersion:
    return CatalogVersion(
        version=found.version,
        sha256=found.sha256,
        apply_time=decode.time_of(found.apply_time),
        principal=found.principal,
        reason=found.reason,
        origin=decode.enum_name(messages.CatalogVersion.Origin, found.origin, "ORIGIN_"),
        request_id=found.request_id,
    )


def _changes(found: Iterable[messages.CatalogChange]) -> tuple[CatalogChange, ...]:
    levels = messages.CatalogChange.Level
    return tuple(
        CatalogChange(
            kind=change.kind,
            level=decode.enum_name(levels, change.level, "LEVEL_"),
            subject=change.subject,
            sentence=change.sentence,
            plans=tuple(change.plans),
            instances=change.instances,
            bindings=change.bindings,
            concerned=tuple(f"{one.tenant}/{one.instance_id}" for one in change.concerned),
            blocking=change.blocking,
        )
        for change in found
    )
