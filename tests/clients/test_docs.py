"""The examples of docs/client.md do what they say, each as a program of its own against a real broker."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.clients.aside import running

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = Path(__file__).resolve().parents[2] / "docs/client.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
RUN_SECONDS = 60
READY = "['READY', 'READY', 'READY']"
ALIVE = "app Credentials(password=***, username=***)"
LAST_LINES = ["orders shared-small", READY, "1 ['postgresql']", ALIVE, "BINDINGS_EXIST", READY]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running(tmp_path_factory.mktemp("b")) as found:
        yield found


def test_there_are_as_many_as_expected() -> None:
    assert len(EXAMPLES) == len(LAST_LINES)


@pytest.mark.parametrize(
    ("example", "last"),
    list(zip(EXAMPLES, LAST_LINES, strict=True)),
    ids=["async", "tasks", "catalog", "source", "sync", "threads"],
)
def test_an_example_runs(address: str, example: str, last: str) -> None:
    environment = {**os.environ, "PURVEYOR_ADDRESS": address}
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", example],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=RUN_SECONDS,
    )

    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.splitlines()[-1] == last
    assert "***" in ran.stdout or "credentials" not in example
