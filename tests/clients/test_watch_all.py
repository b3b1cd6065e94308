"""`purveyor watch` without an operation: what it tells, how it ends, and that a broker may go away meanwhile."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any

import grpc
import pytest

import purveyor
from purveyor import errors
from purveyor.cli import overview
from purveyor.cli.exits import Exit
from purveyor.cli.overview import Overview
from purveyor.v1 import broker_service_pb2 as messages
from purveyor.v1.error_reason_pb2 import ERROR_REASON_PROVIDER_FAILED
from tests.clients import aside
from tests.clients.backlog import Backlog
from tests.clients.scripted import HANG, Refusal, ScriptedBroker, failure, operation, serving
from tests.clients.test_cli import run, start

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from purveyor.values import OperationStatus

RUN_SECONDS = 30


@pytest.fixture
def backlog(broker: ScriptedBroker) -> Backlog:
    return Backlog(broker)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overview, "INTERVAL_SECONDS", 0.05)


class News:
    """What an overview told."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self._came = asyncio.Event()

    def __call__(self, status: OperationStatus) -> None:
        self.told.append(f"{status.operation_id} {status.state} {status.percent:.0f}")
        self._came.set()

    async def until(self, wanted: str) -> None:
        async with asyncio.timeout(RUN_SECONDS):
            while wanted not in self.told:
                self._came.clear()
                await self._came.wait()


async def watching(
    client: purveyor.Client, change: Callable[[News, Overview], Any], *, until_idle: bool = True
) -> tuple[News, Overview]:
    """Run an overview while `change` changes the world; with `until_idle` until it ends by itself."""
    news = News()
    made = Overview(client, news)
    running = asyncio.create_task(made.run(until_idle=until_idle))
    try:
        async with asyncio.timeout(RUN_SECONDS):
            await change(news, made)
            if until_idle:
                await running
    finally:
        running.cancel()
    return news, made


async def test_new_ones_appear_and_ends_are_told_once(backlog: Backlog, client: purveyor.Client) -> None:
    backlog.put("a")

    async def change(news: News, _: Overview) -> None:
        await news.until("a RUNNING 10")
        backlog.put("b", percent=20)
        await news.until("b RUNNING 20")
        backlog.put("quick", "SUCCEEDED", 100)  # began and ended between two looks
        await news.until("quick SUCCEEDED 100")
        backlog.put("b", "FAILED", 20, failure=failure(ERROR_REASON_PROVIDER_FAILED))
        backlog.put("a", "SUCCEEDED", 100)

    news, made = await watching(client, change)

    ends = [line for line in news.told if "RUNNING" not in line]
    assert sorted(ends) == ["a SUCCEEDED 100", "b FAILED 20", "quick SUCCEEDED 100"]
    assert (made.ended, [status.operation_id for status in made.failed], made.live) == (3, ["b"], {})


async def test_what_ended_before_is_not_told(backlog: Backlog, client: purveyor.Client) -> None:
    backlog.put("old", "FAILED", 1)

    async def change(_: News, __: Overview) -> None:
        pass

    news, made = await watching(client, change)

    assert (news.told, made.ended) == ([], 0)


async def test_the_list_is_not_asked_for_while_streams_do(backlog: Backlog, client: purveyor.Client) -> None:
    backlog.put("a")

    async def change(news: News, _: Overview) -> None:
        await news.until("a RUNNING 10")
        backlog.put("b")
        await news.until("b RUNNING 10")
        backlog.put("a", "SUCCEEDED", 100)
        backlog.put("b", "SUCCEEDED", 100)

    await watching(client, change)
    assert not backlog.broker.seen["ListOperations"]


async def test_an_end_that_the_log_no_longer_has_is_asked_for(backlog: Backlog, client: purveyor.Client) -> None:
    backlog.put("a")
    backlog.put("b")
    backlog.put("c")

    async def change(news: News, _: Overview) -> None:
        await news.until("c RUNNING 10")
        backlog.operations["a"] = operation("CANCELLED", 10, operation_id="a")
        del backlog.operations["b"]  # purged
        backlog.log.append(backlog.log[-1])
        backlog.forget()
        await news.until("a CANCELLED 10")
        backlog.put("d")
        await news.until("d RUNNING 10")
        backlog.put("c", "SUCCEEDED", 100)
        backlog.put("d", "SUCCEEDED", 100)

    news, made = await watching(client, change)
    assert sorted(news.told[3:]) == ["a CANCELLED 10", "c SUCCEEDED 100", "d RUNNING 10", "d SUCCEEDED 100"]
    assert (made.ended, made.live) == (3, {})


