"""What is done while others watch: orders of callers, ends of leases, acts of operators, damage behind the broker's back."""

from __future__ import annotations

import asyncio
import random
import shutil
from pathlib import Path

import purveyor
from purveyor.admin import AdminClient
from tests.watching.house import LARGE_PLAN_ID, PLAN, PLAN_ID, SERVICE, SERVICE_ID

INSTANCES = ("a", "b", "c", "d", "e")
BINDINGS = "xyz"
REASON = "a storm"
SHORT, LONG = 1.0, 3600.0  # seconds that a binding lives


async def turn(client: purveyor.Client, admin: AdminClient, root: Path, choose: random.Random) -> None:
    """One act, by chance. Raises PurveyorError when somebody else was quicker, or the broker is away."""
    act, instance_id, binding_id = choose.random(), choose.choice(INSTANCES), choose.choice(BINDINGS)
    if act < 0.35:
        await client.provision(SERVICE, PLAN, instance_id=instance_id, wait=2)
    elif act < 0.53:
        await client.bind(instance_id, binding_id=binding_id, ttl=choose.choice((SHORT, LONG)), wait=2)
    elif act < 0.6:
        await client.renew(instance_id, binding_id, ttl=LONG * (1 + choose.random()), wait=2)
    elif act < 0.67:
        await client.rotate(instance_id, binding_id, successor_id=choose.choice(BINDINGS), wait=2)
    elif act < 0.74:
        await client.update(instance_id, labels={"n": str(choose.random())}, wait=2)
    elif act < 0.85:
        await client.unbind(instance_id, binding_id, wait=2)
    elif act < 0.92:
        await client.deprovision(instance_id, cascade=True, wait=2)
    else:
        await damage(client, admin, root, instance_id)


async def damage(client: purveyor.Client, admin: AdminClient, root: Path, instance_id: str) -> None:
    """Take a folder away, have the broker look at it, and make it again."""
    uid = (await client.instance(instance_id)).uid
    await asyncio.to_thread(_remove, root, uid)
    await admin.look(client.tenant, instance_id, REASON)
    await admin.repair(client.tenant, instance_id, REASON, wait=2)


def _remove(root: Path, uid: str) -> None:
    for folder in root.glob(f"pv_*{uid.replace('-', '')}"):
        shutil.rmtree(folder, ignore_errors=True)


async def move(admin: AdminClient, tenant: str, number: int) -> None:
    """Begin to move the instances of a tenant to the other plan, or back."""
    plans = (PLAN_ID, LARGE_PLAN_ID)
    await admin.create_campaign(SERVICE_ID, plans[number % 2], REASON, to_plan_id=plans[1 - number % 2], tenant=tenant)


async def end_moves(admin: AdminClient) -> None:
    """Nothing more is begun by the broker."""
    for campaign in [campaign async for campaign in admin.campaigns() if not campaign.over]:
        await admin.abort_campaign(campaign.campaign_id, REASON)
