"""The arithmetic and the report of the benchmarks, on planted rounds."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.benchmarks import __main__ as command
from tests.benchmarks.processes import SideError
from tests.benchmarks.report import table, write_json
from tests.benchmarks.rows.engine import read_rates
from tests.benchmarks.runner import Beside, Row, Run, Sides, known_rows, measure, run_rows
from tests.benchmarks.stats import Pair, Target, summarize

KEYS = {"name", "value", "unit", "yardstick", "ratio", "low", "high", "better", "target", "stretch", "judged", "rounds"}
TARGET = Target(0.5, 0.9)


def row(
    name: str, ours: Callable[[int], float], theirs: Callable[[int], float] = lambda _n: 100.0, target: Target = TARGET
) -> Row:
    """A row whose sides are functions."""

    @contextmanager
    def opened(_run: Run) -> Iterator[Sides]:
        yield Sides(ours, theirs)

    return Row(name, "planted", "u", "planted too", target, opened)


def broken(_number: int) -> float:
    raise OSError("the disk is gone")


def quiet(folder: Path, rounds: int = 5) -> Run:
    return Run(folder, rounds, 10, lambda _line: None)


def test_the_figure_is_the_median_of_ratios_within_a_round() -> None:
    # The machine became twice as slow after the second round: ratios of medians would mix rounds, these do not.
    pairs = [Pair(100, 100), Pair(90, 100), Pair(30, 50), Pair(40, 50), Pair(45, 50)]

    result = summarize("r", "u", TARGET, pairs)

    assert (result.ratio, result.low, result.high) == (0.9, 0.6, 1.0)
    assert (result.value, result.yardstick, result.rounds) == (45, 50, 5)


def test_a_value_is_judged_by_its_own_range() -> None:
    target = Target(40, 26, better="lower", judged="value")

    result = summarize("memory", "KiB", target, [Pair(30, 20), Pair(50, 20), Pair(41, 20)])

    assert (result.figure, result.low, result.high, result.verdict) == (41, 30, 50, "missed")


@pytest.mark.parametrize(
    ("target", "figure", "verdict"),
    [
        (Target(0.5, 0.9), 0.49, "missed"),
        (Target(0.5, 0.9), 0.5, "met"),
        (Target(0.5, 0.9), 0.9, "stretch"),
        (Target(4, 2.5, "lower"), 4.1, "missed"),
        (Target(4, 2.5, "lower"), 4, "met"),
        (Target(4, 2.5, "lower"), 2.4, "stretch"),
    ],
)
def test_targets_count_in_their_direction(target: Target, figure: float, verdict: str) -> None:
    assert target.reached(figure) == verdict


@pytest.mark.parametrize(("ours", "theirs"), [(0.0, 1.0), (1.0, 0.0), (-1.0, 1.0)])
def test_a_measurement_of_nothing_is_refused(ours: float, theirs: float) -> None:
    with pytest.raises(ValueError, match="above zero"):
        Pair(ours, theirs)


def test_a_figure_without_yardstick_is_judged_by_its_value() -> None:
    """A count of failures may be zero, which a measurement against a yardstick may not."""
    target = Target(0, 0, better="lower", judged="value")

    clean, dirty = summarize("lost", "streams", target, [Pair(0)] * 3), summarize("lost", "streams", target, [Pair(1)])

    assert (clean.ratio, clean.yardstick, clean.verdict) == (None, None, "stretch")
    assert (dirty.figure, dirty.verdict) == (1, "missed")
    assert "| lost | 0 | - | streams | - | 0..0 streams |" in table([clean], {})
    assert clean.as_json()["ratio"] is None


def test_rounds_must_agree_on_whether_there_is_a_yardstick() -> None:
    with pytest.raises(ValueError, match="1 of 2 rounds"):
        summarize("r", "u", TARGET, [Pair(1, 1), Pair(1)])
    with pytest.raises(ValueError, match="no yardstick"):
        summarize("r", "u", TARGET, [Pair(1)])


def test_figures_beside_a_row_are_results_of_their_own(tmp_path: Path) -> None:
    """A share that has a target, and one that is told and not judged."""

    @contextmanager
    def opened(_run: Run) -> Iterator[Sides]:
        yield Sides(lambda number: (3.0, 80.0, 7.0 + number), lambda _number: (None, 100.0, 7.0))

    beside = (Beside("share", "ops/s", Target(0.7, 0.9)), Beside("cpu", "ms"))
    planted = Row("first", "", "s", "", Target(4, 2, "lower", judged="value"), opened, beside)

    first, share, cpu = measure(planted, quiet(tmp_path, rounds=3))

    assert (first.name, first.value, first.ratio, first.verdict) == ("first", 3.0, None, "met")
    assert (share.name, share.ratio, share.verdict) == ("share", 0.8, "met")
    assert (cpu.name, cpu.value, cpu.low, cpu.high, cpu.verdict) == ("cpu", 8.0, 7.0, 9.0, "told")
    assert cpu.as_json()["target"] is None


def test_a_figure_that_is_missing_fails_the_row(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="2 figures were expected"):
        measure(Row("r", "", "u", "", TARGET, row("r", lambda _n: 1.0).open, (Beside("b", "u"),)), quiet(tmp_path))


def test_no_round_is_no_result() -> None:
    with pytest.raises(ValueError, match="no round"):
        summarize("r", "u", TARGET, [])


def test_sides_alternate() -> None:
    order: list[str] = []

    def noting(name: str) -> Callable[[int], float]:
        def side(number: int) -> float:
            order.append(f"{name}{number}")
            return 1.0

        return side

    with row("r", noting("a"), noting("b")).open(quiet(Path())) as sides:
        measured = Row("r", "", "u", "", TARGET, lambda _run: _same(sides))
        measure(measured, quiet(Path(), rounds=4))

    assert order == ["a0", "b0", "b1", "a1", "a2", "b2", "b3", "a3"]


@contextmanager
def _same(sides: Sides) -> Iterator[Sides]:
    yield sides


def test_a_planted_slower_side_is_seen_as_slower(tmp_path: Path) -> None:
    """Each side does counted work on a clock of its own; ours takes twice the ticks."""

    def rate(ticks_each: int) -> Callable[[int], float]:
        return lambda _number: 1000 / sum(ticks_each for _ in range(10))

    slower = measure(row("r", rate(2), rate(1)), quiet(tmp_path))[0]
    faster = measure(row("r", rate(1), rate(2)), quiet(tmp_path))[0]

    assert (slower.ratio, slower.verdict) == (0.5, "met")
    assert (faster.ratio, faster.verdict) == (2.0, "stretch")


def test_a_failing_row_is_told_and_the_others_run(tmp_path: Path) -> None:
    told: list[str] = []
    rows = [row("first", lambda _n: 50.0), row("broken", broken), row("last", lambda _n: 60.0)]

    results, failed = run_rows(rows, Run(tmp_path, 5, 10, told.append))

    assert [result.name for result in results] == ["first", "last"]
    assert list(failed) == ["broken"]
    assert "OSError: the disk is gone" in failed["broken"]
    assert "Traceback" in (tmp_path / "broken" / "failure.txt").read_text()
    assert any("the disk is gone" in line for line in told)
    assert "FAILED broken: OSError" in table(results, failed)


def test_the_file_has_one_entry_per_measured_row(tmp_path: Path) -> None:
    results, _ = run_rows([row("first", lambda _n: 50.0), row("broken", broken)], quiet(tmp_path))

    write_json(results, tmp_path / "bench.json")

    written = json.loads((tmp_path / "bench.json").read_text())
    assert [set(entry) for entry in written] == [KEYS]
    assert written[0] | {"name": "first", "ratio": 0.5, "better": "higher", "target": 0.5, "stretch": 0.9} == written[0]


@pytest.mark.parametrize(
    ("side", "code"), [(lambda _n: 50.0, 0), (lambda _n: 1.0, 0), (broken, 1)], ids=["met", "missed", "failed"]
)
def test_the_exit_code_tells_whether_all_was_measured(
    side: Callable[[int], float], code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A missed target is no failure; a row that could not be measured is."""
    monkeypatch.setattr(command, "BUILD", tmp_path)
    monkeypatch.setattr(command, "known_rows", lambda: {"planted": row("planted", side)})
    monkeypatch.setattr(command, "describe", lambda _folder: "a machine")

    assert command.main(["--row", "planted"]) == code
    assert len(json.loads((tmp_path / "bench.json").read_text())) == 1 - code


def test_every_row_is_found() -> None:
    rows = known_rows()

    streams = {"events_100", "events_1000", "receipt", "memory_events", "open_5000"}
    assert {"provision", "get", "memory", "start", "engine", "orm", "page", "resume"} | streams <= set(rows)
    assert all(name == found.name for name, found in rows.items())


def test_rates_are_read_by_concurrency() -> None:
    assert read_rates("1 69.6\n16 50.9\n") == {1: 69.6, 16: 50.9}


@pytest.mark.parametrize("said", ["", "Traceback (most recent call last):", "1 fast"])
def test_a_side_that_says_no_rate_has_failed(said: str) -> None:
    with pytest.raises(SideError, match="no rates"):
        read_rates(said)
