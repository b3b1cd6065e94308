"""The drawings in docs/state-machines.md are the state machines in the code."""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest

from purveyor_server.domain.campaigns import CAMPAIGN_TRANSITIONS
from purveyor_server.domain.states import (
    BINDING_TRANSITIONS,
    FINAL_OPERATION,
    INSTANCE_TRANSITIONS,
    OPERATION_TRANSITIONS,
    BindingState,
    InstanceState,
    OperationState,
    Waiting,
)

PAGE = Path(__file__).parents[2] / "docs" / "state-machines.md"


def drawn(heading: str, text: str) -> set[tuple[str, str]]:
    """Arrows of the drawing below `heading`, without those from and to the outside."""
    section = text.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    arrows = re.findall(r"^\s+(\S+) --> (\S+)$", section, re.MULTILINE)
    return {(start, end) for start, end in arrows if "[*]" not in {start, end}}


def coded(transitions: Mapping[Any, frozenset[Any]]) -> set[tuple[str, str]]:
    """Arrows of a table of transitions."""
    return {(str(start), str(end)) for start, ends in transitions.items() for end in ends}


MACHINES = [
    ("Instance", INSTANCE_TRANSITIONS),
    ("Binding", BINDING_TRANSITIONS),
    ("Operation", OPERATION_TRANSITIONS),
    ("Campaign", CAMPAIGN_TRANSITIONS),
]


@pytest.mark.parametrize(("heading", "transitions"), MACHINES)
def test_drawing_matches_code(heading: str, transitions: Mapping[Any, frozenset[Any]]) -> None:
    """Every arrow of the code is drawn, and no other."""
    assert coded(transitions) == drawn(heading, PAGE.read_text())


def test_a_missing_arrow_is_found() -> None:
    """Negative control: a drawing without one arrow differs."""
    text = PAGE.read_text().replace("    READY --> UPDATING\n", "")

    assert coded(INSTANCE_TRANSITIONS) != drawn("Instance", text)


@pytest.mark.parametrize(
    ("states", "transitions"),
    [
        (InstanceState, INSTANCE_TRANSITIONS),
        (BindingState, BINDING_TRANSITIONS),
        (OperationState, OPERATION_TRANSITIONS),
    ],
)
def test_every_state_has_a_row(states: type[StrEnum], transitions: Mapping[Any, frozenset[Any]]) -> None:
    """No state is forgotten in its table."""
    assert set(states) == set(transitions)


def test_every_operation_can_end() -> None:
    """From every state of an operation a final one can be reached."""
    for state in OperationState:
        seen, todo = set(), [state]
        while todo:
            here = todo.pop()
            seen.add(here)
            todo += OPERATION_TRANSITIONS[here] - seen
        assert seen & FINAL_OPERATION


def test_every_reason_to_wait_is_explained() -> None:
    """The page has a row for each reason."""
    text = PAGE.read_text()

    assert not [reason for reason in Waiting if reason is not Waiting.NONE and f"| {reason} |" not in text]
