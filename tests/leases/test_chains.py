"""Any order of renewals, rotations, failures, unbinds and sweeps over one chain of bindings: a hypothesis machine of pure rules.

Held at every moment: a binding never promises more than its backend keeps, none lasts longer than `max_ttl`, none has two
live successors, and once nothing is under way a predecessor with an ACTIVE successor ends at the overlap's end at the latest.
The backend here is a dictionary of ends that the end of an operation writes, as a login's VALID UNTIL would be.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import partial
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from msgspec.structs import replace

from purveyor_server.domain.errors import PurveyorError
from purveyor_server.domain.leases import over
from purveyor_server.domain.model import Failure, Operation
from purveyor_server.domain.states import BindingState, InstanceState, OperationState, Verb
from purveyor_server.engine.outcomes import Ending, finish
from purveyor_server.engine.transitions import stops_for_cancel
from purveyor_server.lifecycle.bind import decide_bind
from purveyor_server.lifecycle.renew import decide_renew
from purveyor_server.lifecycle.rotate import decide_rotate
from purveyor_server.store.contract import Decision
from tests.fakes.leases import LEASED, POLICY, renew_ask, rotate_ask
from tests.fakes.rules import World, bind_ask
from tests.fakes.situations import INSTANCE, SMALL, instance

STEPS = settings(max_examples=80, stateful_step_count=40, deadline=None)
LIVE = {BindingState.ACTIVE, BindingState.EXPIRED, BindingState.UNBINDING}
SPANS = st.integers(1, 300).map(lambda minutes: timedelta(minutes=minutes))
PICK = st.integers(0, 10**6)


class Chains(RuleBasedStateMachine):
    """One instance, any number of bindings."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        made = instance(InstanceState.READY)
        self.world.instances[made.uid] = made
        self.backend: dict[str, datetime | None] = {}  # binding uid -> when its login ends
        self.promised: dict[str, datetime] = {}  # predecessor uid -> the latest end after its rotation

    def bindings(self, *states: BindingState) -> list[Any]:
        return [binding for binding in self.world.bindings.values() if binding.state in states]

    def attempt(self, decide: Any, binding_id: str) -> Decision | None:
        try:
            return self.world.accept(decide, INSTANCE, binding_id)
        except PurveyorError:
            return None

    @initialize()
    def begin(self) -> None:
        for name in "ab":
            self.bind(name)
            self.end(0, well=True)

    @rule(name=st.sampled_from("ab"))
    def bind(self, name: str) -> None:
        self.attempt(partial(decide_bind, ask=bind_ask(INSTANCE, name, plan=LEASED)), name)

    def picked(self, pick: int) -> Any:
        """An ACTIVE binding, now and then any other."""
        found = self.bindings(BindingState.ACTIVE) if pick % 5 else self.bindings(*BindingState)
        return found[pick % len(found)] if found else None

    @rule(pick=PICK, ttl=SPANS, shorter=st.booleans())
    def renew(self, pick: int, ttl: timedelta, shorter: bool) -> None:  # noqa: FBT001 - drawn
        if (found := self.picked(pick)) is not None:
            ask = renew_ask(found.binding_id, LEASED, ttl=ttl, allow_shorter=shorter)
            self.attempt(partial(decide_renew, ask=ask), found.binding_id)

    @rule(pick=PICK)
    def rotate(self, pick: int) -> None:
        if (old := self.picked(pick)) is not None:
            ask = rotate_ask(old.binding_id, old.uid, plan=LEASED)
            self.attempt(partial(decide_rotate, ask=ask), old.binding_id)

    @rule(pick=PICK)
    def unbind(self, pick: int) -> None:
        found = self.picked(pick)
        if found is not None and pick % 3 == 0:
            self.take_away(found.binding_id)

    @rule()
    def sweep(self) -> None:
        for binding in self.bindings(BindingState.ACTIVE):
            if over(binding.expires_at, self.world.now):
                self.take_away(binding.binding_id)

    def take_away(self, name: str) -> None:
        try:
            self.world.unbind(INSTANCE, name)
        except PurveyorError:
            return

    @rule(span=st.integers(1, 20).map(lambda minutes: timedelta(minutes=minutes)))
    def wait(self, span: timedelta) -> None:
        self.world.now += span

    @rule(pick=PICK, well=st.integers(0, 4).map(bool))
    def end(self, pick: int, well: bool) -> None:  # noqa: FBT001 - drawn
        due = [operation for operation in self.world.unfinished if not operation.blocked_by]
        if due:
            self.finish(due[pick % len(due)], well=well)

    def finish(self, operation: Operation, *, well: bool) -> None:
        """What an engine and a backend do: the backend first, then the record."""
        uid = operation.binding_uid
        before = self.world.bindings[uid]
        going = well and not stops_for_cancel(operation)
        if going and operation.verb is Verb.RENEW and operation.expiry is not None:
            self.backend[uid] = operation.expiry.to
        if going and operation.verb is Verb.BIND:
            self.backend[uid] = before.expires_at
        live = tuple(b for b in self.world.bindings.values() if b.state is not BindingState.DELETED)
        job = replace(self.world.job(operation), bindings=live)
        failure = None if going else Failure(reason="PROVIDER_FAILED", message="it failed")
        state = OperationState.SUCCEEDED if going else OperationState.FAILED
        self.world.write(finish(job, Ending(state=state, failure=failure)))
        if going and operation.succession is not None and self.world.bindings[uid].state is BindingState.ACTIVE:
            self.promised[operation.succession.predecessor_uid] = job.now + operation.succession.overlap

    @invariant()
    def nothing_is_promised_that_the_backend_does_not_keep(self) -> None:
        for binding in self.bindings(BindingState.ACTIVE):
            kept = self.backend[binding.uid]
            assert binding.expires_at is not None
            assert kept is None or binding.expires_at <= kept

    @invariant()
    def nothing_lasts_longer_than_the_most(self) -> None:
        assert POLICY.max_ttl is not None
        for binding in self.world.bindings.values():
            assert binding.expires_at is not None
            assert binding.expires_at <= binding.created_at + POLICY.max_ttl
            kept = self.backend.get(binding.uid)
            assert kept is None or kept <= binding.created_at + POLICY.max_ttl

    @invariant()
    def there_is_one_successor_at_most(self) -> None:
        followed = [
            operation.succession.predecessor_uid
            for operation in self.world.operations.values()
            if operation.succession is not None
            and self.world.bindings[operation.binding_uid].state in {BindingState.BINDING, BindingState.ACTIVE}
        ]
        alive = [uid for uid in followed if self.world.bindings[uid].state in LIVE]
        assert len(alive) == len(set(alive))

    @invariant()
    def predecessors_end_with_the_overlap(self) -> None:
        for uid, latest in self.promised.items():
            old = self.world.bindings[uid]
            assert old.expires_at is not None
            assert old.state is not BindingState.ACTIVE or old.expires_at <= latest


