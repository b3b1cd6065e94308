"""`make demo` is as told: it checks every claim itself, so its exit code is the assertion."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DEMO_SECONDS = 150


def test_a_claim_that_does_not_hold_is_found() -> None:
    demo = runpy.run_path(str(ROOT / "scripts/demo.py"))

    with pytest.raises(demo["ClaimError"], match="pigs fly"):
        demo["claim"]("pigs fly", [])


@pytest.mark.postgres
@pytest.mark.crash
@pytest.mark.timeout(DEMO_SECONDS + 30)  # a whole life of a broker and a PostgreSQL server, on a busy machine
def test_the_demo_ends_as_told() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts/demo.py")],
        capture_output=True,
        text=True,
        check=False,
        timeout=DEMO_SECONDS,
        stdin=subprocess.DEVNULL,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "all as told" in done.stdout
    assert "nothing is left behind" in done.stdout
