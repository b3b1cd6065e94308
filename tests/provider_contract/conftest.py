"""A provider on a real server, and a look at the server after every test: nothing may be left."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator

import pytest_asyncio

from purveyor_server.providers.postgresql import PostgresProvider
from tests.postgres_server import TestServer, postgres
from tests.provider_contract.shop import Shop, until

__all__ = ["postgres", "shop"]


@pytest_asyncio.fixture
async def shop(postgres: TestServer) -> AsyncIterator[Shop]:
    """A provider with a store id of its own."""
    before = await postgres.listing()
    store = secrets.token_hex(8)
    provider = PostgresProvider(postgres.config, postgres.environment(store))
    shop = Shop(postgres, provider, store)
    try:
        yield shop
        await shop.clear()
    finally:
        await provider.close()

    async def as_before() -> bool:
        return await postgres.listing() == before

    await until(as_before)  # sessions that were cut off take a moment to let go of their locks
