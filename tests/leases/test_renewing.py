"""RenewBinding: to a time, once, within the plan; promised when the backend has it."""

from __future__ import annotations

from msgspec.structs import replace

from purveyor_server.domain.errors import Reason
from purveyor_server.domain.etags import etag_of
from purveyor_server.domain.policies import LeasePolicy
from purveyor_server.domain.states import BindingState, OperationState, Verb
from purveyor_server.lifecycle.contract import Renew
from purveyor_server.providers.contract import Ability
from tests.fakes.broker import bind, unbind, update
from tests.fakes.situations import INSTANCE, LOCAL, TENANT
from tests.leases.house import HOUR, MINUTE, POLICY, House


async def test_a_binding_begins_with_the_plan_s_terms(house: House) -> None:
    made = await house.active()
    assert made.expires_at == made.created_at + HOUR
    assert made.renew_before == made.expires_at - HOUR / 4
    refused = await house.refused(house.lab.door.bind(LOCAL, bind("more", ttl=5 * HOUR)))
    assert (refused.reason, refused.violations[0].field) == (Reason.INVALID_REQUEST, "ttl")
    assert refused.metadata["max_ttl_seconds"] == "14400"


async def test_the_live_plan_s_word_comes_before_the_snapshot_s(house: House) -> None:
    await house.offer(replace(POLICY, ttl=2 * HOUR))
    made = await house.active()
    assert made.expires_at == made.created_at + 2 * HOUR


async def test_a_later_end_is_promised_once_the_backend_keeps_it(house: House) -> None:
    before = await house.active()
    house.later(MINUTE)
    asked = await house.renew(ttl=2 * HOUR)
    target = house.now + 2 * HOUR
    assert asked.operation is not None
    assert asked.operation.verb is Verb.RENEW
    assert asked.operation.expiry is not None
    assert (asked.operation.expiry.to, asked.operation.expiry.back) == (target, before.expires_at)
    assert (await house.binding()).expires_at == before.expires_at
    await house.end(asked)
    after = await house.binding()
    assert (after.expires_at, after.renew_before) == (target, target - HOUR / 4)
    assert after.state is BindingState.ACTIVE


async def test_the_same_target_again_is_the_same_answer_and_adds_nothing_up(house: House) -> None:
    await house.active()
    target = house.now + 3 * HOUR
    first = await house.renew(expire_time=target)
    again = await house.renew(expire_time=target)
    assert first.operation is not None
    assert again.operation is not None
    assert (again.operation.operation_id, again.replayed) == (first.operation.operation_id, True)
    busy = await house.refused(house.renew(expire_time=target + MINUTE))
    assert busy.reason is Reason.OPERATION_IN_PROGRESS
    await house.end(first)
    for _ in range(3):
        done = await house.renew(expire_time=target)
        assert done.replayed
        assert done.binding is not None
        assert done.binding.expires_at == target
    assert await house.unfinished() == ()


async def test_a_request_id_gets_its_answer_again(house: House) -> None:
    await house.active()
    sent = Renew(
        tenant=TENANT, instance_id=INSTANCE, binding_id="app", ttl=2 * HOUR, request_id="r", body={"ttl": "2h"}
    )
    first = await house.lab.door.renew(LOCAL, sent)
    house.later(MINUTE)
    again = await house.lab.door.renew(LOCAL, sent)
    assert first.operation is not None
    assert again.operation is not None
    assert first.operation.operation_id == again.operation.operation_id


async def test_what_lasts_longer_is_left_unless_a_shorter_end_is_meant(house: House) -> None:
    before = await house.active(ttl=3 * HOUR)
    kept = await house.renew(ttl=HOUR)
    assert kept.replayed
    assert (await house.binding()).expires_at == before.expires_at
    cut = await house.renew(ttl=HOUR, allow_shorter=True)
    assert (await house.binding()).expires_at == house.now + HOUR  # promised at once
    assert cut.operation is not None
    assert cut.operation.expiry is not None
    assert cut.operation.expiry.back == house.now + HOUR  # nothing gives it a later end again
    await house.end(cut, OperationState.FAILED)
    assert (await house.binding()).expires_at == house.now + HOUR


