"""Scenarios of the other kinds of plans: what each has in pieces of its own."""

from __future__ import annotations

from tests.recovery import scenarios
from tests.recovery.lane import COMMON_DATABASE, SCHEMA_PLAN, Lane
from tests.recovery.run import FAILED, Json, Run
from tests.recovery.scenarios import Phase, Scenario

NOTHING: Json = {}


async def drop_common(lane: Lane) -> None:
    """Take away what instances share and the broker keeps, so that the next run makes it again."""
    connection = await lane.backend.connection()
    await connection.execute(f"DROP DATABASE IF EXISTS {COMMON_DATABASE} WITH (FORCE)")
    await connection.execute(f"DROP ROLE IF EXISTS {COMMON_DATABASE}_members")


class ProvisionSchema(Scenario):
    """An instance of plan `schema`, and with it the database that such instances share."""

    name = "provision-schema"
    plan = SCHEMA_PLAN

    async def act(self, run: Run) -> None:
        await run.end(await run.provision(NOTHING), "provision")

    async def judge(self, run: Run) -> None:
        run.check("the instance", await run.state(), "READY")
        await run.end(await run.bind(), "bind")
        await run.check_usable()
        await run.end(await run.unbind(), "unbind")

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


ALL: tuple[type[Scenario], ...] = (*scenarios.ALL, ProvisionSchema, RollbackSchema, UnbindSchema, DeprovisionSchema)
