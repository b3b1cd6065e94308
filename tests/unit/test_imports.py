"""What a start loads, and what it leaves alone until somebody needs it."""

from __future__ import annotations

import gc
import subprocess
import sys
from importlib.metadata import EntryPoint

import pytest

from purveyor_server.kit.collector import without_collecting
from purveyor_server.kit.imports import without_rich
from purveyor_server.providers.directory import DirectoryProvider
from purveyor_server.providers.registry import InstalledFactories

TIMEOUT_SECONDS = 60
NOT_AT_A_START = (
    "asyncpg",
    "cryptography.x509",
    "prometheus_client",
    "purveyor_server.providers.directory",
    "purveyor_server.providers.postgresql",
    "purveyor_server.providers.skeleton",
    "purveyor_server.store.sqlite.restore",
    "rich",
    "starlette",
    "typer",
    "uvicorn",
)


def loaded(statements: str) -> set[str]:
    """Modules of a fresh process after `statements`."""
    code = f"import sys\n{statements}\nprint(*sys.modules)"
    command = [sys.executable, "-c", code]
    return set(
        subprocess.run(command, capture_output=True, text=True, check=True, timeout=TIMEOUT_SECONDS).stdout.split()
    )


def test_a_start_loads_only_what_it_needs() -> None:
    assert not loaded("import purveyor_server.app") & set(NOT_AT_A_START)


def test_the_provider_of_postgresql_reads_no_certificates_at_its_start() -> None:
    found = loaded("import purveyor_server.providers.postgresql")

    assert "purveyor_server.providers.postgresql.certificates" not in found
    assert "cryptography.x509" not in found


def test_rich_can_be_imported_after_a_start() -> None:
    assert "rich.console" in loaded("import purveyor_server.app\nimport rich.console")


def test_rich_that_is_there_stays() -> None:
    before = sys.modules["rich"] = sys.modules.get("rich") or __import__("rich")

    with without_rich():
        assert sys.modules["rich"] is before

    assert sys.modules["rich"] is before


def test_garbage_is_looked_for_again_after_a_failure() -> None:
    def fail() -> None:
        with without_collecting():
            assert not gc.isenabled()
            raise OSError

    with pytest.raises(OSError):
        fail()

    assert gc.isenabled()
    gc.unfreeze()


def test_a_kind_is_loaded_when_it_is_asked_for() -> None:
    known = InstalledFactories(
        [
            EntryPoint("folder", "purveyor_server.providers.directory:DirectoryProvider", "g"),
            EntryPoint("broken", "purveyor_server.no_such_module:Provider", "g"),
        ]
    )

    assert sorted(known) == ["broken", "folder"]
    assert known["folder"] is DirectoryProvider
    assert known["folder"] is known["folder"]


def test_a_kind_that_cannot_be_loaded_is_none_from_then_on() -> None:
    known = InstalledFactories([EntryPoint("broken", "purveyor_server.no_such_module:Provider", "g")])

    assert known.get("broken") is None
    assert known.get("broken") is None
    assert list(known) == []
    assert len(known) == 0
