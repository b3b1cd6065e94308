"""A process that is killed: what was answered is there, what was not is there whole or not at all."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

import pytest

from tests.store_contract.backends import Backend
from tests.store_contract.checks import faults
from tests.store_contract.conftest import OpenStore

PROGRAM = """
import asyncio, os
from purveyor_server.kit.clock import SystemClock
from tests.store_contract.records import provision

async def main():
    clock = SystemClock()
    store = await {opener}
    print("open", flush=True)

    async def caller(name):
        for number in range(100000):
            accepted = await provision(store, "acme", f"{{name}}-{{os.getpid()}}-{{number}}")
            print(accepted.operation_id, flush=True)

    await asyncio.gather(*(caller(name) for name in "abcdefgh"))

asyncio.run(main())
"""


async def run_until_killed(backend: Backend, answers: int, armed: str = "") -> list[str]:
    """Operation_ids that the process printed before it was killed: after `answers` of them, or by its own failpoint."""
    environment = os.environ | {"PURVEYOR_FAILPOINTS": armed}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM.format(opener=backend.opener()), env=environment, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    async with asyncio.timeout(60):
        assert await process.stdout.readline() == b"open\n"
        lines: list[str] = []
        while line := await process.stdout.readline():
            lines.append(line.decode().strip())
            if len(lines) == answers:
                process.kill()
        assert await process.wait() == -signal.SIGKILL
    return [line for line in lines if len(line) == 36]


@pytest.mark.crash
async def test_answered_commands_survive_a_kill(backend: Backend, open_store: OpenStore) -> None:
    for answers in (1, 40, 300):
        answered = await run_until_killed(backend, answers)
        store = await open_store()
        found = await faults(store, ["acme"], answered)
        await store.close()
        assert len(answered) >= answers
        assert found == []


@pytest.mark.crash
@pytest.mark.parametrize("moment", ["before", "during", "after"])
async def test_a_kill_at_any_moment_of_a_command_leaves_whole_commands(
    backend: Backend, open_store: OpenStore, moment: str
) -> None:
    answered = await run_until_killed(backend, 10_000, f"store.accept.{moment}=kill:57")
    store = await open_store()
    assert await faults(store, ["acme"], answered) == []


async def test_a_lost_answer_would_be_found(backend: Backend, open_store: OpenStore) -> None:
    """Negative control: an answer without its row."""
    store = await open_store()
    assert await faults(store, ["acme"], ["00000000-0000-7000-8000-000000000000"]) != []
