"""Runs the verbs of one provider as the engine would, without an engine, and compares full listings of the backend.

Guarantee: steps run through the facade that production uses, in order, asked again while they say NotYet, settled before
they are repeated; a finished step is not run again. At the end everything that a topic made is given back, and the
listing must be what it was at the start.
Limit: one process, no leases and no stored journal: those are the engine's, and its own tests'.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from copy import deepcopy
from datetime import datetime

from purveyor_server.domain.model import Json, ProviderRef
from purveyor_server.domain.states import Make, Verb
from purveyor_server.kit.clock import SystemClock
from purveyor_server.kit.secret import Secret
from purveyor_server.providers.contract import (
    Ability,
    Ambiguous,
    BindingWork,
    Done,
    Known,
    NotYet,
    Observed,
    Outputs,
    Owned,
    Permanent,
    Piece,
    PlannedStep,
    Provider,
    ProviderError,
    Work,
    WorkSettings,
)
from purveyor_server.providers.facade import FacadeSettings, ProviderFacade
from purveyor_server.providers.testing.case import Case, ContractBroken, NotOffered, fresh_store_id
from purveyor_server.providers.testing.context import Died, Fuse, Journal, KitContext, Pools

ASK_AGAIN = 0.05  # seconds between two looks at what is not finished
TRIES = 20  # of a step that fails with an error that may go away
MAX_DIFFERENCE = 600  # characters of a listing in a verdict


class Binding:
    """A binding that the suite made."""

    def __init__(self, instance_uid: str, work: BindingWork) -> None:
        self.instance_uid = instance_uid
        self.work = work
        self.journal = Journal()
        self.values: dict[str, Json] = {}

    @property
    def uid(self) -> str:
        """Its uid."""
        return self.work.uid


class Kit:
    """One provider of one store under test. `restart` gives it a new object, as a new process would have."""

    def __init__(self, case: Case, store_id: str) -> None:
        self.case = case
        self.store_id = store_id
        self.pools = Pools()
        self.journals: dict[str, Journal] = {}
        self.instances: dict[str, WorkSettings] = {}
        self.bindings: dict[str, Binding] = {}
        self.outputs: dict[str, dict[str, Outputs]] = {}  # of instances
        self.bound: dict[str, dict[str, Outputs]] = {}  # of bindings
        self.provider: Provider
        self.facade: ProviderFacade
        self._open()

    def _open(self) -> None:
        self.provider = self.case.open(self.store_id)
        settings = FacadeSettings(call=self.case.patience, settle=self.case.patience)
        ref = ProviderRef(self.case.name or type(self.case).__name__, "kit")
        self.facade = ProviderFacade(ref, self.provider, SystemClock(), settings=settings)

    async def restart(self) -> None:
        """A new provider object; the old one lets go of its connections."""
        old = self.provider
        self._open()
        await old.close()

    def needs(self, ability: Ability) -> None:
        """Raise NotOffered unless the provider has `ability`."""
        if ability not in self.provider.abilities:
            raise NotOffered(f"the provider has not the ability {ability}")

    # Work

    def settings(self, parameters: Mapping[str, Json] | None = None) -> WorkSettings:
        """The plan's settings with parameters (the case's own by default)."""
        chosen = self.case.parameters if parameters is None else parameters
        return WorkSettings("service", "plan", deepcopy(dict(self.case.settings)), deepcopy(dict(chosen)))

    def new(self) -> Work:
        """The work of a provision of a new instance, which `clear` gives back."""
        work = Work(Verb.PROVISION, str(uuid.uuid4()), self.settings(), None, {})
        self.adopt(work)
        return work

    def adopt(self, work: Work) -> None:
        """Remember the instance of `work`, so that `clear` gives it back."""
        assert work.want is not None
        self.instances[work.instance_uid] = work.want

    def update_of(self, uid: str) -> Work:
        """The work of an update of the instance to the case's other parameters; raises NotOffered."""
        self.needs(Ability.UPDATE)
        if self.case.changed is None:
            raise NotOffered("the case gives no `changed` parameters")
        was = self.instances[uid]
        return Work(Verb.UPDATE, uid, self.settings(self.case.changed), was, self.outputs.get(uid, {}))

    def removal_of(self, uid: str, *, was: bool = True) -> Work:
        """The work of a deprovision; without `was` nothing tells what the instance was."""
        settings = self.instances.get(uid, self.settings()) if was else None
        return Work(Verb.DEPROVISION, uid, None, settings, self.outputs.get(uid, {}) if was else {})

    def binding_of(self, uid: str, *, expires_at: datetime | None = None) -> Work:
        """The work of a new binding, which `clear` takes away; raises NotOffered."""
        self.needs(Ability.BIND)
        about = BindingWork(str(uuid.uuid4()), deepcopy(dict(self.case.bind_parameters)), {}, expires_at)
        self.bindings[about.uid] = Binding(uid, about)
        return Work(Verb.BIND, uid, self.instances[uid], None, self.outputs.get(uid, {}), about)

    def unbinding_of(self, binding: Binding) -> Work:
        """The work of an unbind."""
        uid = binding.instance_uid
        want = self.instances.get(uid, self.settings())
        return Work(Verb.UNBIND, uid, want, None, self.outputs.get(uid, {}), binding.work)

    # Steps

    def journal(self, work: Work) -> Journal:
        """The journal of a work's resource, kept over deaths."""
        uid = work.binding.uid if work.binding is not None else work.instance_uid
        return self.journals.setdefault(f"{work.verb}:{uid}", Journal())

    def context(
        self, work: Work, piece: Piece, make: Make = Make.ENSURE, fuse: Fuse | None = None, *, undo: bool = False
    ) -> KitContext:
        """A context for one run; an update that is undone wants the previous settings; a removal gets no secrets."""
        back = undo and work.verb is Verb.UPDATE
        journal = self.journal(work)
        minted = journal.mint(piece.name, tuple(piece.mints)) if make is Make.ENSURE else {}
        want, was = (work.was, work.want) if back else (work.want, work.was)
        fuse = fuse or Fuse()
        return KitContext(work, piece.name, self.store_id, journal, self.pools, fuse, minted, want=want, was=was)

    async def step(self, work: Work, piece: Piece, make: Make, *, undo: bool = False) -> Done:
        """One step to its end; raises ProviderError when it fails for good."""
        async with self.in_time(f"the step {piece.name!r} of {work.verb}"):
            for left in reversed(range(TRIES)):
                try:
                    return await self._answered(work, piece, make, undo=undo)
                except ProviderError as error:
                    if isinstance(error, Permanent) or not left:
                        raise
                    if isinstance(error, Ambiguous):
                        await self.settled(work, piece)
                    await asyncio.sleep(ASK_AGAIN)
        raise AssertionError  # the last try returned or raised

    async def _answered(self, work: Work, piece: Piece, make: Make, *, undo: bool) -> Done:
        while True:
            answer = await self.facade.make(piece, make, self.context(work, piece, make, undo=undo))
            if isinstance(answer, Done):
                return answer
            self.journal(work).said.append(answer.note)
            await asyncio.sleep(min(answer.after, ASK_AGAIN))

    async def settled(self, work: Work, piece: Piece) -> None:
        """Return once the piece says that nothing of an earlier run can happen any more."""
        async with self.in_time(f"settle of {piece.name!r}"):
            ctx = self.context(work, piece, Make.ABSENT)
            while not await self.facade.settle(piece, ctx):  # noqa: ASYNC110 - the contract has no signal: one asks again
                await asyncio.sleep(ASK_AGAIN)

    async def run(self, work: Work, begun: int = 0, done: Mapping[str, Outputs] | None = None) -> dict[str, Outputs]:
        """Every step from number `begun` on; the outputs of all."""
        finished = dict(done or {})
        index = begun
        while index < len(steps := self.facade.plan(work, finished)):
            step = steps[index]
            answer = await self.step(work, step.piece, step.make)
            self.journal(work).secrets.setdefault(step.piece.name, {}).update(answer.secrets)
            finished[step.piece.name] = answer.outputs
            index += 1
        return finished

    async def die(self, work: Work, fuse: Fuse) -> tuple[list[PlannedStep], dict[str, Outputs]]:
        """Run `work` until the fuse burns: the steps that were begun, the outputs of those that were finished.

        When it does not burn the work ran to its end. The pieces are called without the facade, which lets no Died through.
        """
        begun: list[PlannedStep] = []
        finished: dict[str, Outputs] = {}
        async with self.in_time(str(work.verb)):
            while len(begun) < len(steps := self.facade.plan(work, finished)):
                step = steps[len(begun)]
                begun.append(step)
                answer = await self._die_in(work, step, fuse)
                if answer is None:
                    break
                finished[step.piece.name] = answer.outputs
        return begun, finished

    async def _die_in(self, work: Work, step: PlannedStep, fuse: Fuse) -> Done | None:
        while True:
            ctx = self.context(work, step.piece, step.make, fuse)
            call = step.piece.ensure if step.make is Make.ENSURE else step.piece.absent
            try:
                answer = await mortal(ctx, call)
            except Died:
                return None
            if fuse.burnt:
                return None
            if isinstance(answer, Done):
                return answer
            await asyncio.sleep(ASK_AGAIN)

    # Verbs

    async def provision(self) -> str:
        """A new instance; its uid."""
        work = self.new()
        self.outputs[work.instance_uid] = await self.run(work)
        return work.instance_uid

    async def update(self, work: Work) -> None:
        """Carry an update out."""
        assert work.want is not None
        self.outputs[work.instance_uid] = {**self.outputs.get(work.instance_uid, {}), **await self.run(work)}
        self.instances[work.instance_uid] = work.want

    async def bind(self, uid: str, *, expires_at: datetime | None = None) -> Binding:
        """A new binding with its credentials."""
        return await self.finish_bind(self.binding_of(uid, expires_at=expires_at))

    async def finish_bind(self, work: Work, begun: int = 0, done: Mapping[str, Outputs] | None = None) -> Binding:
        """Carry a bind out from step number `begun` on."""
        assert work.binding is not None
        binding = self.bindings[work.binding.uid]
        finished = await self.run(work, begun, done)
        self.bound[binding.uid] = finished
        binding.journal = self.journal(work)
        binding.values = self.facade.credentials(work, finished, secrets_of(binding.journal)).values
        return binding

    async def unbind(self, binding: Binding) -> None:
        """Take a binding away."""
        await self.run(self.unbinding_of(binding))
        self.forget(binding.uid)

    async def deprovision(self, uid: str) -> None:
        """Give an instance back."""
        await self.run(self.removal_of(uid))
        self.forget(uid)

    def forget(self, uid: str) -> None:
        """The instance or binding `uid` is gone."""
        self.pools.free(uid)
        self.instances.pop(uid, None)
        self.bindings.pop(uid, None)
        self.outputs.pop(uid, None)

    async def clear(self) -> None:
        """Give back all that is left."""
        for binding in list(self.bindings.values()):
            await self.unbind(binding)
        for uid in list(self.instances):
            await self.deprovision(uid)

    # What the backend says

    async def observe(self, uid: str, settings: WorkSettings | None = None) -> Observed:
        """What the provider sees of an instance; raises NotOffered."""
        self.needs(Ability.OBSERVE)
        live = tuple(
            binding.uid for binding in self.bindings.values() if binding.instance_uid == uid and binding.values
        )
        known = Known(uid, settings or self.instances.get(uid, self.settings()), self.outputs.get(uid, {}), live)
        async with self.in_time("observe"):
            return await self.provider.observe(known)

    async def owned(self, store_id: str = "") -> list[Owned]:
        """What carries a store's marker; raises NotOffered."""
        self.needs(Ability.LIST_OWNED)
        async with self.in_time("list_owned"):
            return [thing async for thing in self.provider.list_owned(store_id or self.store_id)]

    async def same(self, before: object, what: str) -> None:
        """Raise ContractBroken unless the listing comes to be `before`."""
        now: object = None

        async def as_before() -> bool:
            nonlocal now
            now = await self.case.listing()
            return now == before

        if not await self.comes_true(as_before):
            raise ContractBroken(f"{what}: the listing is not what it should be: {difference(before, now)}")

    async def comes_true(self, condition: Callable[[], Awaitable[bool]]) -> bool:
        """Whether `condition` holds within a share of the patience: what was cut off may need a moment to be gone."""
        for _ in range(max(2, int(self.case.patience / 3 / ASK_AGAIN))):
            if await condition():
                return True
            await asyncio.sleep(ASK_AGAIN)
        return False

    @asynccontextmanager
    async def in_time(self, what: str) -> AsyncIterator[None]:
        """Raise ContractBroken when the block takes longer than the case's patience."""
        try:
            async with asyncio.timeout(self.case.patience):
                yield
        except TimeoutError as error:
            raise ContractBroken(f"{what} does not end within {self.case.patience:g} s") from error


