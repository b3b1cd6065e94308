"""Load by h2load: canned gRPC messages over HTTP/2, from a program that is not Python.

Guarantee: a rate counts only what ended while at least three quarters of the callers were at work, and a run whose answers are not all there and of
the expected length raises LoadError: h2load takes any HTTP 200 for success, also one that only carries a gRPC error.
Limit: one process sends one body, so a run takes one process per body; the length does not show what an answer says.
"""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from statistics import quantiles

BUSY = 0.75  # of the processes: one that ends early or late does not spoil a round
PREFIX_BYTES = 5  # of a gRPC message: one flag, four of length
TIMEOUT_SECONDS = 300
INSTALL = "h2load is missing: apt-get install nghttp2-client (Debian, Ubuntu), or brew install nghttp2"
_DONE = re.compile(r"^requests: (\d+) total,.* (\d+) succeeded", re.MULTILINE)
_DATA = re.compile(r"^traffic:.*\((\d+)\) data$", re.MULTILINE)


class LoadError(Exception):
    """The run says nothing about speed: it did not do what it was to do."""


@dataclass(frozen=True, slots=True)
class Load:
    """`requests` in all to `method` (`/service/Name`) from `callers` connections with one request in flight each."""

    path: str
    method: str
    bodies: tuple[bytes, ...]
    callers: int
    requests: int


@dataclass(frozen=True, slots=True)
class Sent:
    """One request: when it was sent and answered, in microseconds."""

    began: int
    ended: int


@dataclass(frozen=True, slots=True)
class Ran:
    """What a run did. `rate` in requests per second; times in milliseconds."""

    requests: int
    rate: float
    median: float
    p99: float


def frame(message: bytes) -> bytes:
    """A message as gRPC sends it."""
    return struct.pack(">BI", 0, len(message)) + message


def program() -> str:
    """Where h2load is. Raises LoadError with the way to install it."""
    found = shutil.which("h2load")
    if found is None:
        raise LoadError(INSTALL)
    return found


def run(load: Load, folder: Path, expect: Callable[[int], bool]) -> Ran:
    """Run `load` and measure it; `expect` judges the bytes of answers (all of them, prefixes included)."""
    return summarize(send(load, folder, expect))


def send(load: Load, folder: Path, expect: Callable[[int], bool]) -> list[list[Sent]]:
    """Run `load`; what was sent, by process."""
    folder.mkdir(exist_ok=True)
    shares = [Load(load.path, load.method, (body,), callers, requests) for body, callers, requests in _shares(load)]
    started = [_start(share, folder, number) for number, share in enumerate(shares)]
    outputs = [_output(process) for process in started]
    data = sum(read_output(text, share.requests) for text, share in zip(outputs, shares, strict=True))
    if not expect(data):
        raise LoadError(f"{data} bytes of answers to {load.requests} requests: not the answers that were expected")
    return [read_log((folder / f"{number}.log").read_text()) for number in range(len(shares))]


def exactly(requests: int, answer_bytes: int) -> Callable[[int], bool]:
    """Every answer is a message of `answer_bytes`."""
    return lambda data: data == requests * (answer_bytes + PREFIX_BYTES)


def about(requests: int, answer_bytes: int) -> Callable[[int], bool]:
    """The same within a hundredth: numbers in an answer have lengths of their own."""
    return lambda data: abs(data / (requests * (answer_bytes + PREFIX_BYTES)) - 1) < 0.01


def _shares(load: Load) -> list[tuple[bytes, int, int]]:
    parts = len(load.bodies)
    if load.callers % parts or load.requests % load.callers:
        raise ValueError(f"{load.callers} callers and {load.requests} requests cannot be shared out to {parts} bodies")
    return [(body, load.callers // parts, load.requests // parts) for body in load.bodies]


def _start(share: Load, folder: Path, number: int) -> subprocess.Popen[str]:
    body, log = folder / f"{number}.body", folder / f"{number}.log"
    body.write_bytes(frame(share.bodies[0]))
    log.unlink(missing_ok=True)
    call = command(share, body, "--max-concurrent-streams=1", f"--log-file={log}")
    return subprocess.Popen(call, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def command(share: Load, body: Path, *options: str) -> list[str]:
    """h2load with the framed message in the file `body`, and further options."""
    return [
        program(), f"--requests={share.requests}", f"--clients={share.callers}", f"--data={body}",
        "--header=content-type: application/grpc", "--header=te: trailers", *options,
        f"--base-uri=unix:{share.path}", f"http://localhost{share.method}",
    ]  # fmt: skip


def _output(process: subprocess.Popen[str]) -> str:
    try:
        text, _ = process.communicate(timeout=TIMEOUT_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise LoadError(f"h2load did not end within {TIMEOUT_SECONDS} s") from None
    if process.returncode:
        raise LoadError(f"h2load ended with {process.returncode}: {text[-500:]}")
    return text


def read_output(text: str, requests: int) -> int:
    """Bytes of answers by h2load's own words. Raises LoadError unless all `requests` succeeded over HTTP."""
    done, data = _DONE.search(text), _DATA.search(text)
    if done is None or data is None:
        raise LoadError(f"h2load said something else than expected: {text[-500:]}")
    if (int(done[1]), int(done[2])) != (requests, requests):
        raise LoadError(f"{done[2]} of {requests} requests succeeded")
    return int(data[1])


def read_log(text: str) -> list[Sent]:
    """h2load's log: start in microseconds, HTTP status, duration in microseconds."""
    found = []
    for line in text.splitlines():
        began, status, took = (int(part) for part in line.split("\t"))
        if status != 200:
            raise LoadError(f"a request was answered with the HTTP status {status}")
        found.append(Sent(began, began + took))
    return found


def summarize(logs: Sequence[Sequence[Sent]]) -> Ran:
    """The rate while at least BUSY of the processes were at work, and latencies over all requests."""
    every = [sent for log in logs for sent in log]
    enough = ceil(len(logs) * BUSY)
    since = sorted(min(sent.began for sent in log) for log in logs)[enough - 1]
    until = sorted((max(sent.ended for sent in log) for log in logs), reverse=True)[enough - 1]
    counted = sum(since < sent.ended <= until for sent in every)
    if counted < len(every) / 3:
        raise LoadError(f"only {counted} of {len(every)} requests ended while enough callers were at work: send more")
    times = quantiles([(sent.ended - sent.began) / 1000 for sent in every], n=100)
    return Ran(len(every), counted / (until - since) * 1_000_000, times[49], times[98])