async def test_a_store_that_was_restored_is_looked_at_anew(backlog: Backlog, client: purveyor.Client) -> None:
    backlog.put("a")
    whole = backlog.broker.script["WatchEvents"]
    foreign = Refusal(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_RESUME_TOKEN")

    async def change(news: News, _: Overview) -> None:
        await news.until("a RUNNING 10")
        backlog.broker.script["WatchEvents"] = [foreign, *whole]
        backlog.forget()
        backlog.put("b")
        await news.until("b RUNNING 10")
        backlog.put("a", "SUCCEEDED", 100)
        backlog.put("b", "SUCCEEDED", 100)

    news, _ = await watching(client, change)
    assert news.told.count("a RUNNING 10") == 1


async def test_an_end_comes_once_from_stream_and_log(backlog: Backlog, client: purveyor.Client) -> None:
    """The stream is first, and the log says so later; then the log alone."""
    backlog.put("a")
    ahead = operation("FAILED", 20, operation_id="a", failure=failure(ERROR_REASON_PROVIDER_FAILED))
    backlog.broker.script["WatchOperation"] = [[ahead]]

    async def change(news: News, made: Overview) -> None:
        await news.until("a FAILED 20")
        assert not made.live
        backlog.put("b", "SUCCEEDED", 100)
        await news.until("b SUCCEEDED 100")  # not idle before the log says so too
        backlog.put("a", "FAILED", 20)

    news, made = await watching(client, change)
    assert news.told == ["a RUNNING 10", "a FAILED 20", "b SUCCEEDED 100"]
    assert (made.ended, len(made.failed)) == (2, 1)


async def test_a_stream_that_tells_an_end_while_it_is_asked_for_is_not_heard(
    backlog: Backlog, client: purveyor.Client
) -> None:
    backlog.put("a")
    asked, over = asyncio.Event(), asyncio.Event()

    async def late() -> AsyncIterator[Any]:
        try:
            yield backlog.operations["a"]
            await asked.wait()
            yield backlog.operations["a"]
        finally:
            over.set()  # told, or cancelled

    async def get(_request: Any) -> Any:
        asked.set()
        await over.wait()
        return messages.GetOperationResponse(operation=backlog.operations["a"])

    backlog.broker.script["WatchOperation"] = [lambda _request: late()]
    backlog.broker.script["GetOperation"] = [get]

    async def change(news: News, _: Overview) -> None:
        await news.until("a RUNNING 10")
        backlog.put("a", "FAILED", 20, failure=failure(ERROR_REASON_PROVIDER_FAILED))

    news, made = await watching(client, change)
    assert (news.told, made.ended) == (["a RUNNING 10", "a FAILED 20"], 1)


async def test_a_record_that_no_event_can_hold_is_asked_for(backlog: Backlog, client: purveyor.Client) -> None:
    async def change(news: News, made: Overview) -> None:
        async with asyncio.timeout(RUN_SECONDS):
            while made._heard is None:  # noqa: ASYNC110 - the first message has no other sign
                await asyncio.sleep(0)
        backlog.put("a", "SUCCEEDED", 100)
        await news.until("a SUCCEEDED 100")

    put = Backlog.put

    def bare(self: Backlog, *arguments: Any, **more: Any) -> None:
        put(self, *arguments, **more)
        self.log[-1].ClearField("operation")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Backlog, "put", bare)
        await watching(client, change, until_idle=False)


async def test_beyond_the_most_there_is_a_place_when_one_ends(
    backlog: Backlog, client: purveyor.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overview, "MOST", 2)
    for name in "abc":
        backlog.put(name)

    async def change(news: News, made: Overview) -> None:
        await news.until("b RUNNING 10")
        backlog.put("d", "SUCCEEDED", 100)
        await news.until("d SUCCEEDED 100")
        assert (sorted(made.live), made.more) == (["a", "b"], True)
        backlog.put("a", "SUCCEEDED", 100)
        await news.until("c RUNNING 10")
        assert not made.more
        backlog.put("b", "SUCCEEDED", 100)
        backlog.put("c", "SUCCEEDED", 100)

    _, made = await watching(client, change)
    assert made.ended == 4


