"""Every cell of the printed conflict matrix, on a real broker whose operations are held in flight in the server.

The page `docs/conflict-matrix.md` is what is tested: each cell is asked several times at once, all cells of a row together.
Limit: a plain Deprovision cannot meet binding work without a live binding; of "Bind, Rotate" Bind is asked, Rotate by the second table.
"""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2

from purveyor.v1 import broker_service_pb2 as pb
from purveyor.v1.binding_pb2 import Binding
from purveyor.v1.instance_pb2 import Instance
from purveyor.v1.operation_pb2 import Operation, Waiting
from purveyor_server.domain.names import outside_name
from tests.acceptance.house import House
from tests.acceptance.situations import BINDING_BUILDERS, BUILDERS, END, HOME, OTHER_END, OTHER_TARGET, TARGET, Scene
from tests.postgres_server import TestServer
from tests.rpc.failures import Failure

pytestmark = pytest.mark.postgres
TIMES = 4  # callers at once of each cell
PAGE = Path(__file__).parents[2] / "docs" / "conflict-matrix.md"
ABORTED, REFUSED = grpc.StatusCode.ABORTED, grpc.StatusCode.FAILED_PRECONDITION
# A column of the page, as a call: method and fields.
ASKS: dict[str, tuple[str, dict[str, Any]]] = {
    "Provision, same request": ("Provision", {}),
    "Provision, another request": ("Provision", {"labels": {"another": "one"}}),
    "Update, target in flight": ("UpdateInstance", {"parameters": TARGET}),
    "Update, another target": ("UpdateInstance", {"parameters": OTHER_TARGET}),
    "Bind, Rotate": ("Bind", {"binding_id": "new"}),
    "Renew": ("RenewBinding", {"binding_id": "app", "expire_time": END, "allow_shorter": True}),
    "Unbind": ("Unbind", {"binding_id": "app"}),
    "Deprovision, no live binding": ("Deprovision", {}),
    "Deprovision, live bindings": ("Deprovision", {}),
    "Deprovision, live bindings, cascade": ("Deprovision", {"cascade": True}),
}
BINDING_ASKS: dict[str, tuple[str, dict[str, Any]]] = {
    "Bind, same request": ("Bind", {}),
    "Bind, another request": ("Bind", {"labels": {"another": "one"}}),
    "Unbind": ("Unbind", {}),
    "Renew, end in flight": ("RenewBinding", {"expire_time": END, "allow_shorter": True}),
    "Renew, another end": ("RenewBinding", {"expire_time": OTHER_END, "allow_shorter": True}),
    "Rotate": ("RotateBinding", {}),
}
KEPT = "FAILED (create), remains kept for an operator"
NEED_BINDING = {"Renew", "Unbind", "Deprovision, live bindings", "Deprovision, live bindings, cascade"}
NEVER_BOUND = {
    *("never was", "PROVISIONING", "FAILED (create)", "FAILED (create), clean-up runs or is due", KEPT, "DELETED"),
}


