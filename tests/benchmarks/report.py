"""The table on the screen and build/bench.json.

Guarantee: the file holds what this run measured and nothing older; a row that failed is not in it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.benchmarks.stats import Result

HEAD = ("row", "ours", "yardstick", "unit", "ratio", "range", "target", "stretch", "reached")


def table(results: Sequence[Result], failed: Mapping[str, str]) -> str:
    """One line per row, as Markdown."""
    lines = [HEAD, tuple("---" for _ in HEAD), *(_cells(result) for result in results)]
    text = ["| " + " | ".join(cells) + " |" for cells in lines]
    return "\n".join([*text, *(f"FAILED {name}: {reason}" for name, reason in failed.items())])


def _cells(result: Result) -> tuple[str, ...]:
    target = result.target
    unit = "" if result.judged == "ratio" else f" {result.unit}"
    bound = ">=" if target is not None and target.better == "higher" else "<="
    return (
        result.name,
        f"{result.value:.4g}",
        "-" if result.yardstick is None else f"{result.yardstick:.4g}",
        result.unit,
        "-" if result.ratio is None else f"{result.ratio:.3g}",
        f"{result.low:.3g}..{result.high:.3g}{unit}",
        "-" if target is None else f"{bound} {target.least:g}{unit}",
        "-" if target is None else f"{bound} {target.stretch:g}{unit}",
        result.verdict,
    )


def write_json(results: Sequence[Result], path: Path) -> None:
    """Write the list; the file is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".new")
    draft.write_text(json.dumps([result.as_json() for result in results], indent=1) + "\n", encoding="utf-8")
    draft.replace(path)
