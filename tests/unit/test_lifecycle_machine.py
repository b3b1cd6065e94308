"""Whatever is asked in whatever order: one live incarnation per id, and no two operations at work that conflict.

The rules run over a store in memory; operations are ended by the engine's own outcomes. Two negative controls plant a hole
in the matrix, and the machine must find it.
"""

from __future__ import annotations

from collections import Counter
from itertools import combinations

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from purveyor_server.domain import conflicts
from purveyor_server.domain.conflicts import Ask, Row, Ruling
from purveyor_server.domain.errors import PurveyorError, Reason
from purveyor_server.domain.model import Operation
from purveyor_server.domain.states import BindingState, InstanceState, OperationState, Verb, Waiting
from tests.fakes.rules import World

INSTANCES = st.sampled_from(["one", "two"])
BINDINGS = st.sampled_from(["x", "y"])
DIGESTS = st.sampled_from(["d1", "d2"])
CHOICE = st.integers(0, 1000)
REFUSALS = {
    Reason.INSTANCE_ALREADY_EXISTS,
    Reason.BINDING_ALREADY_EXISTS,
    Reason.OPERATION_IN_PROGRESS,
    Reason.WRONG_STATE,
    Reason.BINDINGS_EXIST,
    Reason.INSTANCE_NOT_FOUND,
    Reason.BINDING_NOT_FOUND,
    Reason.NOT_CANCELLABLE,
}
BUSY = {
    InstanceState.PROVISIONING: Verb.PROVISION,
    InstanceState.UPDATING: Verb.UPDATE,
    InstanceState.DEPROVISIONING: Verb.DEPROVISION,
}
BUSY_BINDING = {BindingState.BINDING: Verb.BIND, BindingState.UNBINDING: Verb.UNBIND}


def conflict(one: Operation, other: Operation) -> bool:
    """Whether two operations must not be at work at once on one instance."""
    verbs = {one.verb, other.verb}
    if Verb.CLEANUP in verbs and verbs & {Verb.DEPROVISION, Verb.UNBIND}:
        return False  # a removal supersedes clean-ups when it ends
    if Verb.DEPROVISION in verbs or verbs == {Verb.UPDATE, Verb.BIND}:
        return True
    return one.binding_uid == other.binding_uid


