"""Scenarios of the other kinds of plans: what each has in pieces of its own."""

from __future__ import annotations

from tests.recovery import scenarios, upkeep
from tests.recovery.lane import COMMON_DATABASE, DEDICATED_PLAN, SCHEMA_PLAN, Lane
from tests.recovery.run import FAILED, Json, Run
from tests.recovery.scenarios import IMPOSSIBLE, WANTED, Phase, Scenario

NOTHING: Json = {}


async def drop_common(lane: Lane) -> None:
    """Take away what instances share and the broker keeps, so that the next run makes it again."""
    connection = await lane.backend.connection()
    await connection.execute(f"DROP DATABASE IF EXISTS {COMMON_DATABASE} WITH (FORCE)")
    await connection.execute(f"DROP ROLE IF EXISTS {COMMON_DATABASE}_members")


class ProvisionSchema(scenarios.Provision):
    """An instance of plan `schema`, and with it the database that such instances share."""

    name = "provision-schema"
    plan = SCHEMA_PLAN
    wanted = NOTHING

    async def give_back(self, run: Run) -> None:
        await super().give_back(run)
        await drop_common(run.lane)


class RollbackSchema(ProvisionSchema):
    """A provision of a schema that was interrupted after its last call, and then fails for good."""

    name = "rollback-schema"

    @property
    def phases(self) -> tuple[Phase, ...]:
        return (Phase(self.act, "piece.own_schema.ensure.before=error"),)

    async def prepare(self, run: Run) -> None:
        error = "piece.own_schema.ensure.before=error"
        await scenarios.crash(run, "outside.make_schema.after=kill", self._ask, f"{scenarios.ASLEEP},{error}")

    async def _ask(self, run: Run) -> None:
        await run.provision(NOTHING, FAILED)

    async def act(self, run: Run) -> None:
        await run.end(await run.provision(NOTHING, FAILED), "provision")

    async def judge(self, run: Run) -> None:
        run.check("the instance", await run.state(), "FAILED")


class UnbindSchema(scenarios.Unbind):
    """A login with an open session, temporary and own objects is taken out of a schema."""

    name = "unbind-schema"
    plan = SCHEMA_PLAN
    furniture = NOTHING

    async def clear(self, lane: Lane, tenant: str) -> None:
        await super().clear(lane, tenant)
        await drop_common(lane)


class DeprovisionSchema(ProvisionSchema):
    """A schema with a table in it is given back."""

    name = "deprovision-schema"

    async def prepare(self, run: Run) -> None:
        await run.end(await run.provision(NOTHING), "provision")
        await run.end(await run.bind(), "bind")
        session = await run.log_in()
        await session.execute("CREATE TABLE kept (n int); SELECT lo_create(0)")
        await run.end(await run.unbind(), "unbind")

    async def act(self, run: Run) -> None:
        await run.end(await run.deprovision(), "deprovision")

    async def judge(self, run: Run) -> None:
        run.check("the instance", await run.state(), "DELETED")

    async def give_back(self, run: Run) -> None:
        await drop_common(run.lane)


class ProvisionDedicated(scenarios.Provision):
    """An instance with a server of its own, and an extension in it."""

    name = "provision-dedicated"
    plan = DEDICATED_PLAN

    async def give_back(self, run: Run) -> None:
        await super().give_back(run)
        drop_backups(run)


def drop_backups(run: Run) -> None:
    """What deprovisions leave on purpose."""
    for path in run.lane.backups.glob("pv_*.dump"):
        path.unlink()


class RollbackDedicated(ProvisionDedicated):
    """A provision of a server that fails for good at its last step."""

    name = "rollback-dedicated"

    async def act(self, run: Run) -> None:
        await run.end(await run.provision(IMPOSSIBLE, FAILED), "provision")

    async def judge(self, run: Run) -> None:
        run.check("the instance", await run.state(), "FAILED")


class TakeOverDedicated(scenarios.TakeOverProvision):
    """A server that is being made is given back while its files are made."""

    name = "take-over-dedicated"
    plan = DEDICATED_PLAN
    interrupted = "outside.init_cluster.during=kill"


class UpdateDedicated(scenarios.Update):
    """A limit that needs a restart, and an extension; and back."""

    name = "update-dedicated"
    plan = DEDICATED_PLAN

    async def judge(self, run: Run) -> None:
        run.check("the instance", await run.state(), "READY")

    async def clear(self, lane: Lane, tenant: str) -> None:
        await super().clear(lane, tenant)
        drop_backups(Run(lane, tenant))


class UnbindDedicated(scenarios.Unbind):
    """A login with an open session is taken out of a server of its own."""

    name = "unbind-dedicated"
    plan = DEDICATED_PLAN

    async def clear(self, lane: Lane, tenant: str) -> None:
        await super().clear(lane, tenant)
        drop_backups(Run(lane, tenant))


class DeprovisionDedicated(ProvisionDedicated):
    """A server is given back: first its backup, then everything else."""

    name = "deprovision-dedicated"

    async def prepare(self, run: Run) -> None:
        await run.end(await run.provision(WANTED), "provision")

    async def act(self, run: Run) -> None:
        await run.end(await run.deprovision(), "deprovision")

    async def judge(self, run: Run) -> None:
        run.check("the instance", await run.state(), "DELETED")
        run.check("backups", len(list(run.lane.backups.iterdir())), 1)
        drop_backups(run)

    async def give_back(self, run: Run) -> None:
        """Nothing is left to give back."""


OF_SCHEMAS: tuple[type[Scenario], ...] = (ProvisionSchema, RollbackSchema, UnbindSchema, DeprovisionSchema)
OF_SERVERS: tuple[type[Scenario], ...] = (
    ProvisionDedicated, RollbackDedicated, TakeOverDedicated, UpdateDedicated, UnbindDedicated, DeprovisionDedicated,
)  # fmt: skip
ALL = (*scenarios.ALL, *upkeep.ALL, *OF_SCHEMAS, *OF_SERVERS)
# In `make test`: each takes seconds, so of those that differ in little there is one.
SHORT: tuple[type[Scenario], ...] = (
    scenarios.Provision, scenarios.Update, scenarios.Unbind, scenarios.Deprovision, scenarios.RollbackProvision,
    scenarios.CleanUp, scenarios.CancelUpdate, scenarios.TakeOverProvision, scenarios.RetryBind,
    scenarios.FirstStart, scenarios.Resume, scenarios.Stop,
    upkeep.Rotate, upkeep.Repair, upkeep.Reap, ProvisionSchema, DeprovisionDedicated,
)  # fmt: skip
