"""The house rules that a linter does not know. Each check is first shown a planted fault, then the tree."""

from __future__ import annotations

import pytest

from tests.contract import habits
from tests.contract.habits import Finding

WRITTEN = ("server/**.py", "clients/python/**.py", "protos/**.py", "scripts/**.py")
PRODUCT = ("server/**.py", "clients/python/**.py")
TESTS = ("tests/**.py",)


def report(findings: list[Finding]) -> str:
    return "\n".join(f"{finding.path}:{finding.line}: {finding.rule}" for finding in findings)


def over(patterns: tuple[str, ...]) -> list[tuple[str, str]]:
    found = [
        (path.read_text(encoding="utf-8"), str(path.relative_to(habits.ROOT))) for path in habits.tracked(*patterns)
    ]
    assert found, f"nothing matches {patterns}: the check would be empty"
    return found


@pytest.mark.parametrize(
    "planted",
    [
        "try:\n    f()\nexcept asyncio.CancelledError:\n    pass",
        "try:\n    f()\nexcept (OSError, CancelledError) as error:\n    raise RuntimeError from error",
        "try:\n    f()\nexcept BaseException:\n    def g():\n        raise",
        "try:\n    f()\nexcept:\n    pass",
    ],
    ids=["swallowed", "replaced", "raised-elsewhere", "bare"],
)
def test_swallowed_cancellation_is_found(planted: str) -> None:
    assert len(habits.swallowed_cancellation(planted)) == 1


@pytest.mark.parametrize(
    "sound",
    [
        "try:\n    f()\nexcept asyncio.CancelledError:\n    g()\n    raise",
        "try:\n    f()\nexcept BaseException as error:\n    g()\n    raise error",
        "try:\n    f()\nexcept Exception:\n    pass",
    ],
    ids=["bare-raise", "named-raise", "not-caught"],
)
def test_cancellation_that_passes_is_no_finding(sound: str) -> None:
    assert habits.swallowed_cancellation(sound) == []


def test_cancellation_always_passes_through() -> None:
    findings = [finding for source, path in over(WRITTEN) for finding in habits.swallowed_cancellation(source, path)]

    assert not findings, report(findings)


def test_a_long_file_is_found() -> None:
    assert habits.too_long("x = 1\n" * 401, 400) == [Finding("<planted>", 401, "401 lines, at most 400")]
    assert habits.too_long("x = 1\n" * 400, 400) == []


@pytest.mark.parametrize(
    ("patterns", "limit"),
    [(WRITTEN, habits.MAX_LINES), (TESTS, habits.MAX_TEST_LINES)],
    ids=["product", "tests"],
)
def test_files_stay_small(patterns: tuple[str, ...], limit: int) -> None:
    findings = [finding for source, path in over(patterns) for finding in habits.too_long(source, limit, path)]

    assert not findings, report(findings)


def test_a_long_function_is_found() -> None:
    assert len(habits.long_functions("def f():\n" + "    g()\n" * 60)) == 1
    assert habits.long_functions("def f():\n" + "    g()\n" * 59) == []


def test_functions_stay_small() -> None:
    findings = [finding for source, path in over(WRITTEN) for finding in habits.long_functions(source, path)]

    assert not findings, report(findings)


@pytest.mark.parametrize("host", [*habits.REGISTRY_HOSTS, *habits.FORBIDDEN_OPTIONS, *habits.MACHINE_PATHS])
def test_an_address_is_found(host: str) -> None:
    assert len(habits.addresses(f"a==1\n# from https://{host}/simple\n")) == 1


def test_no_tracked_file_names_a_registry() -> None:
    own = {"tests/contract/habits.py"}  # spells the options out in order to look for them
    findings = []
    for path in habits.tracked("."):
        name = str(path.relative_to(habits.ROOT))
        if name not in own:
            findings += habits.addresses(path.read_text(encoding="utf-8", errors="replace"), name)

    assert not findings, report(findings)


@pytest.mark.parametrize(
    "planted",
    [
        "import unittest.mock",
        "from unittest import mock",
        "from unittest.mock import AsyncMock",
        "def f():\n    import mock",
    ],
)
def test_a_mock_is_found(planted: str) -> None:
    assert len(habits.mock_imports(planted)) == 1


def test_no_test_uses_mocks() -> None:
    findings = [finding for source, path in over(TESTS) for finding in habits.mock_imports(source, path)]

    assert not findings, report(findings)


@pytest.mark.parametrize("planted", ["await asyncio.sleep(0.1)", "time.sleep(delay)", "sleep(1)"])
def test_a_sleep_is_found(planted: str) -> None:
    assert len(habits.sleeps(f"async def f():\n    {planted}")) == 1


def test_no_test_sleeps() -> None:
    """`asyncio.sleep(0)` gives way to the loop and is allowed; waiting for time is not."""
    findings = [
        finding
        for source, path in over(TESTS)
        if not path.startswith("tests/benchmarks/")
        for finding in habits.sleeps(source, path)
    ]

    assert not findings, report(findings)
