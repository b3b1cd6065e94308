"""Quarantine and removal of dedicated servers, and of what is in them."""

from __future__ import annotations

import secrets

import pytest

from purveyor_server.domain.names import outside_name
from purveyor_server.domain.states import Drift
from purveyor_server.providers.contract import Done, MarkerChanged, NotYet, Owned, Permanent, Retryable
from purveyor_server.providers.postgresql.dedicated import revive
from purveyor_server.providers.postgresql.locks import holding
from tests.postgres_server import TestServer
from tests.provider_contract.estate import Estate, estate

pytestmark = [pytest.mark.postgres, pytest.mark.asyncio(loop_scope="session")]


async def things(shop: Estate, kind: str) -> list[Owned]:
    return [found async for found in shop.facade.owned(shop.store) if found.kind == kind]


async def test_a_server_in_quarantine_is_started_by_nothing_until_it_is_released(postgres: TestServer) -> None:
    async with estate(postgres, secrets.token_hex(8)) as shop:
        uid = await shop.provision()
        binding, credentials = await shop.bind(uid)
        roles = [found for found in await things(shop, "role") if found.uid == binding.uid]
        assert [found.name for found in roles] == [f"{outside_name('clu', uid)}/{outside_name('usr', binding.uid)}"], (
            "found inside its server"
        )
        (server,) = await things(shop, "cluster")

        await shop.facade.quarantine(roles[0])
        await shop.facade.release(roles[0])
        await shop.facade.quarantine(server)
        await shop.facade.quarantine(server)

        assert not shop.cluster(uid).runs
        await revive(shop.host, shop.store)
        with pytest.raises(Permanent, match="in quarantine"):
            await shop.bind(uid)
        del shop.bindings[next(reversed(shop.bindings))]
        assert not shop.cluster(uid).runs
        with pytest.raises(Retryable, match="does not run"):
            await shop.facade.reclaim(roles[0])

        await shop.facade.release(server)

        assert (await shop.observe(uid)).drift is Drift.IN_SYNC
        session = await shop.server.login(credentials)
        await session.close()

        with holding(shop.cluster(uid).lock, shop.cluster(uid).keep):
            assert isinstance(await shop.facade.reclaim(server), NotYet)
        changed = Owned("cluster", server.name, server.uid, server.revision + 1)
        with pytest.raises(MarkerChanged):
            await shop.facade.reclaim(changed)
        assert await shop.facade.reclaim(roles[0]) == Done()
        assert await shop.facade.reclaim(server) == Done()
        assert await shop.facade.reclaim(server) == Done()
        assert await things(shop, "cluster") == []
        shop.bindings.clear()
        shop.instances.clear()
