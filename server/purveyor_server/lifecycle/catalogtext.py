"""The text of a catalog on its way in: who judges it, and what the judge says.

Limit: the reader of catalog files lies above this layer; a process gives it as a `Judge`.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from purveyor_server.domain.catalogchanges import Contents
from purveyor_server.domain.errors import PurveyorError, Reason, Violation

MOST_PROBLEMS = 20  # that an error lists


class Judged(msgspec.Struct, frozen=True):
    """A text that was found good: what it says, and its SHA-256 (hex)."""

    contents: Contents
    text: str
    digest: str


class TextProblem(msgspec.Struct, frozen=True):
    """One thing that is wrong: the key path, what, and where (`name:line`)."""

    path: str
    message: str
    place: str = ""


class CatalogTextError(Exception):
    """The text cannot be used; every problem is named."""

    def __init__(self, problems: tuple[TextProblem, ...]) -> None:
        super().__init__("; ".join(f"{problem.place} {problem.path}: {problem.message}" for problem in problems[:3]))
        self.problems = problems

    def refusal(self) -> PurveyorError:
        """INVALID_REQUEST with the problems as violations."""
        violations = tuple(
            Violation(
                problem.path or "catalog", f"{problem.place}: {problem.message}" if problem.place else problem.message
            )
            for problem in self.problems
        )
        first, more = violations[0], len(violations) - 1
        text = f"the catalog is not valid: {first.field}: {first.description}{f' (and {more} more)' if more else ''}"
        return PurveyorError(Reason.INVALID_REQUEST, text, violations=violations[:MOST_PROBLEMS])


class Judge(Protocol):
    """Reads a text by all rules; blocking."""

    def __call__(self, text: bytes, *, ask_providers: bool = True) -> Judged:
        """Raises CatalogTextError. Without `ask_providers` the providers' own words are not asked for."""
        ...