class Lifecycles(RuleBasedStateMachine):
    """Callers and an engine, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()

    @initialize(ready=st.sampled_from([("one", "two"), ("one",), ()]))
    def start(self, ready: tuple[str, ...]) -> None:
        for name in ready:
            begun = self.world.provision(name, "d1").operation
            assert begun is not None
            self.world.end(begun, well=True, leaving=False)

    @rule(instance=INSTANCES, digest=DIGESTS)
    def provision(self, instance: str, digest: str) -> None:
        self._try(lambda: self.world.provision(instance, digest))

    @rule(instance=INSTANCES, size=st.integers(1, 3))
    def update(self, instance: str, size: int) -> None:
        self._try(lambda: self.world.update(instance, size))

    @rule(instance=INSTANCES, cascade=st.booleans())
    def deprovision(self, instance: str, cascade: bool) -> None:  # noqa: FBT001 - hypothesis passes by name
        self._try(lambda: self.world.deprovision(instance, cascade=cascade))

    @rule(instance=INSTANCES, binding=BINDINGS, digest=DIGESTS)
    def bind(self, instance: str, binding: str, digest: str) -> None:
        self._try(lambda: self.world.bind(instance, binding, digest))

    @rule(instance=INSTANCES, binding=BINDINGS)
    def unbind(self, instance: str, binding: str) -> None:
        self._try(lambda: self.world.unbind(instance, binding))

    @rule(choice=CHOICE)
    def cancel(self, choice: int) -> None:
        if found := self._pick(choice, list(self.world.operations.values())):
            self._try(lambda: self.world.cancel(found))

    @rule(choice=CHOICE)
    def reach_the_pivot(self, choice: int) -> None:
        updates = [op for op in self._at_work() if op.verb is Verb.UPDATE]
        if found := self._pick(choice, updates):
            self.world.pass_pivot(found)

    @rule(choice=CHOICE, leaving=st.booleans())
    def fail(self, choice: int, leaving: bool) -> None:  # noqa: FBT001 - hypothesis passes by name
        if found := self._pick(choice, self._at_work()):
            self.world.end(found, well=False, leaving=leaving)

    @rule(choice=CHOICE)
    def succeed(self, choice: int) -> None:
        if found := self._pick(choice, self._at_work()):
            self.world.end(found, well=True, leaving=False)

    def _try(self, ask: object) -> None:
        assert callable(ask)
        try:
            ask()
        except PurveyorError as refused:
            if refused.reason not in REFUSALS:
                raise

    def _at_work(self) -> list[Operation]:
        return [operation for operation in self.world.unfinished if not operation.blocked_by]

    def _pick(self, choice: int, among: list[Operation]) -> Operation | None:
        return among[choice % len(among)] if among else None

    @invariant()
    def one_live_incarnation_of_each_id(self) -> None:
        live = Counter(i.instance_id for i in self.world.instances.values() if i.state is not InstanceState.DELETED)
        assert all(count == 1 for count in live.values())
        bound = Counter(
            (b.instance_uid, b.binding_id) for b in self.world.bindings.values() if b.state is not BindingState.DELETED
        )
        assert all(count == 1 for count in bound.values())

    @invariant()
    def no_two_at_work_conflict(self) -> None:
        for one, other in combinations(self._at_work(), 2):
            assert one.instance_uid != other.instance_uid or not conflict(one, other), (one.verb, other.verb)

    @invariant()
    def the_blocked_wait_for_the_living(self) -> None:
        living = {operation.operation_id for operation in self.world.unfinished}
        for operation in self.world.unfinished:
            blocked = bool(operation.blocked_by)
            assert blocked == (operation.waiting is Waiting.BLOCKED) == (operation.deadline is None)
            assert blocked == (operation.due_at is None)
            assert living.issuperset(operation.blocked_by)

    @invariant()
    def busy_states_have_their_operation(self) -> None:
        for instance in self.world.instances.values():
            own = [op for op in self.world.unfinished if op.instance_uid == instance.uid and not op.binding_uid]
            if (verb := BUSY.get(instance.state)) is not None:
                assert [op.verb for op in own].count(verb) == 1
        for binding in self.world.bindings.values():
            work = [op.verb for op in self.world.unfinished if op.binding_uid == binding.uid]
            if (verb := BUSY_BINDING.get(binding.state)) is not None:
                assert work.count(verb) == 1

    @invariant()
    def nothing_lives_on_the_dead(self) -> None:
        dead = {i.uid for i in self.world.instances.values() if i.state is InstanceState.DELETED}
        assert not [op for op in self.world.unfinished if op.instance_uid in dead]
        assert not [
            b for b in self.world.bindings.values() if b.instance_uid in dead and b.state is not BindingState.DELETED
        ]

    @invariant()
    def only_what_may_turn_back_is_cancelled(self) -> None:
        for operation in self.world.operations.values():
            if operation.state is OperationState.CANCELLED:
                assert operation.cancel_requested or operation.taken_over_by


ROUND = settings(max_examples=100, stateful_step_count=40, deadline=None)
TestLifecycles = Lifecycles.TestCase
TestLifecycles.settings = ROUND


@pytest.mark.parametrize(("row", "ask"), [(Row.UPDATING, Ask.BIND), (Row.READY_BINDING_WORK, Ask.UPDATE_OTHER)])
def test_a_planted_hole_in_the_matrix_is_found(row: Row, ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control."""
    cells = {**conflicts.INSTANCE_MATRIX[row], ask: Ruling.ACCEPT}
    monkeypatch.setattr(conflicts, "INSTANCE_MATRIX", {**conflicts.INSTANCE_MATRIX, row: cells})
    with pytest.raises(AssertionError):
        run_state_machine_as_test(Lifecycles, settings=settings(ROUND, max_examples=2000, phases=[Phase.generate]))
