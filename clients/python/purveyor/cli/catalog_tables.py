"""Catalogs in operators' hands, for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from purveyor.cli.render import facts, table, when

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.console import RenderableType
    from rich.table import Table

    from purveyor.catalog_values import CatalogChange, CatalogCheck, CatalogVersion

_COLOURS = {"HARMLESS": "dim", "NOTABLE": "yellow", "DANGEROUS": "red", "REFUSED": "bold red"}


def check(found: CatalogCheck) -> RenderableType:
    """One row per problem, or that there is none."""
    if found.problems:
        return table(("WHERE", "KEY", "PROBLEM"), ((p.place, p.path, p.message) for p in found.problems))
    return facts(
        (("good", f"{_many(found.services, 'service')}, {_many(found.plans, 'plan')}"), ("sha256", found.sha256))
    )


def changes(found: Iterable[CatalogChange]) -> Table:
    """One row per change; what stands in the way is marked."""
    return table(
        ("LEVEL", "CHANGE", "SUBJECT", "WHAT", "INSTANCES", "BINDINGS", "CONCERNED"),
        (
            (
                Text(f"{change.level}{' !' if change.blocking else ''}", style=_COLOURS.get(change.level, "")),
                change.kind,
                change.subject,
                change.sentence,
                str(change.instances or "-"),
                str(change.bindings or "-"),
                _concerned(change),
            )
            for change in found
        ),
    )


def _concerned(change: CatalogChange) -> str:
    left = change.instances - len(change.concerned)
    more = f" and {left} more" if change.concerned and left > 0 else ""
    return ", ".join(change.concerned) + more


def versions(found: Iterable[CatalogVersion]) -> Table:
    """One row per catalog."""
    return table(
        ("VERSION", "APPLIED", "BY", "FROM", "SHA256", "REASON"),
        (
            (str(v.version), when(v.apply_time), v.principal or "-", v.origin, v.sha256[:12], v.reason or "-")
            for v in found
        ),
    )


def _many(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
