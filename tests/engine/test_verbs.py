"""Every verb on its straight way: what is made, what is journalled, what the record says at the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from purveyor_server.domain.model import EventKind
from purveyor_server.domain.states import BindingState, InstanceState, OperationState, StepState
from purveyor_server.providers.contract import NotYet, Outputs, PlannedStep, Work
from tests.engine.bench import bench


async def test_provision_makes_every_piece_once(tmp_path: Path) -> None:
    """A provision ends READY with all pieces made once, journalled, and their outputs kept."""
    async with bench(tmp_path) as b:
        operation = await b.ended(await b.provision())
        instance = await b.instance()
        steps = await b.steps(operation)

        assert operation.state is OperationState.SUCCEEDED
        assert (instance.state, instance.usable, instance.in_flight) == (InstanceState.READY, True, None)
        assert instance.applied == operation.want
        assert set(instance.outputs) == {"role", "space", "grant"}
        assert [step.state for step in steps] == [StepState.DONE] * 3
        assert not any(step.unsettled for step in steps)
        assert list(b.world.made.values()) == [1, 1, 1]
        assert operation.percent == 100.0


async def test_the_provider_is_asked_for_its_plan_once_per_outputs(tmp_path: Path) -> None:
    """A plan is a function of what is finished: it is asked for before the first step and after each."""
    async with bench(tmp_path) as b:
        asked: list[frozenset[str]] = []
        plan = b.provider.plan

        def counted(work: Work, done: Mapping[str, Outputs]) -> Sequence[PlannedStep]:
            asked.append(frozenset(done))
            return plan(work, done)

        b.provider.plan = counted  # type: ignore[method-assign]
        await b.ended(await b.provision())

    assert asked == [set(), {"role"}, {"role", "space"}, {"role", "space", "grant"}]


async def test_names_and_markers_carry_no_caller_text(tmp_path: Path) -> None:
    """Outside names hang on the uid alone."""
    async with bench(tmp_path) as b:
        await b.ended(await b.provision("payroll-db"))

        outside = "".join([*b.world.things, *b.world.markers.values()])

        assert "payroll" not in outside
        assert "team-a" not in outside
        assert all(marker.startswith(f"purveyor:{b.store.store_id}:") for marker in b.world.markers.values())


async def test_update_and_deprovision(tmp_path: Path) -> None:
    """An update reaches every piece; a deprovision leaves nothing and a tombstone."""
    async with bench(tmp_path) as b:
        await b.ended(await b.provision())
        await b.ended(await b.update({"size": 2}))

        assert [thing["size"] for thing in b.world.things.values()] == [2, 2, 2]
        assert (await b.instance()).applied == (await b.instance()).desired

        await b.ended(await b.deprovision())
        instance = await b.instance()

        assert (instance.state, instance.outputs, instance.usable) == (InstanceState.DELETED, {}, False)
        assert b.world.things == {}


async def test_bind_gives_credentials_and_unbind_erases_them(tmp_path: Path) -> None:
    """Credentials are sealed with the command that makes the binding ACTIVE, and gone with DELETED."""
    async with bench(tmp_path) as b:
        await b.ended(await b.provision())
        await b.ended(await b.bind())
        binding = await b.binding()
        sealed = await b.store.secret(binding.uid, "credentials")

        assert binding.state is BindingState.ACTIVE
        assert sealed is not None
        clear = msgspec.json.decode(b.sealer.open(binding.uid, "credentials", sealed.sealed))
        assert clear["username"] in b.world.things
        assert len(clear["password"]) >= 40

        await b.ended(await b.unbind())

        assert (await b.binding()).state is BindingState.DELETED
        assert await b.store.secret(binding.uid, "credentials") is None
        assert await b.store.secret(binding.uid, "login/password") is None


async def test_not_yet_parks_and_goes_on(tmp_path: Path) -> None:
    """NotYet holds nothing; the step is asked again and counts once."""
    async with bench(tmp_path) as b:
        b.world.plant("space.ensure", NotYet(0.05, "still copying"), NotYet(0.05, "still copying"))
        operation = await b.ended(await b.provision())

        assert operation.state is OperationState.SUCCEEDED
        assert b.world.calls.count("space.ensure") == 3
        assert b.world.calls.count("role.ensure") == 1


async def test_every_state_change_is_an_event(tmp_path: Path) -> None:
    """The log holds the accepted, running and ended operation and both states of the instance, densely."""
    async with bench(tmp_path) as b:
        await b.ended(await b.provision())
        events = await b.store.events(0, 100)

        assert [event.revision for event in events] == list(range(1, len(events) + 1))
        states = {kind: [e.state for e in events if e.kind is kind] for kind in EventKind}
        assert states[EventKind.OPERATION] == ["PENDING", "RUNNING", "SUCCEEDED"]
        assert states[EventKind.INSTANCE] == ["PROVISIONING", "READY"]
