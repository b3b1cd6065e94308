"""The short form of `make verify-crash`: one point of each kind of scenario, and all planted faults.

Its numbers are printed; the seed changes which points are taken. The long form takes every point.
"""

from __future__ import annotations

import os

import pytest

from tests.recovery import kinds
from tests.recovery.suite import Options, Suite

SEED = int(os.environ.get("CRASH_SEED", "1"))
SETTLE_SECONDS = 0.5


@pytest.mark.crash
@pytest.mark.postgres
@pytest.mark.slow
@pytest.mark.timeout(300)  # two brokers and PostgreSQL servers are started some fifty times
async def test_nothing_is_lost_made_twice_or_left_behind() -> None:
    suite = Suite(Options(scenarios=kinds.SHORT, limit=1, seed=SEED, settle=SETTLE_SECONDS), print)
    print(f"seed {SEED} (CRASH_SEED)")

    await suite.run()

    print(suite.summary)
    assert suite.problems == []
    assert suite.missed == []
    assert [verdict.name for verdict in suite.verdicts if not verdict.found] == []
    assert suite.runs == len(suite._options.scenarios)
    assert suite.clean
