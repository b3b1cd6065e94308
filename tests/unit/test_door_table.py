"""The door, cell by cell against the table that was written by hand."""

from __future__ import annotations

import pytest

from purveyor_server.domain.errors import PurveyorError, Reason
from purveyor_server.domain.principal import EVERY_ROLE, Principal
from purveyor_server.lifecycle.contract import Caller
from purveyor_server.lifecycle.door import ADMIN_ACTIONS, OPERATION_ACTIONS, OPERATOR_ACTIONS, Action, Door
from tests.rpc.access_table import CREATOR, EVERYWHERE, NEVER, TENANT, Cell, cells

OWN, FOREIGN = "acme", "others"
TABLE = cells()


def entered(caller: Caller, action: Action, tenant: str) -> bool:
    door = Door()
    try:
        if action in OPERATOR_ACTIONS | ADMIN_ACTIONS:
            door.enter_operator(caller, action)
        elif action in OPERATION_ACTIONS:
            scope = door.enter(Caller(caller.principal, only=tenant), action)
            assert scope.tenants == frozenset({tenant})
        else:
            assert door.enter(caller, action, tenant).tenants == frozenset({tenant})
    except PurveyorError as refusal:
        if refusal.reason is not Reason.PERMISSION_DENIED:
            raise
        return False
    return True


def callers(role: str) -> dict[str, Caller]:
    """Who holds a role: where it may hold it."""
    held = frozenset({role})
    return {
        "one tenant": Caller(Principal(subject="p", roles=held, tenants=frozenset({OWN}))),
        "a grant": Caller(Principal(subject="p", tenants=None, grants={OWN: held})),
        "every tenant": Caller(Principal(subject="p", roles=held, tenants=None)),
    }


def test_the_table_is_whole() -> None:
    assert {cell.call for cell in TABLE} == {str(action) for action in Action}
    assert {cell.role for cell in TABLE} == EVERY_ROLE
    assert len({(cell.call, cell.role) for cell in TABLE}) == len(TABLE) == len(Action) * len(EVERY_ROLE)


@pytest.mark.parametrize("cell", TABLE, ids=lambda cell: f"{cell.call}-{cell.role}")
def test_a_cell(cell: Cell) -> None:
    action = Action(cell.call)
    for held, caller in callers(cell.role).items():
        here = cell.where in {TENANT, CREATOR} or (cell.where == EVERYWHERE and held == "every tenant")
        there = cell.where != NEVER and held == "every tenant"
        assert entered(caller, action, OWN) is here, held
        assert entered(caller, action, FOREIGN) is there, held


def test_nobody_enters_without_a_role() -> None:
    for tenants in (None, frozenset({OWN})):
        nobody = Caller(Principal(subject="p", tenants=tenants))
        assert not [action for action in Action if entered(nobody, action, OWN)]


def test_a_wrong_cell_is_found() -> None:
    """Negative control: each cell that is turned round is a difference."""
    found = 0
    for cell in TABLE:
        turned = cell._replace(where=EVERYWHERE if cell.where == NEVER else NEVER)
        with pytest.raises(AssertionError):
            test_a_cell(turned)
        found += 1
    assert found == len(TABLE)
