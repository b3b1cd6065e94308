"""The table of docs/security.md, as data: who may call what, and where."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

SECURITY = Path(__file__).parents[2] / "docs" / "security.md"
HEADER = "| call |"
NEVER, TENANT, EVERYWHERE, CREATOR = "-", "tenant", "everywhere", "creator"
KINDS = frozenset({NEVER, TENANT, EVERYWHERE, CREATOR})


class Cell(NamedTuple):
    """One cell: a call, a role, and where the role has to be held for it."""

    call: str
    role: str
    where: str


def cells(text: str = "") -> list[Cell]:
    """Every cell of the table. Raises ValueError for a word that is none of the table's."""
    lines = iter((text or SECURITY.read_text(encoding="utf-8")).splitlines())
    header = next(line for line in lines if line.startswith(HEADER))
    roles = _row(header)[1:]
    return [cell for row in _rows(lines) for cell in _cells(row, roles)]


def _rows(lines: Iterator[str]) -> Iterator[list[str]]:
    next(lines)  # the rule below the header
    for line in lines:
        if not line.startswith("|"):
            return
        yield _row(line)


def _cells(row: list[str], roles: list[str]) -> Iterator[Cell]:
    call, *wheres = row
    for role, where in zip(roles, wheres, strict=True):
        if where not in KINDS:
            raise ValueError(f"{call}, {role}: {where!r} is none of {sorted(KINDS)}")
        yield Cell(call, role, where)


def _row(line: str) -> list[str]:
    return [part.strip() for part in line.strip("|").split("|")]
