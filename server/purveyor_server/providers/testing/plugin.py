"""Prints the table provider x topic at the end of a run of pytest.

pytest_plugins = ["purveyor_server.providers.testing.plugin"]      # in the conftest.py at the top of your tests
"""

from __future__ import annotations

import pytest

from purveyor_server.providers.testing.table import PROPERTY, Outcome, lines

MAX_REASON = 300  # characters


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table if a contract suite ran."""
    outcomes = [
        found
        for kind in ("passed", "failed", "error", "skipped")
        for report in terminalreporter.stats.get(kind, [])
        if (found := _outcome(report, kind)) is not None
    ]
    if outcomes:
        from purveyor_server.providers.testing.topics import TOPICS  # noqa: PLC0415 - not in runs without a suite

        order = list(TOPICS)
        outcomes.sort(key=lambda outcome: order.index(outcome.topic) if outcome.topic in order else len(order))
        terminalreporter.section("provider contract")
        for line in lines(outcomes):
            terminalreporter.write_line(line)


def _outcome(report: object, kind: str) -> Outcome | None:
    if not isinstance(report, pytest.TestReport):
        return None
    for name, value in report.user_properties:
        if name == PROPERTY and isinstance(value, list | tuple):
            provider, topic = (str(part) for part in value)
            return Outcome(provider, topic, "failed" if kind == "error" else kind, _reason(report))
    return None


def _reason(report: pytest.TestReport) -> str:
    if report.outcome == "skipped" and isinstance(report.longrepr, tuple):
        return str(report.longrepr[2]).removeprefix("Skipped: ")[:MAX_REASON]
    crash = getattr(report.longrepr, "reprcrash", None)
    return str(getattr(crash, "message", "")).partition("\n")[0].rpartition("ContractBroken: ")[2][:MAX_REASON]
