"""One real broker process: started, armed while it runs, killed, stopped.

Guarantee: `close` leaves no process; the process is in a session of its own, so a Ctrl-C reaches the suite alone.
Limit: readiness is what the socket says; what the broker does before it listens is not waited for.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import grpc.aio

from purveyor_server.kit.failpoints import FILE_VARIABLE

READY_SECONDS = 30.0
STOP_SECONDS = 20.0
POLL_SECONDS = 0.02
LOG_TAIL_BYTES = 3000
_QUICK = (
    ("grpc.initial_reconnect_backoff_ms", 20),
    ("grpc.min_reconnect_backoff_ms", 20),
    ("grpc.max_reconnect_backoff_ms", 50),
    ("grpc.use_local_subchannel_pool", 1),
)


class BrokerError(Exception):
    """The process did not do what every run needs: start, or stop when asked."""


class Broker:
    """The server process of one lane; `folder` holds its configuration, plan file, socket and log."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = folder / "purveyor.toml"
        self.socket = folder / "run" / "purveyor.sock"
        self.log = folder / "broker.log"
        self.starts = 0
        self._plan = folder / "failpoints"
        self._process: asyncio.subprocess.Process | None = None

    @property
    def address(self) -> str:
        """Where clients find it."""
        return f"unix:{self.socket}"

    @property
    def pid(self) -> int:
        """The running process; 0 without one."""
        return self._process.pid if self._process is not None and self._process.returncode is None else 0

    def arm(self, plan: str, trace: Path | None = None) -> None:
        """Give the process another failpoint plan, counts from zero; it holds from the next hit on."""
        draft = self._plan.with_suffix(".new")
        draft.write_text(f"{plan}\n{trace or ''}\n", encoding="utf-8")
        draft.replace(self._plan)

    @property
    def was_killed(self) -> bool:
        """Whether the last process ended by kill -9."""
        return self._process is not None and self._process.returncode == -signal.SIGKILL

    async def start(self, plan: str = "", trace: Path | None = None) -> None:
        """Start with `plan` armed and wait until it listens; one that runs is killed first. Raises BrokerError."""
        await self.close()
        self.arm(plan, trace)
        environment = dict(os.environ) | {FILE_VARIABLE: str(self._plan)}
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "purveyor_server", "serve", "--config", str(self.config)),
                stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log, env=environment, cwd=self.folder,
                start_new_session=True,
            )  # fmt: skip
        self.starts += 1
        await self._listening()

    async def _listening(self) -> None:
        async with grpc.aio.insecure_channel(self.address, options=_QUICK) as channel:
            ready = asyncio.ensure_future(channel.channel_ready())
            died = asyncio.ensure_future(self.died())
            try:
                await asyncio.wait({ready, died}, timeout=READY_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                if not ready.done() or died.done():
                    raise BrokerError(f"the broker did not start: {self.tail()}")
            finally:
                for task in (ready, died):
                    task.cancel()
                await asyncio.gather(ready, died, return_exceptions=True)

    async def died(self) -> int:
        """Wait for the end of the process; its return code (-9 for kill -9)."""
        assert self._process is not None
        return await self._process.wait()

    def kill(self) -> None:
        """Kill -9."""
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)

    async def stop(self) -> int:
        """SIGTERM, then wait; its return code. Raises BrokerError when it must be killed."""
        if self._process is None or not self.pid:
            return 0
        self._process.terminate()
        try:
            async with asyncio.timeout(STOP_SECONDS):
                return await self.died()
        except TimeoutError:
            self.kill()
            await self.died()
            raise BrokerError(f"the broker did not stop within {STOP_SECONDS:g} s: {self.tail()}") from None

    async def close(self) -> None:
        """End the process, whatever it does."""
        if self._process is not None:
            self.kill()
            await self.died()

    def tail(self) -> str:
        """The end of its log."""
        try:
            return self.log.read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace")
        except FileNotFoundError:
            return "no log"
