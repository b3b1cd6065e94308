"""Options that every test shares. Fixtures live in the folder that uses them."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

# Said before grpc is imported: programs are started, never forked. Its fork handlers run between fork and exec of a program
# that is started as another user, and crash it now and then (seen as initdb and `postgres --version` ended by SIGSEGV).
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

import pytest
from hypothesis import settings

# CI must not fail by chance on a slow machine: no per-example deadline there; the test's own time-out still bounds it.
settings.register_profile("default", deadline=None, print_blob=True)
settings.register_profile("ci", deadline=None, print_blob=True, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "default")

# A runner that was started in the background or by nohup ignores these, and every process that a test starts would too.
for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, usual)

pytest_plugins = ["purveyor_server.providers.testing.plugin"]  # prints the table provider x topic


# The files that take longest come first: begun last, one of them would keep one worker busy while the others are done.
LONGEST = (
    "recovery/test_crash.py",
    "acceptance/test_campaigns.py",
    "provider_contract/test_moving.py",
    "acceptance/test_matrix.py",
    "acceptance/test_leases.py",
    "clients/test_end_to_end.py",
    "fuzz/test_fuzz.py",
    "year/test_year.py",
)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Bring the longest files to the front; everything else stays in its order."""
    places = {Path(__file__).parent / name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path, len(places)))


@pytest.fixture(autouse=True)
def folder_kept() -> Iterator[None]:
    """Processes of later tests start in this folder: a test that leaves another one fails itself."""
    before = Path.cwd()
    yield
    after = Path.cwd()
    os.chdir(before)
    assert after == before
