"""Fixtures of the suite: each test runs on every backend."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from purveyor_server.kit import failpoints
from purveyor_server.kit.clock import ManualClock
from purveyor_server.store.contract import Store
from tests.store_contract.backends import BACKENDS, Backend
from tests.store_contract.records import START

OpenStore = Callable[..., Awaitable[Store]]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START)


@pytest.fixture(params=sorted(BACKENDS))
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Backend:
    made: Backend = BACKENDS[request.param](tmp_path)
    return made


@pytest.fixture
async def open_store(backend: Backend, clock: ManualClock) -> AsyncIterator[OpenStore]:
    """Opens the store on the same data; call it again after a close. Closed at the end of the test."""
    stores: list[Store] = []

    async def opened(**settings: Any) -> Store:
        stores.append(await backend.open(clock, **settings))
        return stores[-1]

    yield opened
    for store in reversed(stores):
        await store.close()


@pytest.fixture
async def store(open_store: OpenStore) -> Store:
    return await open_store()


@pytest.fixture(autouse=True)
def _no_failpoints() -> Iterator[None]:
    """A plan that a test armed does not outlive it."""
    yield
    failpoints.arm("")
