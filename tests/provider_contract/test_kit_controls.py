"""The contract suite is shown a provider that is right, and for every topic one that breaks it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from purveyor_server.providers.testing import TOPICS, Case, ContractBroken, NotOffered, ProviderContract
from purveyor_server.providers.testing.table import Outcome, lines
from tests.provider_contract.memory import MemoryCase

# The flaw, the topic that must go red, and a word of the verdict.
CONTROLS = [
    ("leak", "round trip", "after bind and unbind"),
    ("not idempotent", "ensure twice", "ran twice"),
    ("no absent before ensure", "absent before ensure", "not found"),
    ("no absent before ensure", "absent twice", "not found"),
    ("two at once", "runs at once", "_again"),
    ("never settles", "settle", "settle of 'box'"),
    ("settle lies", "late effects", "settle of 'box' says true"),
    ("fences nothing", "late effects", "after absent it was let go, and the listing changed"),
    ("half make", "kills: provision", "killed at box"),
    ("half make", "kills: bind", "killed at key"),
    ("half update", "kills: update", "killed at box"),
    ("half removal", "kills: unbind", "listing"),
    ("half removal", "kills: deprovision", "listing"),
    ("remembers", "update", "undone"),
    ("observe changes", "observe", "changes nothing"),
    ("blind", "observe", "after the deprovision"),
    ("blind", "drift", "taken away by hand"),
    ("foreign", "list_owned", "none of this store's"),
    ("sibling", "unique credentials", "the same 'user'"),
    ("marks nothing", "unique credentials", "unique_fields names nothing"),
    ("sibling", "binds at once", "the same 'user'"),
    ("keeps access", "access", "after the unbind"),
    ("no expiry", "expiry", "after their expiry"),
    ("secret in outputs", "secrecy", "in clear in outputs"),
    ("holds nothing", "quarantine", "give access to what is in quarantine"),
    ("any marker", "quarantine", "is not refused"),
    ("any marker", "reclaim", "is not refused"),
    ("reclaims the last alone", "reclaim", "does not come to its end"),
    ("drops what it adopted", "adopt", "after a deprovision took over"),
    ("adopts again", "adopt", "can be adopted again"),
    ("impure plan", "pure plan", "not pure"),
    ("needs outputs", "removal plan", "knew only the uid"),
    ("no schema", "schemas", "is empty"),
]


class TestMemory(ProviderContract):
    """Without a flaw every topic is green and none is skipped."""

    @pytest.fixture
    def case(self, tmp_path: Path) -> Case:
        return MemoryCase(tmp_path)


@pytest.mark.parametrize(("flaw", "topic", "verdict"), CONTROLS)
async def test_a_planted_flaw_is_found(tmp_path: Path, flaw: str, topic: str, verdict: str) -> None:
    with pytest.raises((ContractBroken, Exception), match=verdict):
        await TOPICS[topic](MemoryCase(tmp_path, flaw))


def test_every_topic_has_a_control() -> None:
    assert {topic for _, topic, _ in CONTROLS} == set(TOPICS)


async def test_settle_may_say_true_when_the_backend_then_refuses_the_call(tmp_path: Path) -> None:
    await TOPICS["late effects"](MemoryCase(tmp_path, "fences"))


class Silent(MemoryCase):
    """What an author may leave out is left out."""

    use, destroy, hold, stray = Case.use, Case.destroy, Case.hold, Case.stray
    changed = None  # type: ignore[assignment] # as an author who gives none


@pytest.mark.parametrize("topic", ["access", "drift", "late effects", "update", "kills: update", "adopt"])
async def test_what_a_case_does_not_give_is_skipped_with_the_reason(tmp_path: Path, topic: str) -> None:
    with pytest.raises(NotOffered, match="the case gives no"):
        await TOPICS[topic](Silent(tmp_path))


def test_the_table_names_provider_topic_and_reason() -> None:
    outcomes = [
        Outcome("one", "settle", "passed"),
        Outcome("other", "settle", "failed", "it does not end"),
        Outcome("one", "drift", "skipped", "no `destroy`"),
    ]

    assert lines(outcomes) == [
        "        one     other",
        "settle  ok      FAILED",
        "drift   -",
        "FAILED other, settle: it does not end",
        "- one, drift: no `destroy`",
    ]


TEST_FILE = """
import pytest
from purveyor_server.providers.testing import ProviderContract
from tests.provider_contract.memory import MemoryCase

class TestLeaky(ProviderContract):
    @pytest.fixture
    def case(self, tmp_path):
        return MemoryCase(tmp_path, "leak")
"""


def test_a_red_topic_is_red_in_pytest_and_in_the_table(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[2]
    (tmp_path / "test_leaky.py").write_text(TEST_FILE, encoding="utf-8")
    (tmp_path / "pytest.ini").write_text(f"[pytest]\npythonpath = {root}\n", encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "purveyor_server.providers.testing.plugin", "-k", "round"]

    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)

    assert done.returncode == 1, done.stdout + done.stderr
    assert "round trip  FAILED" in done.stdout
    assert "FAILED memory, round trip: after bind and unbind: the listing" in done.stdout


def test_without_pytest_the_suite_says_what_to_install() -> None:
    program = (
        "import sys; sys.modules['pytest'] = None\n"
        "import purveyor_server.providers.testing as kit\n"
        "assert kit.TOPICS\n"
        "kit.ProviderContract\n"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)

    assert "ImportError: the provider contract suite needs pytest: pip install pytest" in done.stderr
