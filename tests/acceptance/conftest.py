"""One broker process per module, over the run's PostgreSQL server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.acceptance.house import SETTINGS, House, broker, calling, catalog_of, nothing_left
from tests.postgres_server import TestServer, postgres  # noqa: F401 - a fixture
from tests.unit.app_process import Process

LATE = '[reconcile]\nexpiry = "1h"\n'  # what is over stays as it is until somebody asks


@pytest.fixture(scope="module")
def process(postgres: TestServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:  # noqa: F811 - the fixture
    """A broker; at the end all is given back, it is stopped, and the server has nothing of it left."""
    with (
        nothing_left(postgres),
        broker(tmp_path_factory.mktemp("broker"), catalog_of(postgres), SETTINGS + LATE) as started,
    ):
        yield started
        asyncio.run(_give_back(started))


async def _give_back(started: Process) -> None:
    async with calling(started) as house:
        await house.give_back()


@pytest.fixture
async def house(process: Process) -> AsyncIterator[House]:
    """A caller of the module's broker."""
    async with calling(process) as caller:
        yield caller
