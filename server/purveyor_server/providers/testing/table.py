"""The table provider x topic, from the outcomes of a run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

PROPERTY = "purveyor_provider_contract"  # of a test's report: (provider, topic)
WORDS = {"passed": "ok", "failed": "FAILED", "skipped": "-"}


class Outcome(NamedTuple):
    """How one topic ended for one provider."""

    provider: str
    topic: str
    outcome: str  # passed, failed, skipped
    reason: str = ""


def lines(outcomes: Iterable[Outcome]) -> list[str]:
    """The table as text: topics down, providers across, then the reasons of what was skipped or failed."""
    found = {(outcome.topic, outcome.provider): outcome for outcome in outcomes}
    topics = list(dict.fromkeys(topic for topic, _ in found))
    providers = sorted({provider for _, provider in found})
    width = max((len(topic) for topic in topics), default=0)
    widths = {provider: max(len(provider), len(WORDS["failed"])) for provider in providers}
    head = "  ".join([" " * width, *(provider.ljust(widths[provider]) for provider in providers)])
    rows = [_row(topic, providers, found, width, widths) for topic in topics]
    return [head.rstrip(), *rows, *_reasons(found.values())]


def _row(
    topic: str,
    providers: list[str],
    found: Mapping[tuple[str, str], Outcome],
    width: int,
    widths: Mapping[str, int],
) -> str:
    cells = [topic.ljust(width)]
    for provider in providers:
        outcome = found.get((topic, provider))
        cells.append((WORDS.get(outcome.outcome, outcome.outcome) if outcome else "").ljust(widths[provider]))
    return "  ".join(cells).rstrip()


def _reasons(outcomes: Iterable[Outcome]) -> list[str]:
    return [
        f"{WORDS.get(outcome.outcome, outcome.outcome)} {outcome.provider}, {outcome.topic}: {outcome.reason}"
        for outcome in outcomes
        if outcome.outcome != "passed"
    ]
