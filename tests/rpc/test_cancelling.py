"""The instrument of `make verify-cancel` works; its verdict needs more calls than a test has time for."""

from __future__ import annotations

import pytest

from tests.rpc.cancelling import KINDS, LIMIT, Result, measure, slope


def test_the_slope_is_that_of_the_line_through_the_noise() -> None:
    points = [(float(x), 1000.0 + 125.0 * x + (50 if x % 2 else -50)) for x in range(0, 1000, 10)]

    assert slope(points) == pytest.approx(125, abs=1)


def test_a_slope_at_the_limit_is_a_leak() -> None:
    assert Result("read", 1, LIMIT).leaks
    assert not Result("read", 1, LIMIT - 0.1).leaks


@pytest.mark.parametrize("kind", KINDS)
async def test_a_short_run_cancels_every_call(kind: str) -> None:
    result = await measure(kind, 200, chunks=2)

    assert (result.kind, result.calls) == (kind, 200)
