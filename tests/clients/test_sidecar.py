"""The folder that `purveyor credentials --watch` keeps: what is in it, when it is written, who is told."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
import typer

from purveyor import errors, live
from purveyor.cli import bindingroot, sidecar
from purveyor.cli.sidecar import Place, Reaction, reaction, run
from purveyor.values import BindingState
from tests.clients.chain import ChainedBindings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

WAIT_SECONDS = 10
AWAY = errors.UnavailableError("away", reason="DRAINING")


@dataclass
class Recorder:
    """A session that keeps what is said and shown; `reached` fires with each line of JSON."""

    chain: ChainedBindings
    tenant: str = "t"
    json: bool = True
    lines: list[dict[str, Any]] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    news: asyncio.Queue[str] = field(default_factory=asyncio.Queue)

    @asynccontextmanager
    async def _opened(self) -> AsyncIterator[ChainedBindings]:
        yield self.chain

    def client(self) -> Any:
        return self._opened()

    def emit_line(self, value: dict[str, Any]) -> None:
        self.lines.append(value)
        self.news.put_nowait("line")

    def say(self, message: str) -> None:
        self.said.append(message)
        self.news.put_nowait(message)


@asynccontextmanager
async def kept(recorder: Recorder, root: Path, react: Reaction | None = None) -> AsyncIterator[asyncio.Task[None]]:
    place = Place(str(root), "web", "postgresql", "purveyor")
    running = run(recorder, "db", "web", place, react or Reaction())  # type: ignore[arg-type] # what it uses of a session
    task = asyncio.create_task(running)
    try:
        async with asyncio.timeout(WAIT_SECONDS):
            yield task
    finally:
        task.cancel()
        await asyncio.wait({task})


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "FIRST_REST_SECONDS", 0.001)
    monkeypatch.setattr(sidecar, "WRITE_AGAIN_SECONDS", 0.001)
    monkeypatch.setattr(sidecar, "LONGEST_REST_SECONDS", 0.001)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    made = tmp_path / "bindings"
    made.mkdir(mode=0o700)
    return made


def password(root: Path) -> str:
    return (root / "web" / "password").read_text()


async def test_the_folder_follows_rotations(root: Path) -> None:
    recorder = Recorder(ChainedBindings("web"))
    async with kept(recorder, root):
        await recorder.news.get()
        assert password(root) == "secret of web"
        recorder.chain.turn("web", "web-2")
        await recorder.news.get()
        assert password(root) == "secret of web-2"
        assert (root / "web" / "type").read_text() == "postgresql"

    assert [(line["binding_id"], line["changed"]) for line in recorder.lines] == [("web", True), ("web-2", True)]


async def test_who_uses_it_is_told_after_a_change_and_not_at_a_restart_without_one(root: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    react = Reaction(("/bin/sh", "-c", f'cat "{root}/web/password" >> {log}; echo >> {log}'))
    chain = ChainedBindings("web")
    async with kept(first := Recorder(chain), root, react):
        await first.news.get()
        chain.turn("web", "web-2")
        await first.news.get()
        chain.put("web-2", BindingState.ACTIVE, password="third")
        await first.news.get()  # the command has run before the next change is taken
    assert log.read_text().splitlines()[0] == "secret of web-2"
    count = len(log.read_text().splitlines())

    async with kept(second := Recorder(chain), root, react):
        await second.news.get()
    assert second.lines[0]["changed"] is False
    assert len(log.read_text().splitlines()) == count


async def test_a_signal_reaches_the_process_of_the_pid_file(root: Path, tmp_path: Path) -> None:
    told = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, told.set)
    pid_file = tmp_path / "pid"
    pid_file.write_text(f"{os.getpid()}\n")
    recorder = Recorder(ChainedBindings("web"))
    try:
        async with kept(recorder, root, reaction("", "usr1", str(pid_file))):
            await recorder.news.get()
            assert not told.is_set()
            recorder.chain.turn("web", "web-2")
            await told.wait()
    finally:
        asyncio.get_running_loop().remove_signal_handler(signal.SIGUSR1)


async def test_what_a_change_does_may_fail(root: Path, tmp_path: Path) -> None:
    (tmp_path / "pid").write_text("1")
    react = Reaction(("/nonexistent/command",), signal.SIGUSR1, str(tmp_path / "pid"))
    recorder = Recorder(ChainedBindings("web"))
    async with kept(recorder, root, react):
        await recorder.news.get()
        for number in (2, 3):
            recorder.chain.put("web", BindingState.ACTIVE, password=f"password {number}")
            said = [await recorder.news.get() for _ in range(3)]
            assert "could not be started" in said[0]
            assert "could not be told" in said[1]
        assert password(root) == "password 3"


async def test_a_command_that_hangs_is_ended(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sidecar, "COMMAND_SECONDS", 0.05)
    recorder = Recorder(ChainedBindings("web"))
    await sidecar.perform(Reaction(("/bin/sh", "-c", "exec sleep 600")), recorder)  # type: ignore[arg-type] # as above
    assert ["was ended after" in said for said in recorder.said] == [True]


async def test_it_goes_on_while_the_broker_is_away_and_while_it_refuses(root: Path) -> None:
    recorder = Recorder(ChainedBindings("web"))
    async with kept(recorder, root):
        await recorder.news.get()
        recorder.chain.away = errors.PermissionDeniedError("no")
        recorder.chain.cut(AWAY)
        assert "the broker is away" in await recorder.news.get()
        assert "no [PERMISSION_DENIED]" in await recorder.news.get()
        assert password(root) == "secret of web"
        recorder.chain.away = None
        recorder.chain.turn("web", "web-2")
        while await recorder.news.get() != "line":
            pass
        assert password(root) == "secret of web-2"


async def test_a_refusal_at_the_start_ends_it(root: Path) -> None:
    recorder = Recorder(ChainedBindings("web"))
    recorder.chain.away = errors.PermissionDeniedError("no")
    async with kept(recorder, root) as task:
        with pytest.raises(errors.PermissionDeniedError):
            await task


async def test_the_end_of_the_chain_ends_it_and_leaves_the_files(root: Path) -> None:
    recorder = Recorder(ChainedBindings("web"))
    async with kept(recorder, root) as task:
        await recorder.news.get()
        recorder.chain.put("web", BindingState.UNBINDING)
        with pytest.raises(errors.FailedPreconditionError):
            await task
    assert password(root) == "secret of web"


async def test_a_disk_that_is_full_is_waited_for(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder, failures = Recorder(ChainedBindings("web")), [OSError(28, "No space left on device")]
    write = bindingroot.write

    def full(*arguments: Any) -> str:
        if failures:
            raise failures.pop()
        return write(*arguments)

    monkeypatch.setattr(bindingroot, "write", full)
    async with kept(recorder, root):
        assert "trying again: No space left" in await recorder.news.get()
        await recorder.news.get()
        assert password(root) == "secret of web"


async def test_somebody_elses_folder_is_refused(root: Path) -> None:
    (root / "web").mkdir()
    recorder = Recorder(ChainedBindings("web"))
    async with kept(recorder, root) as task:
        with pytest.raises(errors.FailedPreconditionError, match="not written here"):
            await task


@pytest.mark.parametrize(
    ("command", "name", "pid_file"), [("'", "", ""), ("", "HUP", ""), ("", "", "/pid"), ("", "LOUD", "/pid")]
)
def test_a_reaction_that_makes_no_sense_is_refused(command: str, name: str, pid_file: str) -> None:
    with pytest.raises(typer.BadParameter):
        reaction(command, name, pid_file)
