"""New credentials for the broker's own accounts, asked for by an operator of a whole broker."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from purveyor.admin import AdminClient
from purveyor.errors import FailedPreconditionError, InvalidRequestError
from purveyor.root_values import RotatedRoots
from purveyor_server.providers.abilities import RootRotated
from purveyor_server.providers.contract import Ability, Permanent, ProviderError, Unreachable
from tests.fakes.provider import ScriptedProvider, World
from tests.rpc.whole import Whole, whole_broker


class Rooted(ScriptedProvider):
    """Its accounts can be rotated."""

    abilities = ScriptedProvider.abilities | {Ability.ROTATE_ROOT}

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.rotations = 0
        self.fault: ProviderError | None = None

    async def rotate_root(self) -> RootRotated:
        self.rotations += 1
        if self.fault is not None:
            raise self.fault
        return RootRotated(("admin", "superuser"), ("a server that is stopped",))


@pytest.fixture
async def broker(folder: Path) -> AsyncIterator[Whole]:
    async with whole_broker(folder, scripted=Rooted) as running:
        yield running


async def acts(admin: AdminClient) -> list[tuple[str, dict[str, object]]]:
    return [(r.reason, dict(r.details)) async for r in admin.audit() if r.action == "RotateRootCredentials"]


async def test_it_is_done_and_on_record_before_and_after(broker: Whole, admin: AdminClient) -> None:
    assert await admin.rotate_root("main", "looks only", validate_only=True) == RotatedRoots(accounts=())

    found = await admin.rotate_root("main", "a year is over")

    assert found == RotatedRoots(accounts=("admin", "superuser"), left=("a server that is stopped",))
    ended, begun = await acts(admin)
    assert begun == ("a year is over", {"phase": "begun"})
    assert (ended[1]["phase"], ended[1]["accounts"]) == ("ended", ["admin", "superuser"])


@pytest.mark.parametrize(
    "fault", [Permanent("rotated outside", "do this"), Unreachable("the server is away")], ids=["refused", "away"]
)
async def test_a_refusal_says_what_to_do_and_is_on_record(
    broker: Whole, admin: AdminClient, fault: ProviderError
) -> None:
    assert isinstance(broker.provider, Rooted)
    broker.provider.fault = fault

    with pytest.raises(FailedPreconditionError, match=fault.detail or fault.message):
        await admin.rotate_root("main", "a year is over")

    ended, _ = await acts(admin)
    assert ended[1] == {"phase": "ended", "failure": fault.message}


async def test_what_cannot_be_rotated_is_named(broker: Whole, admin: AdminClient) -> None:
    with pytest.raises(InvalidRequestError, match="is not one of"):
        await admin.rotate_root("nowhere", "a year is over")


async def test_the_command_line(broker: Whole) -> None:
    line = (
        sys.executable,
        "-m",
        "purveyor.cli",
        "rotate-root",
        "main",
        "--reason",
        "a year is over",
        "--admin",
        broker.address,
    )
    process = await asyncio.create_subprocess_exec(
        *line, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    said, errors = await process.communicate()

    assert process.returncode == 0, errors.decode()
    assert said.decode().splitlines() == [
        "new credentials: admin",
        "new credentials: superuser",
        "does not run, left as it is: a server that is stopped",
    ]


class TestWithoutTheAbility:
    @pytest.fixture
    async def broker(self, folder: Path) -> AsyncIterator[Whole]:
        async with whole_broker(folder) as running:
            yield running

    async def test_it_is_told(self, broker: Whole, admin: AdminClient) -> None:
        with pytest.raises(FailedPreconditionError, match="no credentials of its own"):
            await admin.rotate_root("main", "a year is over")

        assert await acts(admin) == []
