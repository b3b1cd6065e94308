"""What is done while the broker is killed: every verb, every way back, every take-over.

Guarantee: a scenario's acts can be repeated after a restart, with the same request ids. `judge` says what must be true at
the end; `give_back` leaves the lane as it was before the run.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple

from tests.recovery.lane import NO_SUCH_EXTENSION, PLAN, Lane
from tests.recovery.run import CANCELLED, FAILED, Json, Run

SMALL: Json = {"connection_limit": 4, "extensions": []}
CHANGED: Json = {"connection_limit": 6, "extensions": ["citext"]}
WANTED: Json = {"connection_limit": 4, "extensions": ["citext"]}
IMPOSSIBLE: Json = {"extensions": [NO_SUCH_EXTENSION]}  # fails at its last step
TOO_MUCH: Json = {"connection_limit": 1000, "extensions": ["citext"]}  # an update that fails at its second step
ASLEEP = "claim=off"  # the engine works on nothing while this is armed


Act = Callable[[Run], Coroutine[Any, Any, None]]


class Phase(NamedTuple):
    """A part of a scenario in which the broker may be killed; `plan` is armed in it besides the kill.

    With `starts` the broker is started for it, so that the points of the start are among its own.
    """

    act: Act
    plan: str = ""
    starts: bool = False


class Scenario:
    """Base of all: an instance of its own in each run, nothing to prepare."""

    name = ""
    plan = PLAN
    furniture: Json = SMALL  # parameters of that instance
    fixture: str = ""  # the id of an instance that the runs of a batch share

    @property
    def phases(self) -> tuple[Phase, ...]:
        """In order."""
        return (Phase(self.act),)

    async def furnish(self, lane: Lane, tenant: str) -> None:
        """Make the fixture of a batch."""
        if self.fixture:
            run = Run(lane, f"{tenant}-fixture", tenant, self.fixture)
            run.plan = self.plan
            await run.end(await run.provision(self.furniture), "provision")
            if run.problems:
                raise AssertionError(f"{self.name}: the fixture could not be made: {run.problems}")

    async def clear(self, lane: Lane, tenant: str) -> None:
        """Take the fixture away."""
        if self.fixture:
            run = Run(lane, f"{tenant}-clear", tenant, self.fixture)
            await run.end(await run.deprovision(), "deprovision")

    async def prepare(self, run: Run) -> None:
        """Before the first phase."""

    async def act(self, run: Run) -> None:
        """The one phase."""
        raise LookupError(self.name)

    async def judge(self, run: Run) -> None:
        """What must be true now."""
        raise LookupError(self.name)

    async def give_back(self, run: Run) -> None:
        """Back to what there was."""
        await run.end(await run.deprovision("give-back"), "give-back")


async def work(run: Run) -> None:
    """The phase in which the engine brings everything to its end."""
    await run.end_all()


class Provision(Scenario):
    """An instance with an extension; it is bound and used afterwards."""

    name = "provision"
    wanted: Json = WANTED

    async def act(self, run: Run) -> None:
        await run.end(await run.provision(self.wanted), "provision")

    async def judge(self, run: Run) -> None:
        run.check("the instance", await run.state(), "READY")
        await run.end(await run.bind(), "bind")
        await run.check_usable()
        await run.end(await run.unbind(), "unbind")


class Update(Scenario):
    """Limit and extensions of a shared instance, and back."""

    name = "update"
    fixture = "updated"

    async def act(self, run: Run) -> None:
        await run.end(await run.update(CHANGED), "update")

    async def judge(self, run: Run) -> None:
        run.check("the instance", await run.state(), "READY")
        lines = "\n".join(await run.lane.backend.listing())
        run.check("citext is there", "extension citext" in lines, True)
        run.check("the limit is set", "limit=6 " in lines, True)

    async def give_back(self, run: Run) -> None:
        await run.end(await run.update(SMALL, key="give-back"), "give-back")


class Bind(Scenario):
    """A login in a shared instance."""

    name = "bind"
    fixture = "bound"

    async def act(self, run: Run) -> None:
        await run.end(await run.bind(), "bind")

    async def judge(self, run: Run) -> None:
        run.check("the binding", await run.binding_state(), "ACTIVE")
        await run.check_usable()

    async def give_back(self, run: Run) -> None:
        await run.end(await run.unbind("give-back"), "give-back")


class Unbind(Scenario):
    """A login with an open session and a table of its own is taken away."""

    name = "unbind"
    fixture = "unbound"

    def __init__(self) -> None:
        self._secrets: dict[str, Json] = {}  # by the run's tag

    async def prepare(self, run: Run) -> None:
        await run.end(await run.bind(), "bind")
        client = await run.client()
        self._secrets[run.tag] = (await client.credentials(run.instance_id, run.binding_id)).reveal()
        session = await run.log_in()
        await session.execute("SET ROLE NONE; CREATE TEMPORARY TABLE held (n int); BEGIN; INSERT INTO held VALUES (1)")

    async def act(self, run: Run) -> None:
        await run.end(await run.unbind(), "unbind")

    async def judge(self, run: Run) -> None:
        run.check("the binding", await run.binding_state(), "DELETED")
        await run.check_refused(self._secrets.pop(run.tag))

    async def give_back(self, run: Run) -> None:
        """Nothing is left to give back."""


class Deprovision(Scenario):
    """An instance with an extension is given back."""

    name = "deprovision"

    async def prepare(self, run: Run) -> None:
        await run.end(await run.provision(WANTED), "provision")

    async def act(self, run: Run) -> None:
        await run.end(await run.deprovision(), "deprovision")

    async def judge(self, run: Run) -> None:
        run.check("the instance", await run.state(), "DELETED")

    async def give_back(self, run: Run) -> None:
        """Nothing is left to give back."""


class RollbackProvision(Scenario):
    """A provision that fails for good at its last step."""

    name = "rollback-provision"

    async def act(self, run: Run) -> None:
        await run.end(await run.provision(IMPOSSIBLE, FAILED), "provision")

    async def judge(self, run: Run) -> None:
        run.check("the instance", await run.state(), "FAILED")


class RollbackUpdate(Update):
    """An update that fails for good at its second step: the first is set back."""

    name = "rollback-update"

    async def act(self, run: Run) -> None:
        await run.end(await run.update(TOO_MUCH, FAILED), "update")

    async def judge(self, run: Run) -> None:
        run.check("the instance", await run.state(), "READY")

    async def give_back(self, run: Run) -> None:
        """The rollback itself must have brought everything back."""


class RollbackBind(Bind):
    """A bind that made its login, was interrupted, and then fails for good."""

    name = "rollback-bind"

    @property
    def phases(self) -> tuple[Phase, ...]:
        return (Phase(self.act, "piece.login.ensure.before=error"),)

    async def prepare(self, run: Run) -> None:
        await crash(run, "outside.make_login.after=kill", self._ask, f"{ASLEEP},piece.login.ensure.before=error")

    async def _ask(self, run: Run) -> None:
        await run.bind(expected=FAILED)

    async def act(self, run: Run) -> None:
        await run.end(await run.bind(expected=FAILED), "bind")

    async def judge(self, run: Run) -> None:
        run.check("the binding", await run.binding_state(), "FAILED")


class CancelProvision(Scenario):
    """A provision is cancelled after its database was made."""

    name = "cancel-provision"

    @property
    def phases(self) -> tuple[Phase, ...]:
        return (Phase(self.act, ASLEEP), Phase(work))

    async def prepare(self, run: Run) -> None:
        await crash(run, "piece.schema.ensure.after=kill", self._provision, ASLEEP)

    async def _provision(self, run: Run) -> None:
        await run.provision(WANTED, CANCELLED)

    async def act(self, run: Run) -> None:
        await run.cancel("provision")

    async def judge(self, run: Run) -> None:
        run.check("the instance", await run.state(), "FAILED")


class CancelUpdate(Update):
    """An update is cancelled after its first step."""

    name = "cancel-update"

    @property
    def phases(self) -> tuple[Phase, ...]:
        return (Phase(self.act, ASLEEP), Phase(work))

    async def prepare(self, run: Run) -> None:
        await crash(run, "piece.extensions.ensure.after=kill", self._update, ASLEEP)

    async def _update(self, run: Run) -> None:
        await run.update(CHANGED, CANCELLED)

    async def act(self, run: Run) -> None:
        await run.cancel("update")

    async def judge(self, run: Run) -> None:
        run.check("the instance", await run.state(), "READY")

    async def give_back(self, run: Run) -> None:
        """The rollback itself must have brought everything back."""


class CancelBind(Bind):
    """A bind is cancelled after its login was made."""

    name = "cancel-bind"

    @property
    def phases(self) -> tuple[Phase, ...]:
        return (Phase(self.act, ASLEEP), Phase(work))

    async def prepare(self, run: Run) -> None:
        await crash(run, "outside.make_login.after=kill", self._bind, ASLEEP)

    async def _bind(self, run: Run) -> None:
        await run.bind(expected=CANCELLED)

    async def act(self, run: Run) -> None:
        await run.cancel("bind")

    async def judge(self, run: Run) -> None:
        run.check("the binding", await run.binding_state(), "FAILED")


class TakeOverProvision(CancelProvision):
    """A provisioning instance is given back: the deletion is its undo."""

    name = "take-over-provision"
    interrupted = "outside.create_database.during=kill"

    async def prepare(self, run: Run) -> None:
        await crash(run, self.interrupted, self._provision, ASLEEP)

    async def act(self, run: Run) -> None:
        await run.deprovision()

    async def judge(self, run: Run) -> None:
        run.check("the instance", await run.state(), "DELETED")

    async def give_back(self, run: Run) -> None:
        """Nothing is left to give back."""


class TakeOverUpdate(Scenario):
    """An updating instance is given back: the update is cancelled first."""

    name = "take-over-update"

    @property
    def phases(self) -> tuple[Phase, ...]:
        return (Phase(self.act, ASLEEP), Phase(work))

    async def prepare(self, run: Run) -> None:
        await run.end(await run.provision(SMALL), "provision")
        await crash(run, "piece.extensions.ensure.after=kill", self._update, ASLEEP)

    async def _update(self, run: Run) -> None:
        await run.update(CHANGED, CANCELLED)

    async def act(self, run: Run) -> None:
        await run.deprovision()

    async def judge(self, run: Run) -> None:
        run.check("the instance", await run.state(), "DELETED")

    async def give_back(self, run: Run) -> None:
        """Nothing is left to give back."""


class TakeOverBind(CancelBind):
    """A binding that is being made is given back."""

    name = "take-over-bind"

    async def act(self, run: Run) -> None:
        await run.unbind()

    async def judge(self, run: Run) -> None:
        run.check("the binding", await run.binding_state(), "DELETED")

    async def give_back(self, run: Run) -> None:
        """Nothing is left to give back."""


class CleanUp(Scenario):
    """A rollback whose undo failed for good: a clean-up operation carries on."""

    name = "clean-up"

    @property
    def phases(self) -> tuple[Phase, ...]:
        return (Phase(self.act),)

    async def prepare(self, run: Run) -> None:
        run.lane.broker.arm("piece.database.absent.before=error")
        await run.end(await run.provision(IMPOSSIBLE, FAILED), "provision")
        run.check("the instance", await run.state(), "FAILED")

    async def act(self, run: Run) -> None:
        await run.end_clean_ups()

    async def judge(self, run: Run) -> None:
        run.check("the instance", await run.state(), "FAILED")


class RetryBind(Bind):
    """A bind whose call fails in an unknown way: it waits, settles and is made again."""

    name = "retry-bind"

    @property
    def phases(self) -> tuple[Phase, ...]:
        return (Phase(self.act, "outside.make_login.before=error"),)


class FirstStart(Provision):
    """The very first start, on an empty data directory."""

    name = "first-start"

    @property
    def phases(self) -> tuple[Phase, ...]:
        return (Phase(self.act, starts=True),)

    async def prepare(self, run: Run) -> None:
        await run.lane.broker.close()
        await asyncio.to_thread(shutil.rmtree, run.lane.data)

    async def act(self, run: Run) -> None:
        await (await run.client()).catalog()

    async def judge(self, run: Run) -> None:
        await run.end(await run.provision(WANTED), "provision")
        await super().judge(run)


class Resume(Provision):
    """The start after a crash, with an operation to resume: killed again in the middle of the recovery."""

    name = "resume"

    @property
    def phases(self) -> tuple[Phase, ...]:
        return (Phase(work, starts=True),)

    async def prepare(self, run: Run) -> None:
        await crash(run, "outside.create_database.during=kill", self._ask, ASLEEP)
        await run.lane.broker.close()

    async def _ask(self, run: Run) -> None:
        await run.provision(WANTED)


class Stop(Provision):
    """A graceful stop with an operation in flight."""

    name = "stop"

    @property
    def phases(self) -> tuple[Phase, ...]:
        return (Phase(self.act, ASLEEP),)

    async def prepare(self, run: Run) -> None:
        run.lane.broker.arm(ASLEEP)
        await run.provision(WANTED)

    async def act(self, run: Run) -> None:
        if run.repeating:
            return
        code = await run.lane.broker.stop()
        if not run.lane.broker.was_killed:
            run.check("the exit code", code, 0)
            await run.lane.start_broker(ASLEEP)

    async def judge(self, run: Run) -> None:
        await run.end_all()
        await super().judge(run)


async def crash(run: Run, plan: str, ask: Act, then: str) -> None:
    """Bring the broker down by `plan` while what `ask` asks for is done, and up again with the plan `then`; ask again."""
    run.lane.broker.arm(plan)
    if not await run.lane.dies_during(_to_the_end(run, ask)):
        raise AssertionError(f"{plan}: the broker was not killed while this scenario was prepared")
    await run.lane.start_broker(then)
    await ask(run)


async def _to_the_end(run: Run, ask: Act) -> None:
    await ask(run)
    await run.end_all()


ALL: tuple[type[Scenario], ...] = (
    Provision, Update, Bind, Unbind, Deprovision,
    RollbackProvision, RollbackUpdate, RollbackBind, CleanUp,
    CancelProvision, CancelUpdate, CancelBind,
    TakeOverProvision, TakeOverUpdate, TakeOverBind,
    RetryBind, FirstStart, Resume, Stop,
)  # fmt: skip
