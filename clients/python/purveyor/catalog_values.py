"""What operators get to know of catalogs."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True, kw_only=True)
class CatalogProblem:
    """One thing that is wrong with a catalog's text: the key, what, and where (`NAME:LINE`)."""

    path: str
    message: str
    place: str = ""


@dataclass(frozen=True, kw_only=True)
class CatalogCheck:
    """Whether a text is a good catalog: no `problems`."""

    problems: tuple[CatalogProblem, ...] = ()
    sha256: str = ""
    services: int = 0
    plans: int = 0


@dataclass(frozen=True, kw_only=True)
class CatalogChange:
    """One change. `level`: HARMLESS, NOTABLE, DANGEROUS or REFUSED. `plans` (SERVICE/PLAN) are those in use that it concerns,
    `concerned` (TENANT/INSTANCE) some of the `instances`. `blocking`: it stands in the way."""

    kind: str
    level: str
    subject: str
    sentence: str
    plans: tuple[str, ...] = ()
    instances: int = 0
    bindings: int = 0
    concerned: tuple[str, ...] = ()
    blocking: bool = False


@dataclass(frozen=True, kw_only=True)
class CatalogDiff:
    """What a text would change of the catalog `base_version`, and whether it would be refused."""

    base_version: int
    sha256: str
    changes: tuple[CatalogChange, ...] = ()
    refused: bool = False


@dataclass(frozen=True, kw_only=True)
class CatalogVersion:
    """A catalog that was applied. `origin`: FILE or CALL."""

    version: int
    sha256: str
    apply_time: datetime | None = None
    principal: str = ""
    reason: str = ""
    origin: str = ""
    request_id: str = ""


@dataclass(frozen=True, kw_only=True)
class AppliedCatalog:
    """What an apply did; `catalog` is None when it was only tried. `campaign_ids`: those that policies asked for."""

    catalog: CatalogVersion | None
    changes: tuple[CatalogChange, ...] = ()
    refused: bool = False
    replayed: bool = False
    campaign_ids: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class CatalogText:
    """A catalog that was applied, with its text."""

    catalog: CatalogVersion
    text: str


@dataclass(frozen=True, kw_only=True)
class CatalogRefusal:
    """Why the catalog file, as it was last looked at, is not what is served."""

    refuse_time: datetime | None = None
    sha256: str = ""
    reasons: tuple[str, ...] = field(default_factory=tuple)