async def test_max_ttl_counts_from_the_creation(house: House) -> None:
    made = await house.active()
    latest = made.created_at + 4 * HOUR
    house.later(MINUTE)
    beyond = await house.refused(house.renew(expire_time=latest + MINUTE))
    assert (beyond.reason, beyond.violations[0].field) == (Reason.INVALID_REQUEST, "expire_time")
    assert beyond.metadata["latest"] == latest.isoformat()
    await house.end(await house.renew(expire_time=latest))
    house.later(3 * HOUR + MINUTE * 30)
    standard = await house.renew()  # the plan's ttl, but not beyond the most
    assert standard.replayed
    assert (await house.binding()).expires_at == latest


async def test_a_renewal_that_fails_leaves_the_end(house: House) -> None:
    before = await house.active()
    await house.end(await house.renew(ttl=2 * HOUR), OperationState.FAILED)
    after = await house.binding()
    assert (after.expires_at, after.state) == (before.expires_at, BindingState.ACTIVE)
    values = await house.lab.door.get_credentials(LOCAL, TENANT, INSTANCE, "app")
    assert values["username"] == "u"


async def test_only_what_is_alive_is_renewed(house: House) -> None:
    missing = await house.refused(house.renew("none", ttl=HOUR))
    assert missing.reason is Reason.BINDING_NOT_FOUND
    making = await house.lab.door.bind(LOCAL, bind("making"))
    assert (await house.refused(house.renew("making", ttl=HOUR))).reason is Reason.OPERATION_IN_PROGRESS
    await house.lab.end(making.operation)
    await house.active()
    await house.lab.door.unbind(LOCAL, unbind("making"))
    assert (await house.refused(house.renew("making", ttl=HOUR))).reason is Reason.WRONG_STATE
    house.later(HOUR)
    over = await house.refused(house.renew(ttl=HOUR))  # the sweep has not been there yet
    assert over.reason is Reason.WRONG_STATE


async def test_an_unbind_takes_a_renewal_over(house: House) -> None:
    await house.active()
    renewing = await house.renew(ttl=2 * HOUR)
    leaving = await house.lab.door.unbind(LOCAL, unbind())
    assert renewing.operation is not None
    assert leaving.operation is not None
    assert leaving.operation.blocked_by == (renewing.operation.operation_id,)
    await house.end(renewing, OperationState.CANCELLED)
    assert (await house.binding()).state is BindingState.UNBINDING
    await house.end(leaving)
    assert (await house.binding()).state is BindingState.DELETED


async def test_renewals_go_on_while_the_instance_is_updated(house: House) -> None:
    await house.active()
    await house.lab.door.update(LOCAL, update(parameters={"size": 3}))
    renewing = await house.renew(ttl=2 * HOUR)
    assert renewing.operation is not None
    assert not renewing.replayed


async def test_a_backend_that_keeps_no_time_is_not_asked(house: House) -> None:
    house.lab.plans.said = frozenset({Ability.BIND, Ability.UPDATE})
    refused = await house.refused(house.lab.door.bind(LOCAL, bind(ttl=HOUR)))
    assert refused.violations[0].field == "ttl"
    made = await house.active()  # the plan's own ttl is kept by the sweep
    assert made.expires_at is not None
    done = await house.renew(ttl=2 * HOUR)
    assert done.operation is not None
    assert done.operation.state is OperationState.SUCCEEDED
    assert (await house.binding()).expires_at == house.now + 2 * HOUR


async def test_etag_and_validate_only(house: House) -> None:
    made = await house.active()
    stale = await house.refused(house.renew(ttl=2 * HOUR, etag="0"))
    assert stale.reason is Reason.ETAG_MISMATCH
    tried = await house.renew(ttl=2 * HOUR, etag=etag_of(made), validate_only=True)
    assert [step.name for step in tried.planned] == ["bind-one", "bind-two"]
    assert tried.operation is not None
    assert tried.operation.operation_id == ""
    assert await house.unfinished() == ()
    assert await house.binding() == made


async def test_without_a_policy_nothing_ends_and_a_target_is_needed(house: House) -> None:
    await house.offer(LeasePolicy())
    made = await house.active()
    assert made.expires_at is made.renew_before is made.rotate_at is None
    assert (await house.refused(house.renew())).violations[0].field == "expire_time"
    assert (await house.renew(ttl=HOUR)).replayed  # it has no end: it lasts as long already
    await house.end(await house.renew(ttl=HOUR, allow_shorter=True))
    assert (await house.binding()).expires_at == house.now + HOUR
