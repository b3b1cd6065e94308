"""What tenants have is counted by the writes themselves; what operators set for them is kept with its record."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from purveyor_server.domain.audit import AuditRecord
from purveyor_server.domain.errors import PurveyorError
from purveyor_server.domain.model import Binding, Instance, Settings, UniqueMark
from purveyor_server.domain.quotas import WHOLE, Limits, PlanKey, Quota, Used
from purveyor_server.domain.states import BindingState, InstanceState
from purveyor_server.kit.ids import new_id
from purveyor_server.store.contract import SYSTEM, Accept, Decision, Page, Situation, Store, Writes
from purveyor_server.store.operating import AuditLook
from tests.store_contract import records
from tests.store_contract.records import START, write

OURS = PlanKey("service-1", "plan-1")
OTHER = PlanKey("service-1", "plan-2")
RECORD = AuditRecord(at=START, principal="local", action="SetQuota", resource="quota/acme", reason="asked for")


class Refused(Exception):  # noqa: N818 - what a decision raises
    """Any rule."""


def wish(plan_id: str) -> Settings:
    return replace(records.SETTINGS, plan_id=plan_id)


async def used(store: Store, tenant: str = "acme") -> dict[PlanKey, Used]:
    (found,) = await store.quotas(Page(1), tenant)
    return {plan: counts for plan, counts in found.used.items() if counts != Used()}


async def seen(store: Store, instance_id: str = "db", binding_id: str = "", **values: Any) -> Situation:
    """What an accept sees of the use."""
    found: list[Situation] = []

    def decide(situation: Situation) -> Decision:
        found.append(situation)
        return Decision()

    await store.accept(Accept(SYSTEM, "acme", instance_id, decide, binding_id, counts=True, **values))
    return found[-1]


async def test_everything_that_is_not_deleted_counts(store: Store) -> None:
    made = records.instance(state=InstanceState.FAILED)
    bound = records.binding(made, state=BindingState.REVOCATION_BLOCKED)
    await write(store, Writes(instances=(made,), bindings=(bound,)))
    await write(store, Writes(instances=(records.instance("other"),)), "other")
    assert await used(store) == {OURS: Used(1, 1)}
    assert await used(store, "other") == {OURS: Used(1, 0)}

    await write(store, Writes(bindings=(replace(bound, state=BindingState.DELETED, version=2),)))
    assert await used(store) == {OURS: Used(1, 0)}
    await write(store, Writes(instances=(replace(made, state=InstanceState.DELETED, version=2),)))
    assert await used(store) == {}
    assert await used(store, "other") == {OURS: Used(1, 0)}


async def test_an_instance_on_its_way_to_another_plan_counts_there(store: Store) -> None:
    made = records.instance(state=InstanceState.READY, applied=wish("plan-1"))
    moving = replace(made, state=InstanceState.UPDATING, desired=wish("plan-2"), in_flight=wish("plan-2"), version=2)
    await write(store, Writes(instances=(made,)))
    await write(store, Writes(instances=(moving,)))
    assert await used(store) == {OTHER: Used(1, 0)}

    await write(store, Writes(instances=(replace(moving, in_flight=None, version=3),)))
    assert await used(store) == {OURS: Used(1, 0)}


async def test_a_command_sees_what_those_before_it_in_its_transaction_made(store: Store) -> None:
    def add(number: int) -> Accept:
        def decide(situation: Situation) -> Decision:
            if situation.usage.of(WHOLE).instances >= 3:
                raise Refused
            return Decision(Writes(instances=(records.instance(instance_id=f"db-{number}"),)))

        return Accept(SYSTEM, "acme", f"db-{number}", decide, counts=True)

    answers = await asyncio.gather(*(store.accept(add(number)) for number in range(20)), return_exceptions=True)

    assert sum(isinstance(answer, Decision) for answer in answers) == 3
    assert await used(store) == {OURS: Used(3, 0)}


async def test_what_a_failed_command_counted_is_undone(store: Store) -> None:
    taken = records.instance()
    await write(store, Writes(instances=(taken,)))
    holder, thief = (UniqueMark(owner=owner, field="user", digest="taken") for owner in ("holder", "thief"))
    await write(store, Writes(unique=(holder,)))
    with pytest.raises(PurveyorError):
        await write(store, Writes(instances=(records.instance(instance_id="new"),), unique=(thief,)))
    assert await used(store) == {OURS: Used(1, 0)}


async def test_bindings_of_one_instance_are_counted_for_who_asks(store: Store) -> None:
    made, other = records.instance(), records.instance(instance_id="other")
    bound = [records.binding(made, f"b{number}") for number in range(3)]
    await write(store, Writes(instances=(made, other), bindings=(*bound, records.binding(other))))
    assert (await seen(store, binding_id="new")).usage.instance_bindings == 3
    assert (await seen(store)).usage.instance_bindings == 0


async def test_a_quota_is_kept_with_its_record_and_goes_before_another(store: Store) -> None:
    first = Quota(tenant="acme", limits=Limits(5), reason="asked for", principal="local", at=START)
    plan = replace(first, plan=OURS, limits=Limits(bindings=0))
    for quota in (first, plan, replace(first, limits=Limits(7))):
        await store.set_quota(quota, RECORD)

    assert (await seen(store)).usage.set == {WHOLE: Limits(7), OURS: Limits(bindings=0)}
    (found,) = await store.quotas(Page(10))
    assert (found.tenant, {quota.plan for quota in found.quotas}) == ("acme", {WHOLE, OURS})
    assert len((await store.audit((), AuditLook(10))).records) == 3

    taken = await store.delete_quota("acme", OURS, replace(RECORD, action="DeleteQuota"))
    assert taken == plan
    assert await store.delete_quota("acme", OURS, RECORD) is None
    assert (await seen(store)).usage.set == {WHOLE: Limits(7)}


async def test_tenants_come_page_by_page(store: Store) -> None:
    names = [f"t{number}" for number in range(5)]
    for name in names[:4]:
        await write(store, Writes(instances=(records.instance(name),)), name)
    await store.set_quota(Quota(tenant="t4", limits=Limits(1), reason="r", principal="p", at=START), RECORD)
    first = await store.quotas(Page(3))
    rest = await store.quotas(Page(3, first[-1].tenant))
    assert [found.tenant for found in (*first, *rest)] == names
    assert [await store.next_tenant(name) for name in ("", "t2", "t3")] == ["t0", "t3", None]


PLANS = st.sampled_from(("plan-1", "plan-2"))
STEPS = st.lists(
    st.tuples(st.sampled_from(("make", "bind", "move", "delete", "unbind")), st.integers(0, 9), PLANS, st.booleans()),
    max_size=30,
)


class World:
    """What should be there."""

    def __init__(self) -> None:
        self.tenants = [f"t{new_id()}" for _ in range(2)]
        self.instances: list[Instance] = []
        self.bindings: list[Binding] = []

    def next(self, verb: str, which: int, plan_id: str) -> Any:
        """The record that a step writes."""
        if verb == "make":
            tenant = self.tenants[which % len(self.tenants)]
            return records.instance(tenant, f"db-{new_id()}", desired=wish(plan_id))
        if verb == "unbind":
            return self._changed(self.bindings, which, state=BindingState.DELETED)
        if verb == "bind":
            of = self.instances[which % len(self.instances)] if self.instances else None
            return None if of is None else records.binding(of, f"b-{new_id()}", plan_id=plan_id)
        changes = {"in_flight": wish(plan_id)} if verb == "move" else {"state": InstanceState.DELETED}
        return self._changed(self.instances, which, **changes)

    def _changed(self, among: list[Any], which: int, **changes: Any) -> Any:
        living = [record for record in among if record.state != "DELETED"]
        if not living:
            return None
        old = living[which % len(living)]
        return replace(old, version=old.version + 1, **changes)

    def keep(self, record: Instance | Binding) -> None:
        """The step stands."""
        among: list[Any] = self.instances if isinstance(record, Instance) else self.bindings
        among[:] = [kept for kept in among if kept.uid != record.uid] + [record]

    def counts(self, tenant: str) -> dict[PlanKey, Used]:
        """What COUNT(*) would say."""
        found: dict[PlanKey, list[int]] = {}
        for one in (one for one in self.instances if one.tenant == tenant and one.state != "DELETED"):
            plan = one.in_flight or one.desired
            found.setdefault(PlanKey(plan.service_id, plan.plan_id), [0, 0])[0] += 1
        for bound in (one for one in self.bindings if one.tenant == tenant and one.state != "DELETED"):
            found.setdefault(PlanKey(bound.service_id, bound.plan_id), [0, 0])[1] += 1
        return {plan: Used(*counts) for plan, counts in found.items()}


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(STEPS)
async def test_the_counters_are_what_is_there(store: Store, steps: list[tuple[str, int, str, bool]]) -> None:
    world = World()
    await write(store, Writes(unique=(UniqueMark(owner="holder", field="user", digest="taken"),)))
    for verb, which, plan_id, fails in steps:
        record = world.next(verb, which, plan_id)
        if record is None:
            continue
        writes = Writes(instances=(record,)) if isinstance(record, Instance) else Writes(bindings=(record,))
        if fails:  # at the end of the command, when the record was written
            with pytest.raises(PurveyorError):
                await write(
                    store,
                    replace(writes, unique=(UniqueMark(owner=record.uid, field="user", digest="taken"),)),
                    record.tenant,
                )
            continue
        await write(store, writes, record.tenant)
        world.keep(record)
    for tenant in world.tenants:
        assert await used(store, tenant) == world.counts(tenant)
        assert await store.miscounted(tenant) == await store.recount(tenant) == 0
