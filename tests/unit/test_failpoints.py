"""Failpoints do nothing unless a plan is armed, and exactly what the plan says when one is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from purveyor_server.kit import failpoints

SECONDS = 30


@pytest.fixture(autouse=True)
def _disarm() -> Iterator[None]:
    """No plan outlives a test."""
    yield
    failpoints.arm("")


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `code` in a process of its own that has imported failpoints as `f`."""
    program = f"from purveyor_server.kit import failpoints as f\n{code}"
    return subprocess.run(
        [sys.executable, "-c", program], env=dict(os.environ) | environment, capture_output=True, text=True,
        timeout=SECONDS, check=False,
    )  # fmt: skip


def test_nothing_happens_unarmed() -> None:
    failpoints.hit("a")

    assert not failpoints.armed
    assert not failpoints.is_off("a")


def test_an_error_comes_at_the_nth_hit_and_only_then() -> None:
    failpoints.arm("a=error:2")
    failpoints.hit("a")

    with pytest.raises(failpoints.FailpointError, match="a"):
        failpoints.hit("a")
    failpoints.hit("a")


def test_a_point_may_have_several_actions() -> None:
    ended = run(
        "try:\n f.hit('a')\nexcept f.FailpointError: print('error')\nf.hit('a')", PURVEYOR_FAILPOINTS="a=error,a=kill:2"
    )

    assert ended.returncode == -signal.SIGKILL


def test_a_safeguard_is_off_while_armed() -> None:
    failpoints.arm("settle=off, other=kill:9")

    assert failpoints.is_off("settle")
    assert not failpoints.is_off("other")


def test_a_trace_has_every_hit(tmp_path: Path) -> None:
    failpoints.arm("", str(tmp_path / "trace"))
    failpoints.hit("a")
    failpoints.hit("b")

    assert (tmp_path / "trace").read_text() == "a\nb\n"


def test_the_environment_arms_a_process() -> None:
    ended = run("f.hit('a'); print('lives'); f.hit('a')", PURVEYOR_FAILPOINTS="a=kill:2")

    assert ended.returncode == -signal.SIGKILL


def test_a_plan_file_is_followed_while_the_process_runs(tmp_path: Path) -> None:
    """No file is no plan; another file at its place is another plan, with counts from zero; its second line traces."""
    code = """
import os, pathlib
folder = pathlib.Path(os.environ["FOLDER"])
def put(text):
    (folder / "draft").write_text(text)
    (folder / "draft").replace(folder / "plan")
f.hit("a")
put(f"b=error:2,claim=off\\n{folder / 'trace'}\\n")
f.hit("b")
print("off" if f.is_off("claim") else "on")
put("a=kill\\n")
f.hit("b")
print("off" if f.is_off("claim") else "on", flush=True)
f.hit("a")
"""
    ended = run(code, PURVEYOR_FAILPOINTS_FILE=str(tmp_path / "plan"), FOLDER=str(tmp_path))

    assert ended.stdout.split() == ["off", "on"]
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert (tmp_path / "trace").read_text() == "b\n"
