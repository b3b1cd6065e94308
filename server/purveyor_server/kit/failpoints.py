"""Named points at which a test may stop, kill or break the process.

Guarantee: nothing happens unless a plan was armed, by `arm()` in a test or by the environment variables
`PURVEYOR_FAILPOINTS...` in a server process; an unarmed point costs one attribute look-up.
A plan is a comma-separated list of `point=action[:nth]`: the action runs at the nth hit (1 by default) of the point and
only then. A point may stand there more than once.
Actions: `kill` (SIGKILL to the own process, the `kill -9` of the recovery suite), `error` (raises
`FailpointError`), and `off` (`is_off(point)` is true: used by negative controls to switch a safeguard off; every hit).
`PURVEYOR_FAILPOINTS_TRACE` names a file to which each hit appends a line; the recovery suite counts its points with it.
`PURVEYOR_FAILPOINTS_FILE` names a file that holds the plan in its first line and the trace file in its second: it is read
again, and every count starts anew, whenever another file is moved to its place. So a suite arms a process that runs.
Limit: a test instrument. The server logs a warning at start when a plan is armed.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections import Counter
from pathlib import Path

PLAN_VARIABLE = "PURVEYOR_FAILPOINTS"
TRACE_VARIABLE = "PURVEYOR_FAILPOINTS_TRACE"
FILE_VARIABLE = "PURVEYOR_FAILPOINTS_FILE"


class FailpointError(RuntimeError):
    """Raised by a point whose action is `error`."""


class _Plan:
    def __init__(self, text: str = "", trace: str = "") -> None:
        self.actions: dict[str, dict[int, str]] = {}  # point -> hit -> action
        self.hits: Counter[str] = Counter()
        self.trace = Path(trace) if trace else None
        self.lock = threading.Lock()
        for entry in filter(None, (part.strip() for part in text.split(","))):
            point, _, action = entry.partition("=")
            verb, _, nth = action.partition(":")
            self.actions.setdefault(point, {})[int(nth or "1")] = verb or "kill"

    @property
    def armed(self) -> bool:
        return bool(self.actions) or self.trace is not None

    def hit(self, point: str) -> None:
        with self.lock:
            self.hits[point] += 1
            count = self.hits[point]
            if self.trace is not None:
                with self.trace.open("a", encoding="utf-8") as trace:
                    trace.write(point + "\n")
        action = self.actions.get(point, {}).get(count)
        if action == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if action == "error":
            raise FailpointError(point)

    def is_off(self, point: str) -> bool:
        return "off" in self.actions.get(point, {}).values()


class _PlanFile(_Plan):
    """A plan that follows a file; while there is no file the plan is empty."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self._path = Path(path)
        self._seen = 0

    @property
    def armed(self) -> bool:
        return True

    def follow(self) -> None:
        """Take the file in if it is another one than before."""
        with self.lock:
            try:
                file = self._path.stat()
            except FileNotFoundError:
                return
            if (seen := hash((file.st_ino, file.st_mtime_ns))) == self._seen:
                return
            text, _, trace = self._path.read_text(encoding="utf-8").partition("\n")
            fresh = _Plan(text, trace.strip())
            self.actions, self.hits, self.trace, self._seen = fresh.actions, fresh.hits, fresh.trace, seen

    def hit(self, point: str) -> None:
        self.follow()
        super().hit(point)

    def is_off(self, point: str) -> bool:
        self.follow()
        return super().is_off(point)


def _from_environment() -> _Plan:
    if path := os.environ.get(FILE_VARIABLE, ""):
        return _PlanFile(path)
    return _Plan(os.environ.get(PLAN_VARIABLE, ""), os.environ.get(TRACE_VARIABLE, ""))


_plan = _from_environment()
armed: bool = _plan.armed


def arm(text: str, trace: str = "") -> None:
    """Replace the plan of this process; an empty text disarms."""
    global _plan, armed  # noqa: PLW0603 - one plan per process is the point
    _plan = _Plan(text, trace)
    armed = _plan.armed


def hit(point: str) -> None:
    """Pass the point `point`. May kill the process or raise `FailpointError` when armed."""
    if armed:
        _plan.hit(point)


def send(call: str) -> None:
    """Pass `outside.<call>.before` now and `.during` once the call that follows was sent, on the running loop."""
    if armed:
        hit(f"outside.{call}.before")
        # The call is sent before the next turn of the loop, its answer comes after it.
        asyncio.get_running_loop().call_soon(hit, f"outside.{call}.during")


def is_off(point: str) -> bool:
    """True when a negative control switched the safeguard `point` off."""
    return armed and _plan.is_off(point)
