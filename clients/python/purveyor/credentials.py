"""Credentials that do not show themselves.

Guarantee: `repr`, `str`, `format`, dataclass reprs and f-strings show the names of the values, never the values; only
`[...]`, iteration over `.values()`/`.items()` and `reveal()` do.
Limit: the memory of the process holds the clear text.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from purveyor.values import Json


class Credentials(Mapping[str, "Json"]):
    """What a binding's user logs in with, as the plan's provider names it (PostgreSQL: uri, host, port, database, ...)."""

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[str, Json]) -> None:
        self._values = dict(values)

    def __getitem__(self, name: str) -> Json:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def text(self, name: str) -> str:
        """One value as text ("5432" for a port of 5432). Raises KeyError when there is none of that name."""
        return str(self._values[name])

    def reveal(self) -> dict[str, Json]:
        """All values in the clear. Every call site is a place to review."""
        return dict(self._values)

    def __repr__(self) -> str:
        return f"Credentials({', '.join(f'{name}=***' for name in self._values)})"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return repr(self)
