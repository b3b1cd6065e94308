"""Catalogs in operators' hands as messages."""

from __future__ import annotations

from collections.abc import Iterable

from purveyor.v1 import catalog_admin_pb2 as pb
from purveyor_server.domain.catalogchanges import Change, plan_name
from purveyor_server.lifecycle.admin.catalogs import Comparison, Validation
from purveyor_server.lifecycle.catalogs import Applied, Refused
from purveyor_server.rpc.convert.values import to_timestamp
from purveyor_server.store.catalogs import CatalogVersion

LEVELS = {name.removeprefix("LEVEL_"): number for name, number in pb.CatalogChange.Level.items() if number}
ORIGINS = {name.removeprefix("ORIGIN_"): number for name, number in pb.CatalogVersion.Origin.items() if number}


def encode_version(version: CatalogVersion) -> pb.CatalogVersion:
    """A catalog that was applied, without its text."""
    return pb.CatalogVersion(
        version=version.version,
        sha256=version.digest,
        apply_time=to_timestamp(version.applied_at),
        principal=version.principal,
        reason=version.reason,
        origin=ORIGINS[version.origin],
        request_id=version.request_id,
    )


def encode_refused(refused: Refused | None) -> pb.CatalogRefusal | None:
    """Why the file is not taken; None stays absent."""
    if refused is None:
        return None
    return pb.CatalogRefusal(refuse_time=to_timestamp(refused.at), sha256=refused.digest, reasons=refused.why)


def encode_validation(found: Validation) -> pb.ValidateCatalogResponse:
    """What the judge says."""
    problems = [pb.CatalogProblem(path=p.path, message=p.message, place=p.place) for p in found.problems]
    return pb.ValidateCatalogResponse(
        problems=problems, sha256=found.digest, services=found.services, plans=found.plans
    )


def encode_comparison(found: Comparison) -> pb.DiffCatalogResponse:
    """What a text would change."""
    return pb.DiffCatalogResponse(
        base_version=found.base,
        sha256=found.digest,
        changes=_changes(found.changes, found.blocking),
        refused=bool(found.blocking),
    )


def encode_applied(found: Applied | Comparison) -> pb.ApplyCatalogResponse:
    """What an apply did, or would do."""
    if isinstance(found, Comparison):
        changes = _changes(found.changes, found.blocking)
        return pb.ApplyCatalogResponse(changes=changes, refused=bool(found.blocking))
    version = encode_version(found.version)
    changes = _changes(found.changes, ())
    return pb.ApplyCatalogResponse(
        catalog=version, changes=changes, replayed=found.replayed, campaign_ids=found.campaigns
    )


def _changes(changes: Iterable[Change], blocking: tuple[Change, ...]) -> list[pb.CatalogChange]:
    return [
        pb.CatalogChange(
            kind=str(change.kind),
            level=LEVELS[change.level],
            subject=change.subject,
            sentence=change.sentence,
            plans=[plan_name(plan) for plan in change.plans],
            instances=change.instances,
            bindings=change.bindings,
            concerned=[pb.ConcernedInstance(tenant=n.tenant, instance_id=n.instance_id) for n in change.named],
            blocking=change in blocking,
        )
        for change in changes
    ]
