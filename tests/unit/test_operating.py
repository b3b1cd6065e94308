"""docs/operating.md and docs/alerts.yml say what is there: every reason, every metric, every alert, and nothing else."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from purveyor_server.domain.errors import Reason
from purveyor_server.monitor.metrics import Metrics, Sizes

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE = (DOCS / "operating.md").read_text(encoding="utf-8")
SUFFIXES = ("_bucket", "_sum", "_count")


def rules() -> list[dict[str, Any]]:
    """The alert rules."""
    loaded = YAML(typ="safe").load((DOCS / "alerts.yml").read_text(encoding="utf-8"))
    return [rule for group in loaded["groups"] for rule in group["rules"]]


def metrics() -> set[str]:
    """Names of our metrics, as they are exposed."""
    families = Metrics(Sizes(lambda: 0, dict)).registry.collect()
    return {
        f"{family.name}_total" if family.type == "counter" else family.name
        for family in families
        if family.name.startswith("purveyor_")
    }


def undocumented(page: str) -> list[str]:
    """Reasons that the table of a page leaves out."""
    rows = [line.split("|")[1] for line in page.splitlines() if line.startswith("|")]
    told = {word for row in rows for word in re.findall(r"[A-Z][A-Z_]+", row)}
    return sorted(set(Reason) - told)


def test_every_reason_has_its_runbook() -> None:
    assert undocumented(PAGE) == []


def test_a_reason_without_a_runbook_is_found() -> None:
    assert undocumented(PAGE.replace("| STORE_FULL |", "| |")) == ["STORE_FULL"]


def test_every_metric_is_documented_and_no_other() -> None:
    assert set(re.findall(r"`(purveyor_[a-z_]+)(?:\{[^}]*\})?`", PAGE)) == metrics()


def test_alerts_use_metrics_that_exist() -> None:
    for rule in rules():
        used = set(re.findall(r"purveyor_[a-z_]+", rule["expr"]))
        for suffix in SUFFIXES:
            used = {name.removesuffix(suffix) for name in used}
        assert used <= metrics(), rule["alert"]


def test_every_alert_has_a_runbook_that_is_there() -> None:
    headings = {line.removeprefix("### ").lower() for line in PAGE.splitlines() if line.startswith("### ")}
    for rule in rules():
        page, _, anchor = rule["annotations"]["runbook"].partition("#")
        assert (page, anchor in headings) == ("docs/operating.md", True), rule["alert"]
        assert rule["labels"]["severity"] in {"page", "ticket"}


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool comes with Debian's package prometheus")
def test_promtool_accepts_the_rules() -> None:
    ran = subprocess.run(
        ["promtool", "check", "rules", str(DOCS / "alerts.yml")],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout + ran.stderr
