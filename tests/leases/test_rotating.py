"""RotateBinding: one successor, both valid for the overlap, a failed one leaves the predecessor as it was."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from purveyor_server.domain.catalog import PlanSchemas
from purveyor_server.domain.errors import Reason
from purveyor_server.domain.policies import LeasePolicy
from purveyor_server.domain.states import BindingState, OperationState, Verb, Waiting
from purveyor_server.kit.hiding import MASK
from purveyor_server.lifecycle.contract import Rotate
from purveyor_server.providers.contract import Ability
from purveyor_server.store.contract import SYSTEM, Page
from tests.fakes.broker import SEALER, bind, unbind
from tests.fakes.situations import INSTANCE, LOCAL, TENANT, catalog, plan, somebody
from tests.leases.house import HOUR, MINUTE, POLICY, House

SECRET_SCHEMA = {
    "type": "object",
    "properties": {"token": {"type": "string", "writeOnly": True}, "colour": {"type": "string"}},
}


async def test_a_successor_is_what_the_predecessor_was(house: House) -> None:
    old = await house.active(labels={"team": "a"}, context={"space": "s"}, parameters={"colour": "red"})
    house.later(10 * MINUTE)
    asked = await house.rotate(successor_id="next")
    made, begun = asked.binding, asked.operation
    assert made is not None
    assert begun is not None
    assert (begun.verb, made.state, made.binding_id) == (Verb.BIND, BindingState.BINDING, "next")
    assert (made.labels, made.context, made.parameters) == (old.labels, old.context, old.parameters)
    assert (made.predecessor_binding_id, made.creator) == ("app", old.creator)
    assert made.expires_at == house.now + HOUR
    marked = await house.binding()
    assert (marked.successor_binding_id, marked.state, marked.expires_at) == ("next", old.state, old.expires_at)


async def test_the_predecessor_is_retired_when_the_successor_is_active(house: House) -> None:
    await house.active(ttl=3 * HOUR)
    asked = await house.rotate(successor_id="next", overlap=HOUR)
    house.later(MINUTE)
    await house.end(asked)
    old, new = await house.binding(), await house.binding("next")
    assert new.state is BindingState.ACTIVE
    assert (old.state, old.expires_at) == (BindingState.ACTIVE, house.now + HOUR)
    assert old.renew_before is old.rotate_at is None
    (telling,) = await house.unfinished()  # the backend is told
    assert (telling.verb, telling.binding_id, telling.principal) == (Verb.RENEW, "app", "purveyor")
    assert telling.expiry is not None
    assert telling.expiry.to == telling.expiry.back == old.expires_at
    await house.lab.end(telling)
    assert (await house.binding()).expires_at == old.expires_at


async def test_a_predecessor_that_ends_earlier_keeps_its_end(house: House) -> None:
    old = await house.active(ttl=10 * MINUTE)
    await house.end(await house.rotate())
    assert (await house.binding()).expires_at == old.expires_at
    assert await house.unfinished() == ()


async def test_where_the_backend_keeps_no_time_the_sweep_alone_does(house: House) -> None:
    house.lab.plans.said = frozenset({Ability.BIND})
    await house.active()
    await house.end(await house.rotate(overlap=MINUTE))
    assert (await house.binding()).expires_at == house.now + MINUTE
    assert await house.unfinished() == ()


async def test_a_failed_successor_leaves_the_predecessor_as_it_was(house: House) -> None:
    old = await house.active()
    first = await house.rotate(successor_id="bad")
    await house.end(first, OperationState.FAILED)
    after = await house.binding()
    assert replace(after, version=old.version, updated_at=old.updated_at) == old
    second = await house.rotate(successor_id="good")
    assert second.binding is not None
    assert second.binding.predecessor_binding_id == "app"


async def test_a_new_attempt_takes_the_place_of_those_that_failed(house: House) -> None:
    await house.active()
    for _ in range(2):
        await house.end(await house.rotate(successor_id="next"), OperationState.FAILED)
    await house.end(await house.rotate(successor_id="other"), OperationState.FAILED)
    asked = await house.rotate(successor_id="next")
    await house.end(asked)
    listed = await house.lab.store.bindings(SYSTEM, TENANT, INSTANCE, (), Page(100))
    assert [binding.binding_id for binding in listed] == ["app", "next"]


async def test_a_successor_that_is_unbound_before_it_was_active_frees_the_predecessor(house: House) -> None:
    await house.active()
    first = await house.rotate(successor_id="next")
    await house.lab.door.unbind(LOCAL, unbind("next"))
    await house.end(first, OperationState.CANCELLED)
    assert (await house.binding()).successor_binding_id == ""


async def test_there_is_one_successor(house: House) -> None:
    await house.active()
    first = await house.rotate()
    assert first.operation is not None
    again = await house.rotate()
    assert (again.replayed, again.binding, again.operation) == (True, first.binding, first.operation)
    other = await house.refused(house.rotate(successor_id="another"))
    assert (other.reason, bool(other.metadata["successor"])) == (Reason.NOT_ROTATABLE, True)
    await house.end(first)
    done = await house.rotate()
    assert (done.replayed, done.operation is not None) == (True, True)
    assert done.credentials == {"username": "u", "password": "p"}


async def test_a_request_id_gets_its_answer_again(house: House) -> None:
    await house.active()
    sent = Rotate(tenant=TENANT, instance_id=INSTANCE, binding_id="app", request_id="r")
    first, again = await house.lab.door.rotate(LOCAL, sent), await house.lab.door.rotate(LOCAL, sent)
    assert first.operation is not None
    assert again.operation is not None
    assert first.operation.operation_id == again.operation.operation_id
    assert first.binding is not None
    assert again.binding is not None
    assert again.binding.uid == first.binding.uid


async def test_a_predecessor_is_not_renewed_any_more(house: House) -> None:
    await house.active()
    await house.rotate(successor_id="next")
    refused = await house.refused(house.renew(ttl=2 * HOUR))
    assert (refused.reason, refused.metadata["successor"]) == (Reason.WRONG_STATE, "next")


async def test_chains_are_bounded(house: House) -> None:
    await house.active()
    await house.end(await house.rotate(successor_id="second"))
    refused = await house.refused(house.rotate("second", successor_id="third"))
    assert (refused.reason, refused.metadata["predecessor"]) == (Reason.NOT_ROTATABLE, "app")
    for operation in await house.unfinished():
        await house.lab.end(operation)
    await house.lab.end((await house.lab.door.unbind(LOCAL, unbind())).operation)
    asked = await house.rotate("second", successor_id="third")
    assert asked.binding is not None
    assert asked.binding.predecessor_binding_id == "second"


async def test_what_is_not_alive_is_not_rotated(house: House) -> None:
    assert (await house.refused(house.rotate("none"))).reason is Reason.BINDING_NOT_FOUND
    making = await house.lab.door.bind(LOCAL, bind("making"))
    assert (await house.refused(house.rotate("making"))).reason is Reason.OPERATION_IN_PROGRESS
    await house.lab.end(making.operation)
    await house.lab.door.unbind(LOCAL, unbind("making"))
    assert (await house.refused(house.rotate("making"))).reason is Reason.WRONG_STATE
    await house.active()
    house.later(HOUR)
    assert (await house.refused(house.rotate())).reason is Reason.WRONG_STATE
    foreign = Rotate(tenant="others", instance_id=INSTANCE, binding_id="app")
    refused = await house.refused(house.lab.door.rotate(LOCAL, foreign))
    assert refused.reason is Reason.INSTANCE_NOT_FOUND


@pytest.mark.parametrize(
    ("sent", "reason", "field"),
    [
        ({"ttl": 5 * HOUR}, Reason.INVALID_REQUEST, "ttl"),
        ({"ttl": timedelta(0)}, Reason.INVALID_REQUEST, "ttl"),
        ({"overlap": timedelta(days=8)}, Reason.INVALID_REQUEST, "overlap"),
        ({"successor_id": "in use"}, Reason.INVALID_REQUEST, "successor_binding_id"),
        ({"successor_id": "app"}, Reason.BINDING_ALREADY_EXISTS, ""),
        ({"etag": "0"}, Reason.ETAG_MISMATCH, ""),
    ],
)
async def test_bad_requests(house: House, sent: dict[str, Any], reason: Reason, field: str) -> None:
    await house.active()
    refused = await house.refused(house.rotate(**sent))
    assert refused.reason is reason
    assert [violation.field for violation in refused.violations] == ([field] if field else [])
    assert (await house.binding()).successor_binding_id == ""


async def test_the_plan_must_offer_it(house: House) -> None:
    await house.active()
    await house.offer(POLICY, binding_rotatable=False)
    refused = await house.refused(house.rotate())
    assert (refused.reason, refused.metadata["plan_id"]) == (Reason.NOT_ROTATABLE, "small")


async def test_parameters_that_the_plan_no_longer_takes_are_refused(house: House) -> None:
    await house.active(parameters={"colour": "red"})
    narrow = PlanSchemas(binding_create={"type": "object", "additionalProperties": False})
    await house.offer(POLICY, schemas=narrow)
    assert (await house.refused(house.rotate())).reason is Reason.INVALID_PARAMETERS


async def test_secret_parameters_are_sealed_anew_for_the_successor(house: House) -> None:
    await house.offer(POLICY, schemas=PlanSchemas(binding_create=SECRET_SCHEMA))
    old = await house.active(parameters={"token": "s3cret", "colour": "red"})
    assert old.parameters["token"] == MASK
    asked = await house.rotate()
    new = asked.binding
    assert new is not None
    assert new.parameters == old.parameters
    assert new.sealed != old.sealed
    (column,) = new.sealed.values()
    kept = await house.lab.store.secret(new.uid, column)
    assert kept is not None
    assert SEALER.open(new.uid, column, kept.sealed) == b'"s3cret"'


async def test_rotating_gives_nobody_credentials_who_could_not_read_them(house: House) -> None:
    await house.active()
    other = somebody(subject="other", roles=frozenset({"CONSUMER"}))
    asked = await house.lab.door.rotate(other, Rotate(tenant=TENANT, instance_id=INSTANCE, binding_id="app"))
    await house.end(asked)
    again = await house.lab.door.rotate(other, Rotate(tenant=TENANT, instance_id=INSTANCE, binding_id="app"))
    assert again.replayed
    assert again.credentials is None


async def test_validate_only_changes_nothing(house: House) -> None:
    old = await house.active()
    tried = await house.rotate(validate_only=True)
    assert [step.name for step in tried.planned] == ["bind-one", "bind-two"]
    assert await house.binding() == old
    assert await house.unfinished() == ()


async def test_the_ttl_is_the_plan_s_else_the_predecessor_s(house: House) -> None:
    await house.offer(LeasePolicy(max_ttl=2 * HOUR))
    await house.active(ttl=90 * MINUTE)
    asked = await house.rotate()
    assert asked.binding is not None
    assert asked.binding.expires_at == house.now + 90 * MINUTE


async def test_a_renewal_of_the_retired_waits_for_what_is_at_work_on_it(house: House) -> None:
    await house.active(ttl=3 * HOUR)
    asked = await house.rotate(successor_id="next", overlap=HOUR)
    leaving = await house.lab.door.unbind(LOCAL, unbind())
    await house.end(asked)
    assert (await house.binding()).state is BindingState.UNBINDING  # nothing is left to retire
    assert [op.operation_id for op in await house.unfinished()] == [leaving.operation.operation_id]  # type: ignore[union-attr] # it was accepted


async def test_the_other_plans_of_the_catalog_are_as_before(house: House) -> None:
    """A binding that was made before the plan was rotatable can be rotated now: the live plan's word counts."""
    house.lab.catalog.append(catalog(plan("small"), plan("large")))
    await house.active()
    assert (await house.refused(house.rotate())).reason is Reason.NOT_ROTATABLE
    await house.offer(POLICY)
    asked = await house.rotate()
    assert asked.operation is not None
    assert asked.operation.waiting is Waiting.NONE
