"""A provider on a real server, and a look at the server after every test: nothing may be left."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest_asyncio

from purveyor_server.providers.postgresql import PostgresProvider
from tests.postgres_server import TestServer, postgres
from tests.provider_contract.estate import Estate, estate
from tests.provider_contract.shop import SCHEMA_PLAN, Shop, until

__all__ = ["grounds", "home", "postgres", "schema_shop", "shop"]


@pytest_asyncio.fixture
async def shop(postgres: TestServer) -> AsyncIterator[Shop]:
    """A provider with a store id of its own."""
    async with opened(postgres) as shop:
        yield shop


@pytest_asyncio.fixture
async def schema_shop(postgres: TestServer) -> AsyncIterator[Shop]:
    """The same for plans of the kind `schema`; the database that they share is there already."""
    provider = PostgresProvider(postgres.config, postgres.environment())
    first = Shop(postgres, provider, secrets.token_hex(8))
    first.settings = SCHEMA_PLAN
    await first.deprovision(await first.provision())
    await provider.close()
    async with opened(postgres) as shop:
        shop.settings = SCHEMA_PLAN
        yield shop


@pytest_asyncio.fixture(loop_scope="session", scope="session")
async def grounds(postgres: TestServer) -> AsyncIterator[Estate]:
    """Dedicated servers; at the end of the run none may be left."""
    async with estate(postgres, secrets.token_hex(8)) as made:
        yield made


@pytest_asyncio.fixture(loop_scope="session", scope="session")
async def home(grounds: Estate) -> tuple[Estate, str]:
    """A dedicated instance that every test leaves as it was."""
    return grounds, await grounds.provision(extensions=["hstore"])


@asynccontextmanager
async def opened(postgres: TestServer) -> AsyncIterator[Shop]:
    """A shop, and the look at the server before and after it."""
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