def table(number: int) -> dict[str, dict[str, str]]:
    """One of the page's tables: rulings by row and column."""
    blocks = re.findall(r"(?:^\|.*\n)+", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    head, _, *lines = [line.strip("| ").split(" | ") for line in blocks[number].splitlines()]
    return {line[0]: dict(zip(head[1:], line[1:], strict=True)) for line in lines}


def cells(row: str) -> dict[str, str]:
    """What the page says of a row, by column."""
    rulings = table(0)[row]
    return {ask: rulings[ask] for ask in ASKS if _possible(row, ask)}


def _possible(row: str, ask: str) -> bool:
    if row == "READY, binding work in flight" and ask == "Deprovision, no live binding":
        return False  # what is being bound is live
    # A live binding of an instance that never was READY is never there.
    return ask != "Deprovision, live bindings" or row not in NEVER_BOUND - {"PROVISIONING", "never was", "DELETED"}


def name_of(row: str, ask: str) -> str:
    """An instance id for a cell."""
    return re.sub(r"[^a-z]+", "-", f"{row}.{ask}".lower()).strip("-")


def test_the_page_has_the_rows_that_are_built() -> None:
    assert set(table(0)) == set(BUILDERS)
    assert all(set(rulings) == set(ASKS) for rulings in table(0).values())
    assert set(table(1)) == set(BINDING_BUILDERS)
    assert all(set(rulings) == set(BINDING_ASKS) for rulings in table(1).values())


@pytest.mark.parametrize("row", BUILDERS)
async def test_a_row(house: House, postgres: TestServer, row: str) -> None:
    wanted = cells(row)
    names = {ask: name_of(row, ask) for ask in wanted}
    bound = frozenset() if row in NEVER_BOUND else frozenset(names[ask] for ask in wanted if ask in NEED_BINDING)
    scene = Scene(house, postgres, bound)
    try:
        await BUILDERS[row](scene, list(names.values()))
        calls = []
        for ask, name in names.items():
            method, fields = ASKS[ask]
            more = dict(scene.create) if method == "Provision" else {}
            calls.append(house.answers(TIMES, method, instance_id=name, **more, **fields))
        found = dict(zip(names, await asyncio.gather(*calls), strict=True))
        for ask, answers in found.items():
            await check_cell(scene, names[ask], wanted[ask], answers, f"{row} x {ask}")
    finally:
        await scene.close()
    await house.settle()
    await check_backend(house, postgres)
    await house.give_back()


@pytest.mark.parametrize("row", BINDING_BUILDERS)
async def test_a_row_of_bindings(house: House, postgres: TestServer, row: str) -> None:
    wanted = table(1)[row]
    names = {ask: name_of(row, ask) for ask in wanted}
    scene = Scene(house, postgres)
    try:
        await BINDING_BUILDERS[row](scene, list(names.values()))
        calls = []
        for ask, name in names.items():
            method, fields = BINDING_ASKS[ask]
            more = scene.binding if method == "Bind" else {}
            calls.append(house.answers(TIMES, method, instance_id=HOME, binding_id=name, **more, **fields))
        found = dict(zip(names, await asyncio.gather(*calls), strict=True))
        for ask, answers in found.items():
            await check_cell(scene, names[ask], wanted[ask], answers, f"{row} x {ask}")
    finally:
        await scene.close()
    await house.settle()
    await check_backend(house, postgres)
    await house.give_back()


def _answer(operation_id: str, *, replayed: bool = False) -> pb.ProvisionResponse:
    return pb.ProvisionResponse(operation=Operation(operation_id=operation_id), replayed=replayed)


def _aborted(operation_id: str) -> Failure:
    retry = error_details_pb2.RetryInfo()
    retry.retry_delay.FromSeconds(1)
    return Failure(ABORTED, "", "OPERATION_IN_PROGRESS", {"operation": operation_id}, {"RetryInfo": retry}, {})


BUSY = "ABORTED: OPERATION_IN_PROGRESS"


@pytest.mark.parametrize(
    ("ruling", "answers"),
    [
        ("ALREADY_EXISTS", [_answer("new")]),
        ("accepted", [_aborted("flying")]),
        ("accepted", [_answer("new"), _answer("second")]),
        ("current state", [_answer("new"), _answer("new")]),
        ("same operation", [_answer("other", replayed=True)]),
        (BUSY, [_aborted("other")]),
        (BUSY, [_aborted("flying"), _answer("new")]),
        ("FAILED_PRECONDITION: WRONG_STATE", [_aborted("flying")]),
    ],
)
async def test_a_planted_wrong_answer_is_found(ruling: str, answers: list[Any]) -> None:
    scene: Any = SimpleNamespace(flight={"orders": "flying"})

    with pytest.raises(AssertionError):
        await check_cell(scene, "orders", ruling, answers, "planted")


async def test_right_answers_are_let_pass() -> None:
    scene: Any = SimpleNamespace(flight={"orders": "flying"})

    await check_cell(scene, "orders", "accepted", [_answer("new"), _answer("new", replayed=True)], "right")
    await check_cell(scene, "orders", "same operation", [_answer("flying", replayed=True)], "right")
    await check_cell(scene, "orders", BUSY, [_aborted("flying")] * 2, "right")


async def check_cell(scene: Scene, name: str, ruling: str, answers: list[Any], where: str) -> None:
    """The answers of one cell are what the page says."""
    for answer in answers:
        if isinstance(answer, Failure):
            check_refusal(answer, ruling, name, scene.flight.get(name, ""), where)
        else:
            assert ruling.startswith(("accepted", "same", "current")), f"{where}: {ruling}: {answer}"
    if isinstance(answers[0], Failure):
        assert all(isinstance(answer, Failure) for answer in answers), where
        return
    new = [answer for answer in answers if not answer.replayed]
    assert len(new) == (1 if ruling.startswith("accepted") else 0), f"{where}: {len(new)} accepted"
    operations = {answer.operation.operation_id for answer in answers}
    assert len(operations) == 1, where
    if ruling == "same operation":
        assert operations == {scene.flight[name]}, where
    if "takes over" in ruling or "waits" in ruling:
        await check_waiting(scene, name, new[0].operation.operation_id, ruling, where)


async def check_waiting(scene: Scene, name: str, operation_id: str, ruling: str, where: str) -> None:
    """What takes over or waits shows for whom; the one in flight was asked to stop."""
    taker = (await scene.house.ask("GetOperation", operation_id=operation_id)).operation
    before = (await scene.house.ask("GetOperation", operation_id=scene.flight[name])).operation
    if not before.done:
        assert taker.waiting.reason == Waiting.REASON_BLOCKED, where
        assert scene.flight[name] in taker.waiting.blocked_by, where
        assert not taker.HasField("deadline"), where
        assert before.cancel_requested or before.verb == Operation.VERB_CLEANUP, where
    if "takes over" in ruling:
        assert before.taken_over_by == operation_id, where


def check_refusal(failure: Failure, ruling: str, name: str, flight: str, where: str) -> None:
    """Code, reason and details of a refusal."""
    where = f"{where}: {ruling}: {failure}"
    code, _, reason = ruling.partition(": ")
    if code == "NOT_FOUND":
        assert failure.code is grpc.StatusCode.NOT_FOUND, where
        assert failure.reason in {"INSTANCE_NOT_FOUND", "BINDING_NOT_FOUND"}, where
        assert failure.details["ResourceInfo"].resource_name in {name, "app"}, where
        assert failure.metadata["instance_id"] in {name, HOME}, where
        return
    if code == "ALREADY_EXISTS":
        assert failure.code is grpc.StatusCode.ALREADY_EXISTS, where
        assert failure.reason == f"{failure.details['ResourceInfo'].resource_type.upper()}_ALREADY_EXISTS", where
        assert failure.details["ResourceInfo"].resource_name == name, where
        return
    assert (failure.code.name, failure.reason) == (code, reason), where
    if failure.code is ABORTED:
        assert failure.metadata["operation"] == flight, where
        assert failure.details["RetryInfo"].retry_delay.ToTimedelta().total_seconds() > 0, where
    else:
        assert failure.details["PreconditionFailure"].violations, where
    if reason == "BINDINGS_EXIST":
        assert "app" in failure.metadata["bindings"].split(","), where


async def check_backend(house: House, postgres: TestServer) -> None:
    """All ended; what the records say is there is in the server, and nothing else."""
    assert all(operation.done for operation in await house.operations())
    wanted, blocked = set(), set()
    for instance in await house.instances():
        assert instance.state in {Instance.STATE_READY, Instance.STATE_FAILED, Instance.STATE_DELETE_FAILED}, instance
        if instance.state == Instance.STATE_DELETE_FAILED:
            return  # half of it may be there: giving back shows the rest
        names = {outside_name(kind, instance.uid) for kind in ("db", "grp")}
        if instance.state == Instance.STATE_READY or instance.cleanup_required:
            wanted |= names
        assert not instance.cleanup_required or instance.plan_id == "kept", instance
    for binding in (await house.ask("ListBindings", page_size=1000)).bindings:
        if binding.state in {Binding.STATE_ACTIVE, Binding.STATE_EXPIRED}:
            wanted.add(outside_name("usr", binding.uid))
        if binding.state == Binding.STATE_REVOCATION_BLOCKED or binding.cleanup_required:
            blocked.add(outside_name("usr", binding.uid))  # nobody knows: giving back shows it
    async with postgres.superuser() as connection:
        rows = await connection.fetch(
            "SELECT datname AS name FROM pg_database WHERE datname LIKE 'pv_%'"
            " UNION ALL SELECT rolname FROM pg_roles WHERE rolname LIKE 'pv_%'"
        )
    assert {row["name"] for row in rows} - blocked == wanted
    ended = {operation.state for operation in await house.operations()}
    assert ended <= {Operation.STATE_SUCCEEDED, Operation.STATE_FAILED, Operation.STATE_CANCELLED}