async def test_a_defect_is_not_kept_silent(backlog: Backlog, client: purveyor.Client) -> None:
    backlog.put("a")

    def fails(status: OperationStatus) -> None:
        if status.percent > 10:
            raise ZeroDivisionError

    backlog.broker.script["WatchOperation"] = [[operation(percent=50, operation_id="a"), HANG]]
    with pytest.raises(ZeroDivisionError):
        await asyncio.wait_for(Overview(client, fails).run(until_idle=True), RUN_SECONDS)


async def test_streams_are_bounded_and_the_list_does_for_the_rest(
    backlog: Backlog, client: purveyor.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overview, "MAX_STREAMS", 2)
    for name in "abcd":
        backlog.put(name)

    async def change(news: News, made: Overview) -> None:
        await news.until("d RUNNING 10")
        backlog.put("d", percent=50)
        await news.until("d RUNNING 50")
        assert len(made._streams) == 2
        for name in "abcd":
            backlog.put(name, "SUCCEEDED", 100)

    news, made = await watching(client, change)
    assert made.ended == 4
    assert {request.operation_id for request in backlog.broker.seen["WatchOperation"]} == {"a", "b"}
    assert "d SUCCEEDED 100" in news.told


async def test_a_stream_that_is_refused_leaves_it_to_the_list(backlog: Backlog, client: purveyor.Client) -> None:
    backlog.put("a")
    backlog.broker.script["WatchOperation"] = [[Refusal(grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED")]]

    async def change(news: News, _: Overview) -> None:
        await news.until("a RUNNING 10")
        backlog.put("a", percent=60)
        await news.until("a RUNNING 60")
        backlog.put("a", "SUCCEEDED", 100)

    await watching(client, change)
    assert len(backlog.broker.seen["WatchOperation"]) == 1


async def test_a_broker_that_was_never_there_is_an_error_at_once(folder: Path) -> None:
    async with purveyor.Client(f"unix:{folder / 's'}", retry_for=0) as client:
        with pytest.raises(errors.UnavailableError):
            await Overview(client, News()).run(until_idle=False)


async def test_a_broker_may_go_away_for_a_while_and_not_for_ever(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scripted = ScriptedBroker()
    backlog = Backlog(scripted)
    backlog.put("a")
    news = News()
    async with purveyor.Client(f"unix:{folder / 's'}", tenant="t", retry_for=0.1) as client:
        made = Overview(client, news)
        async with serving(scripted, folder / "s"):
            running = asyncio.create_task(made.run(until_idle=True))
            await news.until("a RUNNING 10")
        async with asyncio.timeout(RUN_SECONDS):
            while made.away is None:  # noqa: ASYNC110 - the field is for a screen, which looks as often
                await asyncio.sleep(0)
        assert made.live
        backlog.put("a", percent=70)
        async with serving(scripted, folder / "s"):
            await news.until("a RUNNING 70")
        monkeypatch.setattr(overview, "OUTAGE_SECONDS", 0.2)
        with pytest.raises(errors.UnavailableError):
            await asyncio.wait_for(running, RUN_SECONDS)


async def test_json_is_a_line_per_change_and_the_exit_code_tells_of_failures(backlog: Backlog, folder: Path) -> None:
    backlog.put("a")
    process = await start(folder, "watch", "--until-idle", "--json")
    async with asyncio.timeout(RUN_SECONDS):
        assert process.stdout
        first = json.loads(await process.stdout.readline())
        backlog.put("a", "FAILED", 30, failure=failure(ERROR_REASON_PROVIDER_FAILED))
        out, err = await process.communicate()

    assert (first["operation_id"], first["state"], first["percent"]) == ("a", "RUNNING", 10)
    assert [json.loads(line)["state"] for line in out.splitlines()] == ["FAILED"]
    error = json.loads(err)["error"]
    assert (process.returncode, error["reason"], error["operation"]["operation_id"]) == (1, "PROVIDER_FAILED", "a")


async def test_nothing_to_watch_is_no_failure(backlog: Backlog, folder: Path) -> None:
    ran = await run(folder, "watch", "--until-idle")

    assert (ran.code, ran.out, ran.err) == (0, "", "0 ended, 0 of them not successfully\n")


async def test_an_interrupt_is_clean(backlog: Backlog, folder: Path) -> None:
    backlog.put("a", sentence="making it \x1b[2J")
    process = await start(folder, "watch")
    async with asyncio.timeout(RUN_SECONDS):
        assert process.stdout
        line = (await process.stdout.readline()).decode()
        process.send_signal(signal.SIGINT)
        _, err = await process.communicate()

    assert line == "a  provision i-a   10 %  RUNNING  making it \N{REPLACEMENT CHARACTER}[2J\n"
    assert (process.returncode, err) == (Exit.INTERRUPTED, b"error: interrupted\n")
    assert not backlog.broker.seen["CancelOperation"]


async def test_a_time_out_is_exit_9(backlog: Backlog, folder: Path) -> None:
    assert (await run(folder, "watch", "--timeout", "0.3")).code == Exit.TIMED_OUT


async def test_a_terminal_shows_a_table_with_bars_and_ends(backlog: Backlog, folder: Path) -> None:
    backlog.put("op-a", percent=40, sentence="making the database")
    parent, child = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", "from purveyor.cli import main; main()"),
        *("--address", f"unix:{folder / 's'}", "--tenant", "t", "watch", "--until-idle"),
        stdout=child,
        stderr=subprocess.PIPE,
        env={**os.environ, "COLUMNS": "140", "LINES": "30", "TERM": "xterm"},
    )
    os.close(child)
    seen, drawn, loop = bytearray(), asyncio.Event(), asyncio.get_running_loop()

    def read_all() -> None:
        """Until the other end is closed, which Linux tells by EIO."""
        with suppress(OSError):
            while found := os.read(parent, 1 << 16):
                seen.extend(found)
                if b"making the database" in seen:
                    loop.call_soon_threadsafe(drawn.set)

    reading = asyncio.create_task(asyncio.to_thread(read_all))
    async with asyncio.timeout(RUN_SECONDS):
        await drawn.wait()
        backlog.put("op-a", "SUCCEEDED", 100)
        _, err = await process.communicate()
        await reading
    os.close(parent)

    shown = seen.decode()
    assert (process.returncode, err) == (0, b"1 ended, 0 of them not successfully\n")
    assert "provision i-op-a" in shown
    assert "━" in shown
    assert "SUCCEEDED" in shown.rpartition("RUNNING")[2]
    assert shown.rstrip().endswith("\x1b[?25h")  # the cursor is back


@pytest.mark.crash
def test_a_real_broker_may_be_restarted(folder: Path) -> None:
    """The command goes on over a restart, and tells of what somebody else orders before and after it."""
    command = [sys.executable, "-m", "purveyor.cli", "--address", f"unix:{folder / 's'}", "--json", "watch"]
    with ExitStack() as stack:
        with aside.running(folder) as address:
            process = stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE))
            stack.callback(process.kill)
            ordered_until_told(process, address, "before")
        with aside.running(folder) as address:
            ordered_until_told(process, address, "after")
            process.send_signal(signal.SIGINT)
            assert process.wait(RUN_SECONDS) == Exit.INTERRUPTED


def ordered_until_told(process: subprocess.Popen[bytes], address: str, name: str) -> None:
    """Order one instance after another until the process, which may still be starting, writes of one that is done."""
    assert process.stdout
    number, written, end = process.stdout.fileno(), b"", time.monotonic() + RUN_SECONDS
    with purveyor.SyncClient(address, retry_for=RUN_SECONDS) as client:
        for count in itertools.count():
            client.provision("postgresql", "shared-small", instance_id=f"{name}-{count}").result(timeout=RUN_SECONDS)
            while select.select([number], [], [], 0.2)[0]:
                written += os.read(number, 1 << 16)
            lines = [json.loads(line) for line in written.splitlines(keepends=True) if line.endswith(b"\n")]
            if any(line["instance_id"].startswith(name) and line["state"] == "SUCCEEDED" for line in lines):
                return
            assert time.monotonic() < end, written
