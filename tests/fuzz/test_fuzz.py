"""The trial in its short form: `make fuzz` is the long one."""

from __future__ import annotations

import pytest

from tests.fuzz.suite import Options, Suite
from tests.postgres_server import TestServer, postgres  # noqa: F401 - a fixture


@pytest.mark.timeout(180)
def test_nothing_that_is_sent_does_harm(postgres: TestServer) -> None:  # noqa: F811 - the fixture
    lines: list[str] = []
    suite = Suite(Options(parsed=200, sent=150, lives=4), lines.append)
    suite.run(postgres)
    assert suite.clean, "\n".join([*lines, suite.summary])
