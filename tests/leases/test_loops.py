"""The loops by a clock that the test moves: what has ended, what is rotated, what is tried again."""

from __future__ import annotations

from msgspec.structs import replace

from purveyor_server.domain.freezes import ALL, DELETES, RECOVERY, ROTATION, holding
from purveyor_server.domain.model import Binding, EventKind, Pause
from purveyor_server.domain.policies import LeasePolicy
from purveyor_server.domain.states import BindingState, Make, OperationState, Verb
from purveyor_server.engine.succession import AGAIN
from purveyor_server.store.contract import SYSTEM, Accept, Decision, Writes
from purveyor_server.store.leases import Due
from tests.fakes.broker import bind, unbind
from tests.fakes.situations import LOCAL
from tests.leases.house import HOUR, MINUTE, POLICY, SECOND, House

AUTOMATIC = LeasePolicy(ttl=10 * HOUR, max_ttl=20 * HOUR, renew_before=HOUR, overlap=HOUR, auto_rotate=True)


async def states(house: House, *names: str) -> list[BindingState]:
    return [(await house.binding(name)).state for name in names]


async def test_what_has_ended_is_expired_and_unbound_in_one_command(house: House) -> None:
    await house.active()
    await house.active("longer", ttl=2 * HOUR)
    head = house.lab.store.head
    house.later(HOUR - SECOND)
    await house.expiry().once()
    assert house.lab.store.head == head
    house.later(SECOND)
    await house.expiry().once()
    told = [event for event in await house.lab.store.events(head, 10) if event.kind is EventKind.BINDING]
    assert [event.state for event in told] == ["EXPIRED", "UNBINDING"]
    (leaving,) = await house.unfinished()
    assert (leaving.verb, leaving.binding_id, leaving.principal) == (Verb.UNBIND, "app", "purveyor")
    await house.lab.end(leaving)
    assert await states(house, "app", "longer") == [BindingState.DELETED, BindingState.ACTIVE]


async def test_a_renewal_that_came_first_wins(house: House) -> None:
    await house.active()
    loop = house.expiry()
    await house.end(await house.renew(ttl=2 * HOUR))
    house.later(HOUR)
    await loop.once()
    assert await states(house, "app") == [BindingState.ACTIVE]


async def test_an_end_takes_a_renewal_over_that_did_not_get_there(house: House) -> None:
    await house.active()
    renewing = await house.renew(ttl=2 * HOUR)
    house.later(HOUR)
    await house.expiry().once()
    assert renewing.operation is not None
    leaving = next(op for op in await house.unfinished() if op.verb is Verb.UNBIND)
    assert leaving.blocked_by == (renewing.operation.operation_id,)


async def test_pages_go_on_where_they_were_and_pass_over_what_is_refused(house: House) -> None:
    for number in range(7):
        await house.active(f"b{number}", ttl=HOUR + number * SECOND)
    house.later(2 * HOUR)
    loop = house.expiry(page=3)
    assert [await loop.once() for _ in range(3)] == [0.0, 0.0, None]
    assert len(await house.unfinished()) == 7
    assert await house.due(Due.EXPIRY, house.now) == []


async def test_hundreds_at_once_are_ended_page_by_page(house: House) -> None:
    made = await house.active()
    many = [
        replace(made, uid=f"{made.uid[:-4]}{number:04d}", binding_id=f"b{number}", expires_at=house.now + SECOND)
        for number in range(500)
    ]
    await write(house, *many)
    house.later(MINUTE)
    loop, rounds = house.expiry(page=100), 1
    while await loop.once() is not None:
        rounds += 1
    assert rounds == 6
    assert (await house.lab.store.backlog()).pending == 500


async def write(house: House, *bindings: Binding) -> None:
    writes = Writes(bindings=bindings)
    first = bindings[0]
    await house.lab.store.accept(Accept(SYSTEM, first.tenant, first.instance_id, lambda _: Decision(writes)))


async def test_freezes_of_deletions_leave_it_at_the_mark(house: House) -> None:
    await house.active()
    for name in (DELETES, ALL):
        await house.freeze(name)
        house.later(HOUR)
        await house.expiry().once()
        assert await states(house, "app") == [BindingState.EXPIRED]
        assert await house.unfinished() == ()
        refused = await house.refused(house.lab.door.get_credentials(LOCAL, "acme", "orders", "app"))
        assert refused.metadata["state"] == "EXPIRED"
        await house.thaw(name)
    await house.expiry().once()
    assert await states(house, "app") == [BindingState.UNBINDING]


async def test_credentials_end_with_the_time_whatever_the_sweep_does(house: House) -> None:
    made = await house.active()
    assert await house.lab.door.get_credentials(LOCAL, made.tenant, made.instance_id, "app")
    house.later(HOUR)
    refused = await house.refused(house.lab.door.get_credentials(LOCAL, made.tenant, made.instance_id, "app"))
    assert "its time is over" in refused.message
    again = await house.lab.door.bind(LOCAL, bind())
    assert (again.replayed, again.credentials) == (True, None)


async def test_nothing_is_done_while_a_restored_store_is_reviewed(house: House) -> None:
    await house.offer(AUTOMATIC)
    await house.active("one")
    await house.active("two", ttl=MINUTE)
    await house.freeze(RECOVERY)
    house.later(20 * HOUR)
    for loop in (house.expiry(), house.revocation(), house.rotation()):
        assert await loop.once() is None
    assert await states(house, "one", "two") == [BindingState.ACTIVE] * 2
    assert await house.unfinished() == ()


