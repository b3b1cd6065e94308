"""What may be done with a plan in each state of its life: every cell of the table against the real lifecycle, and the table
against the page that prints it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from purveyor import decode
from purveyor_server.config.catalog import parse_catalog
from purveyor_server.config.problems import ConfigError
from purveyor_server.domain.catalog import Catalog
from purveyor_server.domain.errors import PurveyorError, Reason
from purveyor_server.domain.model import MaintenanceInfo
from purveyor_server.domain.planrules import RULES, Use, markdown
from purveyor_server.domain.policies import PlanState
from purveyor_server.domain.states import OperationState
from purveyor_server.lifecycle.contract import Renew, Rotate
from purveyor_server.rpc.convert.catalog import encode_catalog
from tests.fakes.broker import Broker, bind, deprovision, open_broker, provision, unbind, update
from tests.fakes.situations import INSTANCE, LOCAL, TENANT, catalog, plan

PAGE = Path(__file__).parents[2] / "docs" / "catalog.md"
VERSION = MaintenanceInfo("2.0.0")
CELLS = [(use, state) for use in Use for state in PlanState]


def in_state(state: PlanState, **changes: Any) -> Catalog:
    """`small` in a state of its life, beside `large`."""
    others = (plan("large"),)
    if state is PlanState.REMOVED:
        return catalog(*others)
    small = plan("small", state=state, maintenance_info=VERSION, binding_rotatable=True, **changes)
    return catalog(small, *others)


async def show(lab: Broker) -> None:
    shown = await lab.door.get_catalog(LOCAL, TENANT)
    shown.offer("db", "small")


async def leave(lab: Broker) -> None:
    await lab.door.update(LOCAL, update(plan_id="large"))


async def keep_reading(lab: Broker) -> None:
    await lab.door.get_instance(LOCAL, TENANT, INSTANCE)
    await lab.door.get_binding(LOCAL, TENANT, INSTANCE, "app")
    await lab.door.get_credentials(LOCAL, TENANT, INSTANCE, "app")


async def give_back(lab: Broker) -> None:
    await lab.door.deprovision(LOCAL, deprovision(cascade=True))


DEEDS: dict[Use, Callable[[Broker], Awaitable[Any]]] = {
    Use.SHOW: show,
    Use.ORDER: lambda lab: lab.door.provision(LOCAL, provision("another")),
    Use.ENTER: lambda lab: lab.door.update(LOCAL, update("elsewhere", plan_id="small")),
    Use.CHANGE: lambda lab: lab.door.update(LOCAL, update(parameters={"size": 7})),
    Use.UPGRADE: lambda lab: lab.door.update(LOCAL, update(maintenance_info=VERSION)),
    Use.RECORD: lambda lab: lab.door.update(LOCAL, update(labels={"a": "b"}, deletion_protected=False)),
    Use.LEAVE: leave,
    Use.BIND: lambda lab: lab.door.bind(LOCAL, bind("second")),
    Use.RENEW: lambda lab: lab.door.renew(
        LOCAL, Renew(tenant=TENANT, instance_id=INSTANCE, binding_id="app", ttl=timedelta(days=2))
    ),
    Use.ROTATE: lambda lab: lab.door.rotate(LOCAL, Rotate(tenant=TENANT, instance_id=INSTANCE, binding_id="app")),
    Use.GET: keep_reading,
    Use.UNBIND: lambda lab: lab.door.unbind(LOCAL, unbind()),
    Use.DEPROVISION: give_back,
}


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Broker]:
    """With an instance of `small` that has a binding, and one of `large`."""
    async with open_broker(tmp_path) as made:
        made.catalog.append(catalog(plan("small", binding_rotatable=True), plan("large")))
        await made.store.apply_catalog("c", "c", list(made.catalog[-1].snapshots.values()))
        await made.end((await made.door.provision(LOCAL, provision())).operation)
        await made.end((await made.door.bind(LOCAL, bind(ttl=timedelta(days=1)))).operation)
        await made.end((await made.door.provision(LOCAL, provision("elsewhere", plan_id="large"))).operation)
        yield made


async def reason_of(deed: Awaitable[Any]) -> Reason | None:
    try:
        await deed
    except PurveyorError as error:
        return error.reason
    return None


@pytest.mark.parametrize(("use", "state"), CELLS, ids=lambda part: str(part).replace(" ", "-"))
async def test_a_cell(lab: Broker, use: Use, state: PlanState) -> None:
    lab.catalog.append(in_state(state))
    assert await reason_of(DEEDS[use](lab)) is RULES[use][state]


def test_every_use_is_tried() -> None:
    assert DEEDS.keys() == RULES.keys() == set(Use)
    assert all(row.keys() == set(PlanState) for row in RULES.values())


def test_the_page_prints_the_table() -> None:
    assert markdown() in PAGE.read_text(encoding="utf-8")


async def test_a_removed_plan_is_lived_with_to_the_end(lab: Broker) -> None:
    lab.catalog.append(Catalog((), 2, "nothing"))  # not even the service is there
    await lab.end((await lab.door.unbind(LOCAL, unbind())).operation)
    gone = await lab.end((await lab.door.deprovision(LOCAL, deprovision())).operation)
    assert gone.state is OperationState.SUCCEEDED


async def test_an_instance_moves_off_a_removed_plan(lab: Broker) -> None:
    lab.catalog.append(in_state(PlanState.REMOVED))
    moved = await lab.door.update(LOCAL, update(plan_id="large"))
    await lab.end(moved.operation)
    assert (await lab.door.get_instance(LOCAL, TENANT, INSTANCE)).desired.plan_id == "large"
    assert await reason_of(lab.door.bind(LOCAL, bind("second"))) is None


async def test_what_the_target_declares_decides_alone(lab: Broker) -> None:
    fixed = plan("small", plan_updateable=False)
    for origins, expected in (((), Reason.PLAN_NOT_UPDATABLE), (("other",), Reason.PLAN_NOT_UPDATABLE)):
        lab.catalog.append(catalog(plan("small"), plan("large", transitions_from=origins)))
        assert await reason_of(leave(lab)) is expected
    lab.catalog.append(catalog(fixed, plan("large")))
    assert await reason_of(leave(lab)) is Reason.PLAN_NOT_UPDATABLE
    lab.catalog.append(catalog(fixed, plan("large", transitions_from=("small",))))
    assert await reason_of(leave(lab)) is None


async def test_an_instance_leaves_a_removed_plan_where_it_is_named(lab: Broker) -> None:
    lab.catalog.append(catalog(plan("large", transitions_from=())))
    assert await reason_of(leave(lab)) is Reason.PLAN_NOT_UPDATABLE
    lab.catalog.append(catalog(plan("large", transitions_from=("small",))))
    assert await reason_of(leave(lab)) is None


async def test_an_upgrade_is_an_operation_and_an_old_version_a_conflict(lab: Broker) -> None:
    lab.catalog.append(in_state(PlanState.ACTIVE))
    old = await reason_of(lab.door.update(LOCAL, update(maintenance_info=MaintenanceInfo("1.0.0"))))
    assert old is Reason.MAINTENANCE_INFO_CONFLICT
    kept = (await lab.door.get_instance(LOCAL, TENANT, INSTANCE)).applied
    assert kept is not None
    assert kept.maintenance_info is None

    upgraded = await lab.door.update(LOCAL, update(maintenance_info=VERSION))
    assert upgraded.operation is not None
    assert not upgraded.operation.done
    await lab.end(upgraded.operation)
    shown = (await lab.door.get_instance(LOCAL, TENANT, INSTANCE)).applied
    assert shown is not None
    assert (shown.maintenance_info, shown.parameters) == (VERSION, {"size": 1})
    again = await lab.door.update(LOCAL, update(maintenance_info=VERSION))
    assert again.operation is not None
    assert again.operation.done  # there is nothing to do


async def test_an_offer_keeps_the_snapshot_of_its_own_catalog(lab: Broker) -> None:
    before = lab.catalog[-1].seen_by(TENANT).offer("db", "small")
    lab.catalog.append(catalog(plan("small", settings={"disk": 2}), plan("large")))
    assert before.snapshot.settings == {}
    assert lab.catalog[-1].offer("db", "small").snapshot.settings == {"disk": 2}


def test_retired_plans_are_in_no_catalog_that_is_shown() -> None:
    whole = catalog(plan("small", state=PlanState.RETIRED), plan("large", transitions_from=("small",)))
    shown = whole.seen_by("anybody")
    assert [offer.plan.id for offer in shown.offers] == ["large"]
    assert shown.offers[0].plan.transitions_from == ("small",)  # who is on it may know where to go
    assert shown is whole.seen_by("somebody else")
    assert shown.etag != whole.etag
    assert shown.snapshots["db", "large"] == whole.snapshots["db", "large"]


FILE = """\
providers: {main: {kind: postgresql}}
services:
  - {id: s1, name: one, description: d, bindable: true, plans: [
      {id: p1, name: first, description: d, provider: main, transitions: {from: [%s]}},
      {id: p2, name: second, description: d, provider: main, state: deprecated}]}
  - {id: s2, name: two, description: d, bindable: true, plans: [
      {id: p3, name: third, description: d, provider: main}]}
"""


@pytest.mark.parametrize(
    ("origin", "words"),
    [("p1", "is the plan itself"), ("second", "give its id, 'p2'"), ("p3", "is a plan of the service 's2'")],
)
def test_a_way_that_nobody_can_go_is_named(origin: str, words: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_catalog((FILE % f"gone, {origin}").encode(), "c.yaml")
    (problem,) = refused.value.problems
    assert problem.path.endswith("plans[0].transitions.from[1]")
    assert words in problem.message


def test_ways_arrive_with_the_catalog_that_callers_get() -> None:
    services = parse_catalog((FILE % "p2, gone").encode(), "c.yaml").services
    shown = decode.catalog(encode_catalog(Catalog(services, 3, "e"))).services[0].plans
    assert [(p.state, p.transitions_from) for p in shown] == [("ACTIVE", ("p2", "gone")), ("DEPRECATED", None)]
