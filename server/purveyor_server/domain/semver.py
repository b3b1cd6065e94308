"""The order of semantic versions.

Source: Semantic Versioning 2.0.0, section 11; build metadata does not count.
"""

from __future__ import annotations

Precedence = tuple[tuple[int, int, int], bool, tuple[tuple[int, int, str], ...]]


def precedence(version: str) -> Precedence:
    """A key by which versions are ordered; `version` is one (the catalog's reader has seen to that)."""
    core, _, _build = version.partition("+")
    numbers, dash, suffix = core.partition("-")
    major, minor, patch = (int(part) for part in numbers.split("."))
    marks = tuple(_mark(part) for part in suffix.split(".")) if dash else ()
    return (major, minor, patch), not dash, marks


def _mark(identifier: str) -> tuple[int, int, str]:
    """Numbers are below words."""
    return (0, int(identifier), "") if identifier.isdigit() else (1, 0, identifier)
