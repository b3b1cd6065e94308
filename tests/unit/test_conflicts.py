"""The conflict matrix says what the design says, cell by cell, and the printed page is it."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from purveyor_server.domain.conflicts import (
    BINDING_MATRIX,
    INSTANCE_MATRIX,
    Ask,
    BindingAsk,
    BindingRow,
    Row,
    Ruling,
    binding_row_of,
    blocks_deprovision,
    markdown,
    row_of,
    rule,
    rule_bind,
    rule_renew,
    rule_rotate,
    rule_unbind,
)
from purveyor_server.domain.states import BindingState, InstanceState, OperationState, Verb
from tests.fakes.situations import NOW, binding, instance, operation

PAGE = Path(__file__).parents[2] / "docs" / "conflict-matrix.md"

# One letter per ruling, one column per Ask; written from the design, not from the code.
LETTERS = {
    "A": Ruling.ACCEPT,
    "S": Ruling.SAME_OPERATION,
    "C": Ruling.CURRENT_STATE,
    "F": Ruling.FRESH_ATTEMPT,
    "T": Ruling.TAKE_OVER,
    "W": Ruling.WAIT_AND_CANCEL,
    "P": Ruling.IN_PROGRESS,
    "E": Ruling.ALREADY_EXISTS,
    "X": Ruling.WRONG_STATE,
    "B": Ruling.BINDINGS_EXIST,
    "N": Ruling.NOT_FOUND,
}
DESIGN = {
    Row.ABSENT: "AA NN N N N NNN",
    Row.PROVISIONING: "SE PP P N N TTT",
    Row.READY: "CE AA A A A ABA",
    Row.READY_BINDING_WORK: "CE PP A A A ABA",
    Row.READY_CLEANUP: "CE PP P A A TBT",
    Row.UPDATING: "CE SP P A A WBW",
    Row.DEPROVISIONING: "XX XX X X X SSS",
    Row.DELETE_FAILED: "XX XX X X A FBF",
    Row.FAILED: "FE XX X N N ABA",
    Row.FAILED_CLEANUP: "PE XX X N N TBT",
    Row.FAILED_KEPT: "XE XX X N N ABA",
    Row.DELETED: "AA NN N N N NNN",
}
DESIGN_BINDING = {
    BindingRow.ABSENT: "AAN NN N",
    BindingRow.BINDING: "SET PP P",
    BindingRow.ACTIVE: "CEA AA A",
    BindingRow.ACTIVE_WORK: "CET SP P",
    BindingRow.EXPIRED: "CEA XX X",
    BindingRow.UNBINDING: "XXS XX X",
    BindingRow.FAILED: "FEA XX X",
    BindingRow.FAILED_CLEANUP: "PET XX X",
    BindingRow.FAILED_KEPT: "XEA XX X",
    BindingRow.REVOCATION_BLOCKED: "XXA XX X",
}


@pytest.mark.parametrize("row", Row)
def test_instance_row_is_the_designs(row: Row) -> None:
    expected = [LETTERS[letter] for letter in DESIGN[row].replace(" ", "")]
    assert [rule(row, ask) for ask in Ask] == expected


@pytest.mark.parametrize("row", BindingRow)
def test_binding_row_is_the_designs(row: BindingRow) -> None:
    expected = [LETTERS[letter] for letter in DESIGN_BINDING[row].replace(" ", "")]
    assert [BINDING_MATRIX[row][ask] for ask in BindingAsk] == expected


def test_both_tables_are_complete() -> None:
    assert set(INSTANCE_MATRIX) == set(Row)
    assert all(set(cells) == set(Ask) for cells in INSTANCE_MATRIX.values())
    assert set(BINDING_MATRIX) == set(BindingRow)


def test_printed_page_is_the_table() -> None:
    assert PAGE.read_text(encoding="utf-8") == markdown()


@pytest.mark.parametrize("state", InstanceState)
def test_each_instance_state_has_a_row(state: InstanceState) -> None:
    assert row_of(instance(state), ()).name == state.name
    assert row_of(None, ()) is Row.ABSENT


@pytest.mark.parametrize(
    ("verb", "row"), [(Verb.CLEANUP, Row.READY_CLEANUP), (Verb.BIND, Row.READY_BINDING_WORK), (None, Row.READY)]
)
def test_ready_splits_by_what_is_in_flight(verb: Verb | None, row: Row) -> None:
    of = instance()
    on = binding(of, BindingState.BINDING) if verb is Verb.BIND else None
    running = () if verb is None else (operation(of, verb, on),)
    assert row_of(of, running) is row


def test_ended_operations_are_not_in_flight() -> None:
    of = instance()
    ended = operation(of, Verb.BIND, binding(of), state=OperationState.FAILED)
    assert row_of(of, (ended,)) is Row.READY


def test_failed_with_remains_waits_for_their_clean_up_or_for_an_operator() -> None:
    assert row_of(instance(InstanceState.FAILED, cleanup_required=("role",)), ()) is Row.FAILED_KEPT
    of = instance(InstanceState.FAILED)
    assert row_of(of, (operation(of, Verb.CLEANUP),)) is Row.FAILED_CLEANUP


@pytest.mark.parametrize("state", BindingState)
def test_each_binding_state_has_a_row(state: BindingState) -> None:
    expected = "ABSENT" if state is BindingState.DELETED else state.name
    assert binding_row_of(binding(instance(), state), ()).name == expected


def test_work_on_an_active_binding_and_its_end_have_rows() -> None:
    of = instance()
    on = binding(of, expires_at=NOW)
    assert binding_row_of(on, (operation(of, Verb.RENEW, on),)) is BindingRow.ACTIVE_WORK
    assert binding_row_of(on, (), NOW) is BindingRow.EXPIRED
    assert binding_row_of(on, (), NOW - timedelta(microseconds=1)) is BindingRow.ACTIVE


@pytest.mark.parametrize(
    ("row", "bound", "renewed", "rotated"),
    [
        (Row.READY, BindingRow.ACTIVE, Ruling.ACCEPT, Ruling.ACCEPT),
        (Row.UPDATING, BindingRow.ACTIVE, Ruling.ACCEPT, Ruling.IN_PROGRESS),
        (Row.READY_CLEANUP, BindingRow.ACTIVE, Ruling.ACCEPT, Ruling.IN_PROGRESS),
        (Row.DEPROVISIONING, BindingRow.UNBINDING, Ruling.WRONG_STATE, Ruling.WRONG_STATE),
        (Row.DELETE_FAILED, BindingRow.ACTIVE, Ruling.WRONG_STATE, Ruling.WRONG_STATE),
        (Row.DEPROVISIONING, BindingRow.ABSENT, Ruling.NOT_FOUND, Ruling.NOT_FOUND),
    ],
)
def test_renew_and_rotate_need_both_tables(row: Row, bound: BindingRow, renewed: Ruling, rotated: Ruling) -> None:
    assert rule_renew(row, bound, same=False) is renewed
    assert rule_rotate(row, bound) is rotated


def test_blocked_revocation_that_is_tried_again_is_unbinding() -> None:
    of = instance()
    on = binding(of, BindingState.REVOCATION_BLOCKED)
    assert binding_row_of(on, (operation(of, Verb.UNBIND, on),)) is BindingRow.UNBINDING


@pytest.mark.parametrize(
    ("row", "bound", "same", "ruling"),
    [
        (Row.READY, BindingRow.ABSENT, False, Ruling.ACCEPT),
        (Row.READY, BindingRow.FAILED, True, Ruling.FRESH_ATTEMPT),
        (Row.UPDATING, BindingRow.ABSENT, False, Ruling.IN_PROGRESS),
        (Row.UPDATING, BindingRow.ACTIVE, True, Ruling.CURRENT_STATE),
        (Row.UPDATING, BindingRow.ACTIVE, False, Ruling.ALREADY_EXISTS),
        (Row.UPDATING, BindingRow.FAILED, True, Ruling.IN_PROGRESS),
        (Row.DEPROVISIONING, BindingRow.ACTIVE, True, Ruling.WRONG_STATE),
        (Row.DELETED, BindingRow.ABSENT, False, Ruling.NOT_FOUND),
    ],
)
def test_bind_needs_both_tables(*, row: Row, bound: BindingRow, same: bool, ruling: Ruling) -> None:
    assert rule_bind(row, bound, same=same) is ruling


@pytest.mark.parametrize(
    ("row", "bound", "ruling"),
    [
        (Row.UPDATING, BindingRow.ACTIVE, Ruling.ACCEPT),
        (Row.READY_BINDING_WORK, BindingRow.BINDING, Ruling.TAKE_OVER),
        (Row.DELETE_FAILED, BindingRow.REVOCATION_BLOCKED, Ruling.ACCEPT),
        (Row.DEPROVISIONING, BindingRow.UNBINDING, Ruling.WRONG_STATE),
        (Row.DEPROVISIONING, BindingRow.ABSENT, Ruling.NOT_FOUND),
    ],
)
def test_unbind_needs_both_tables(row: Row, bound: BindingRow, ruling: Ruling) -> None:
    assert rule_unbind(row, bound) is ruling


def test_removal_of_access_is_refused_only_while_the_whole_goes() -> None:
    live = set(BindingRow) - {BindingRow.ABSENT}
    bindable = set(Row) - {Row.ABSENT, Row.PROVISIONING, Row.FAILED, Row.FAILED_CLEANUP, Row.FAILED_KEPT, Row.DELETED}
    refused = {row for row in bindable for bound in live if rule_unbind(row, bound) is Ruling.WRONG_STATE}
    assert refused == {Row.DEPROVISIONING}


def test_only_a_clean_failed_binding_is_not_in_the_way() -> None:
    of = instance()
    free = {state for state in BindingState if not blocks_deprovision(binding(of, state), ())}
    assert free == {BindingState.FAILED, BindingState.DELETED}
    dirty = binding(of, BindingState.FAILED, cleanup_required=("login",))
    assert blocks_deprovision(dirty, ())
