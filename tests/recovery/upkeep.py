"""What is done while the broker is killed, of the life after the first day: renewals, rotations, ends of leases, repairs,
clean-ups that wait, campaigns, and things that no record stands for.

Guarantee: as of `scenarios`. An act of an operator gets another request id when it is repeated, as a person would send them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from purveyor.errors import AbortedError
from purveyor_server.domain.names import outside_name
from purveyor_server.providers.postgresql.pieces import DATABASE, LOGIN
from tests.recovery import scenarios
from tests.recovery.lane import DELAYED_PLAN, LARGE_PLAN_ID, PLAN_ID, PROVIDER, SERVICE_ID
from tests.recovery.run import CANCELLED, FAILED, SUCCEEDED
from tests.recovery.scenarios import IMPOSSIBLE, SMALL, WANTED, Scenario

if TYPE_CHECKING:
    from datetime import datetime

    from purveyor.admin import AdminClient
    from purveyor.orphan_values import Orphan
    from tests.recovery.run import Run

REASON = "killed for"
STEPS, STEP_SECONDS = 600, 0.05  # of waiting for what the broker does by itself
LONG, SHORT, OVERLAP = 7200.0, 1.0, 3600.0  # seconds


class Renew(scenarios.Bind):
    """The end of a binding is moved: it works, and the server knows its new end."""

    name = "renew"
    fixture = "renewed"

    async def prepare(self, run: Run) -> None:
        await run.end(await run.bind(ttl=LONG / 2), "bind")

    async def act(self, run: Run) -> None:
        await run.end(await run.renew(LONG), "renew")

    async def judge(self, run: Run) -> None:
        await super().judge(run)
        binding = await (await run.client()).binding(run.instance_id, run.binding_id)
        run.check("the end of the binding in the server", await valid_until(run, binding.uid), binding.expire_time)


class Rotate(scenarios.Bind):
    """A binding gets a successor: both work, and the predecessor has an end."""

    name = "rotate"
    fixture = "rotated"

    async def prepare(self, run: Run) -> None:
        await run.end(await run.bind(), "bind")

    async def act(self, run: Run) -> None:
        await run.end(await run.rotate(OVERLAP), "rotate")
        await run.end_own("RENEW")

    async def judge(self, run: Run) -> None:
        await super().judge(run)
        client = await run.client()
        old = await client.binding(run.instance_id, run.binding_id)
        run.check("the successor", old.successor_binding_id, run.successor_id)
        run.check("the end of the predecessor in the server", await valid_until(run, old.uid), old.expire_time)
        run.check("the end of the predecessor", old.expire_time is not None, True)
        run.check("the successor", await run.binding_state(run.successor_id), "ACTIVE")
        await run.check_usable(run.successor_id)

    async def give_back(self, run: Run) -> None:
        await super().give_back(run)
        await run.end(await run.unbind("give-back-too", run.successor_id), "give-back-too")


class Expire(scenarios.Unbind):
    """The time of a binding with an open session is over."""

    name = "expire"
    fixture = "expired"

    async def act(self, run: Run) -> None:
        # A broker that comes back too late revokes it without having told the server of its end.
        await run.end(await run.renew(SHORT, SUCCEEDED | CANCELLED), "renew")
        for _ in range(STEPS):
            if await run.binding_state() == "DELETED":
                break
            await run.lane.backend.pause(STEP_SECONDS)
        await run.end_own("UNBIND")


class Repair(Scenario):
    """A database and a login that somebody dropped are made again; the binding works with the credentials it had."""

    name = "repair"

    async def prepare(self, run: Run) -> None:
        await run.end(await run.provision(WANTED), "provision")
        await run.end(await run.bind(), "bind")
        client = await run.client()
        instance = await client.instance(run.instance_id)
        binding = await client.binding(run.instance_id, run.binding_id)
        connection = await run.lane.backend.connection()
        await connection.execute(f"DROP DATABASE {outside_name(DATABASE, instance.uid)} WITH (FORCE)")
        await connection.execute(f"DROP ROLE {outside_name(LOGIN, binding.uid)}")

    async def act(self, run: Run) -> None:
        async with run.lane.admin() as admin:
            try:
                await admin.repair(run.tenant, run.instance_id, REASON)
            except AbortedError:  # the access of the first one is being made again
                if not run.repeating:
                    raise
        for verb in ("REPAIR", "REISSUE"):
            await run.end_own(verb)

    async def judge(self, run: Run) -> None:
        run.check("the instance", await run.state(), "READY")
        await run.check_usable()
        await run.end(await run.unbind(), "unbind")


class DelayedCleanUp(scenarios.CleanUp):
    """A provision that fails leaves what it made to a clean-up that comes later."""

    name = "delayed-clean-up"
    plan = DELAYED_PLAN

    async def prepare(self, run: Run) -> None:
        """Nothing: the failure is part of the act."""

    async def act(self, run: Run) -> None:
        await run.end(await run.provision(IMPOSSIBLE, FAILED), "provision")
        await run.end_clean_ups()


class Campaign(Scenario):
    """An instance is moved to another plan with all others of its own."""

    name = "campaign"

    async def prepare(self, run: Run) -> None:
        await run.end(await run.provision(SMALL), "provision")

    async def act(self, run: Run) -> None:
        async with run.lane.admin() as admin:
            begun = await admin.create_campaign(
                SERVICE_ID, PLAN_ID, REASON, to_plan_id=LARGE_PLAN_ID, tenant=run.tenant, request_id=f"{run.tag}-move"
            )
            async for found in admin.watch_campaign(begun.campaign_id):
                if found.over:
                    run.check("the campaign", (found.state, found.succeeded), ("SUCCEEDED", 1))

    async def judge(self, run: Run) -> None:
        instance = await (await run.client()).instance(run.instance_id)
        run.check("the plan", (instance.state, instance.plan_id), ("READY", LARGE_PLAN_ID))


class Reap(Scenario):
    """An instance and its binding are forgotten: sweeps find what is left, it is put out of use, then removed."""

    name = "reap"

    async def prepare(self, run: Run) -> None:
        await run.end(await run.provision(WANTED), "provision")
        await run.end(await run.bind(), "bind")
        async with run.lane.admin() as admin:
            await admin.purge(run.tenant, run.instance_id, REASON, even_if_in_use=True)
            _ = [status async for status in admin.sweep(PROVIDER, REASON)]

    async def act(self, run: Run) -> None:
        async with run.lane.admin() as admin:
            for _ in range(STEPS):
                left = [orphan async for orphan in admin.orphans(PROVIDER)]
                for orphan in left:
                    await put_away(admin, orphan)
                if not left:
                    break
                await run.lane.backend.pause(STEP_SECONDS)  # what was in use by another of them, or by a dead broker

    async def judge(self, run: Run) -> None:
        async with run.lane.admin() as admin:
            run.check("what is left for a sweep", [orphan.name async for orphan in admin.orphans(PROVIDER)], [])

    async def give_back(self, run: Run) -> None:
        """Nothing is left to give back, which is what is judged."""


async def put_away(admin: AdminClient, orphan: Orphan) -> None:
    """Out of use, then away. What cannot be done now is done in the next round: a failure is in the answer."""
    if orphan.state != "QUARANTINED":
        await admin.quarantine_orphan(PROVIDER, orphan.kind, orphan.name, REASON)
    await admin.reap_orphan(PROVIDER, orphan.kind, orphan.name, REASON)


async def valid_until(run: Run, uid: str) -> datetime | None:
    """What the server knows of the end of a binding's login."""
    connection = await run.lane.backend.connection()
    query = "SELECT rolvaliduntil FROM pg_roles WHERE rolname = $1"
    found: datetime | None = await connection.fetchval(query, outside_name(LOGIN, uid))
    return found


ALL: tuple[type[Scenario], ...] = (Renew, Rotate, Expire, Repair, DelayedCleanUp, Campaign, Reap)