async def test_a_blocked_revocation_is_tried_again_later_each_time(house: House) -> None:
    await house.active(ttl=4 * HOUR)
    asked = await house.lab.door.unbind(LOCAL, unbind())
    await house.end(asked, OperationState.FAILED)
    blocked = await house.binding()
    assert (blocked.state, blocked.revocation_attempts) == (BindingState.REVOCATION_BLOCKED, 1)
    assert blocked.retry_at == house.now + MINUTE
    loop = house.revocation()
    await loop.once()
    assert await house.unfinished() == ()
    assert await house.due(Due.REVOCATION, house.now + HOUR) == ["app"]
    house.later(MINUTE)
    await house.freeze(DELETES)
    await loop.once()
    assert await house.unfinished() == ()
    await house.thaw(DELETES)
    await loop.once()
    (again,) = await house.unfinished()
    assert (again.verb, again.principal) == (Verb.UNBIND, "purveyor")
    await house.lab.end(again, OperationState.FAILED)
    assert (await house.binding()).revocation_attempts == 2
    house.later(MINUTE)
    await loop.once()
    await house.lab.end((await house.unfinished())[0])
    gone = await house.binding()
    assert gone.state is BindingState.DELETED
    assert await house.due(Due.REVOCATION, house.now + HOUR) == []


async def test_a_plan_s_policy_rotates_by_itself(house: House) -> None:
    await house.offer(AUTOMATIC)
    old = await house.active()
    assert old.rotate_at is not None
    assert old.expires_at is not None
    assert old.created_at + 8 * HOUR < old.rotate_at <= old.expires_at - HOUR
    loop = house.rotation()
    house.later(8 * HOUR)
    await loop.once()
    assert await house.unfinished() == ()
    house.clock.advance((old.rotate_at - house.now).total_seconds())
    await loop.once()
    (making,) = await house.unfinished()
    assert (making.verb, making.principal) == (Verb.BIND, "purveyor")
    await loop.once()
    assert len(await house.unfinished()) == 1  # one successor
    await house.lab.end(making)
    new = await house.binding(making.binding_id)
    assert (new.predecessor_binding_id, new.creator, new.rotated_at) == ("app", old.creator, new.created_at)
    assert (await house.binding()).successor_binding_id == new.binding_id
    house.later(HOUR)
    for operation in await house.unfinished():
        await house.lab.end(operation)
    await house.expiry().once()
    assert await states(house, "app", new.binding_id) == [BindingState.UNBINDING, BindingState.ACTIVE]


async def test_rotations_have_a_cap_per_hour(house: House) -> None:
    await house.offer(AUTOMATIC)
    for number in range(5):
        await house.active(f"b{number}")
    house.later(9 * HOUR)
    loop = house.rotation(per_hour=2)
    for _ in range(3):
        await loop.once()
    assert len(await house.unfinished()) == 2
    assert await house.lab.store.rotations_since(house.now - HOUR) == 2
    house.later(HOUR - SECOND)
    await house.rotation(per_hour=2).once()  # a restart forgets nothing
    assert len(await house.unfinished()) == 2


async def test_a_successor_that_failed_is_tried_again_after_a_while(house: House) -> None:
    await house.offer(AUTOMATIC)
    await house.active()
    house.later(9 * HOUR)
    loop = house.rotation()
    await loop.once()
    await house.lab.end((await house.unfinished())[0], OperationState.FAILED)
    assert (await house.binding()).rotate_at == house.now + AGAIN
    await loop.once()
    assert await house.unfinished() == ()
    house.later(AGAIN)
    await loop.once()
    assert len(await house.unfinished()) == 1


async def test_the_freeze_of_rotations_is_obeyed_by_loop_and_engine(house: House) -> None:
    await house.offer(AUTOMATIC)
    await house.active()
    house.later(9 * HOUR)
    await house.freeze(ROTATION)
    await house.rotation().once()
    assert await house.unfinished() == ()
    freezes = await house.lab.store.freezes()
    own = await house.rotate()
    assert own.operation is not None
    assert holding(freezes, own.operation, Make.ENSURE) is None  # a caller's own is not held
    await house.end(own, OperationState.CANCELLED)
    await house.thaw(ROTATION)
    house.later(AGAIN)
    await house.rotation().once()
    (automatic,) = await house.unfinished()
    assert holding(freezes, automatic, Make.ENSURE) is not None
    assert holding(freezes, automatic, Make.ABSENT) is None


async def test_what_the_plan_no_longer_rotates_is_passed_over(house: House) -> None:
    await house.offer(AUTOMATIC)
    await house.active("first")
    await house.active("second")
    await house.offer(POLICY, binding_rotatable=False)
    house.later(9 * HOUR)
    assert await house.rotation().once() is None
    assert await house.unfinished() == ()


async def test_a_binding_that_is_being_made_is_not_due(house: House) -> None:
    await house.lab.door.bind(LOCAL, bind("making"))
    assert await house.due(Due.EXPIRY, house.now + 10 * HOUR) == []


async def test_a_paused_instance_is_not_rotated_yet_its_credentials_end(house: House) -> None:
    await house.offer(AUTOMATIC)
    made = await house.active()
    instance = await house.lab.store.instance(SYSTEM, made.tenant, made.instance_id)
    assert instance is not None
    paused = replace(instance, reconcile_paused=Pause("ann", "looking", house.now), version=instance.version + 1)
    writes = Writes(instances=(paused,))
    await house.lab.store.accept(Accept(SYSTEM, made.tenant, made.instance_id, lambda _: Decision(writes)))
    house.later(9 * HOUR)
    await house.rotation().once()
    assert await house.unfinished() == ()
    asked = await house.rotate()  # a caller may
    assert not asked.replayed
    house.later(HOUR)
    await house.expiry().once()
    assert await states(house, "app") == [BindingState.UNBINDING]