def test_chains_of_any_order() -> None:
    assert SMALL.digest == LEASED.snapshot.digest
    run_state_machine_as_test(Chains, settings=STEPS)


@pytest.mark.parametrize("fault", ["nobody is retired", "a later end is promised at once", "successors are not marked"])
def test_a_fault_in_the_rules_is_found(monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    """Negative controls."""
    if fault == "nobody is retired":
        monkeypatch.setattr("purveyor_server.engine.outcomes.retired", lambda _job, _operation: ((), ()))
    elif fault == "a later end is promised at once":

        class Hasty(Chains):
            def attempt(self, decide: Any, binding_id: str) -> Decision | None:
                decision = super().attempt(decide, binding_id)
                if decision is not None and decision.operation is not None and decision.operation.expiry is not None:
                    binding = self.world.bindings[decision.operation.binding_uid]
                    early = replace(binding, expires_at=decision.operation.expiry.to)
                    self.world.bindings[binding.uid] = early
                return decision

        with pytest.raises(AssertionError):
            run_state_machine_as_test(Hasty, settings=STEPS)
        return
    else:
        monkeypatch.setattr("purveyor_server.lifecycle.rotate._successor", lambda _old, _bindings: None)
    with pytest.raises(AssertionError):
        run_state_machine_as_test(Chains, settings=STEPS)