async def mortal(ctx: KitContext, call: Callable[[KitContext], Awaitable[Done | NotYet]]) -> Done | NotYet:
    """Run a piece in a task that the fuse may cut off; raises Died when the broker died in it."""

    async def doomed() -> Done | NotYet:
        answer = await call(ctx)
        ctx.returned()
        return answer

    ctx.task = task = asyncio.ensure_future(doomed())
    await asyncio.wait({task})
    if task.cancelled():
        raise Died("cut off in an outside call")
    if ctx.fuse.burnt:
        task.exception()  # whatever it made of its end: nobody hears it
        raise Died("in the step")
    return task.result()


def secrets_of(journal: Journal) -> dict[str, Secret]:
    """All secrets of an operation by label."""
    return {label: secret for step in journal.secrets.values() for label, secret in step.items()}


def difference(before: object, now: object) -> str:
    """The first parts in which two listings differ."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        keys = [key for key in {**before, **now} if before.get(key) != now.get(key)]
        return "; ".join(f"{key}: {difference(before.get(key), now.get(key))}" for key in keys)[:MAX_DIFFERENCE]
    if isinstance(before, list | tuple | set | frozenset) and isinstance(now, list | tuple | set | frozenset):
        gone = [row for row in before if row not in now]
        new = [row for row in now if row not in before]
        return f"new {new!r:.{MAX_DIFFERENCE // 2}}, gone {gone!r:.{MAX_DIFFERENCE // 2}}"
    return f"{before!r:.{MAX_DIFFERENCE // 2}} became {now!r:.{MAX_DIFFERENCE // 2}}"


@asynccontextmanager
async def opened(case: Case, store_id: str = "") -> AsyncIterator[Kit]:
    """A kit whose listing is the same before and after; all that it made is given back in between."""
    if case.warms_up:
        await _warm_up(case)
    before = await case.listing()
    kit = Kit(case, store_id or fresh_store_id())
    try:
        await kit.provider.check()
        yield kit
        await kit.clear()
        await kit.same(before, "after all was given back")
    except Exception:
        with suppress(Exception):  # the backend may be shared with the next topic; the verdict stands
            await kit.clear()
        raise
    finally:
        await kit.provider.close()


async def _warm_up(case: Case) -> None:
    kit = Kit(case, fresh_store_id())
    try:
        await kit.deprovision(await kit.provision())
    finally:
        await kit.provider.close()
