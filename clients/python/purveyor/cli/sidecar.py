"""A binding's folder that is kept up to date beside an application.

Guarantee: the folder holds, whole at any moment (see `bindingroot`), the credentials of the newest binding of the chain that the
broker was last heard to have; it is written again only when they are others, and who uses it is told then, after the write. A broker
that is away, refuses the caller for a while or is not there at the start ends nothing: what was written stays, and it is asked
again. What a change does (a command, a signal) may fail or hang without holding up the next one for more than a minute.
Limit: once the chain has ended (unbound, expired, instance gone) this ends with the broker's refusal, and the files stay as they
are. Whoever reads the files must open them again after a change.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
from contextlib import aclosing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import typer

from purveyor.cli import bindingroot, projection
from purveyor.errors import PermissionDeniedError, PurveyorError
from purveyor.lifeline import Lifeline
from purveyor.live import LONGEST_REST_SECONDS, follow_credentials, mends_itself

if TYPE_CHECKING:
    from purveyor.cli.session import Session
    from purveyor.client import Client
    from purveyor.values import ActiveBinding

COMMAND_SECONDS = 60.0
WRITE_AGAIN_SECONDS = 5.0
MAX_PID_BYTES = 32


class Place(NamedTuple):
    """Which folder, with which entries beside the credentials; `kind` "" is the name of the service."""

    root: str
    name: str
    kind: str
    provider: str


class Reaction(NamedTuple):
    """What is done after a change: a command with its arguments, a signal to the process whose number is in a file."""

    command: tuple[str, ...] = ()
    signal: signal.Signals | None = None
    pid_file: str = ""


def reaction(on_change: str, signal_name: str, pid_file: str) -> Reaction:
    """The reaction that options describe. Raises typer.BadParameter."""
    if bool(signal_name) != bool(pid_file):
        raise typer.BadParameter("--signal and --pid-file go together", param_hint="--signal")
    try:
        command = tuple(shlex.split(on_change))
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--on-change") from None
    return Reaction(command, _signal(signal_name) if signal_name else None, pid_file)


def _signal(name: str) -> signal.Signals:
    wanted = name.upper().removeprefix("SIG")
    for known in signal.Signals:
        if known.name == f"SIG{wanted}":
            return known
    raise typer.BadParameter(f"{name!r} is no signal; mostly HUP or USR1", param_hint="--signal")


async def run(
    session: Session, instance_id: str, binding_id: str, place: Place, react: Reaction, *, keep_alive: bool = True
) -> None:
    """Keep the folder up to date until the chain ends or the process is told to stop; `keep_alive`: see `lifeline`."""
    owner = {"tenant": session.tenant, "instance": instance_id, "binding": binding_id}
    async with session.client() as client:
        keeper = _Keeper(session, client, place, owner, react)
        beside = asyncio.ensure_future(keeper.lifeline.run()) if keep_alive else None
        try:
            await _follow(keeper, instance_id, binding_id)
        finally:
            if beside is not None:
                beside.cancel()
                await asyncio.wait({beside})


async def _follow(keeper: _Keeper, instance_id: str, binding_id: str) -> None:
    while True:
        try:
            await keeper.follow(instance_id, binding_id)
        except PermissionDeniedError as failure:
            if not keeper.written:
                raise
            keeper.miss(failure)
            await asyncio.sleep(LONGEST_REST_SECONDS)


class _Keeper:
    """Writes what it is given, and tells who uses it."""

    def __init__(self, session: Session, client: Client, place: Place, owner: dict[str, str], react: Reaction) -> None:
        self._session = session
        self._client = client
        self._place = place
        self._owner = owner
        self._react = react
        self._missing = ""
        self.lifeline = Lifeline(client, self._prolonged)
        self.written = False

    def miss(self, failure: PurveyorError) -> None:
        """The broker is not heard: said once until it is heard again."""
        if self._missing != failure.name:
            self._session.say(f"the broker is away, going on with what there is: {failure}")
        self._missing = failure.name

    def _prolonged(self, failure: PurveyorError | None) -> None:
        if failure is not None:
            self._session.say(f"the binding could not be kept alive, trying again: {failure}")

    async def follow(self, instance_id: str, binding_id: str) -> None:
        """Write each change. Raises what `follow_credentials` raises."""
        async with aclosing(follow_credentials(self._client, instance_id, binding_id, self.miss)) as found:
            async for live in found:
                self._missing = ""
                self.lifeline.hold(live)
                await self._take(live)

    async def _take(self, live: ActiveBinding) -> None:
        place = self._place
        kind = place.kind or await self._service_name(live.instance_id)
        entries = projection.entries(live.credentials.reveal(), kind, place.provider)
        before = await asyncio.to_thread(bindingroot.held, place.root, place.name)
        if before != entries:
            await self._write(entries)
        self.written = True
        if before is not None and before != entries:
            await perform(self._react, self._session)
        self._tell(live, changed=before != entries)

    async def _service_name(self, instance_id: str) -> str:
        """What the entry `type` says: asked until it is known, for the folder is nothing without it."""
        while True:
            try:
                found = await self._client.instance(instance_id)
            except PurveyorError as failure:
                if not mends_itself(failure):
                    raise
                self.miss(failure)
                await asyncio.sleep(WRITE_AGAIN_SECONDS)
            else:
                return found.service_name or found.service_id

    async def _write(self, entries: dict[str, bytes]) -> None:
        """A full disk passes: what is there stays, and it is tried again. What the folder's rules refuse is raised at once."""
        place = self._place
        while True:
            try:
                await asyncio.to_thread(bindingroot.write, place.root, place.name, entries, self._owner)
            except OSError as error:
                self._session.say(f"{place.root}/{place.name} could not be written, trying again: {error.strerror}")
                await asyncio.sleep(WRITE_AGAIN_SECONDS)
            else:
                return

    def _tell(self, live: ActiveBinding, *, changed: bool) -> None:
        folder = str(Path(self._place.root) / self._place.name)
        if self._session.json:
            told = {
                "folder": folder,
                "binding_id": live.binding_id,
                "expire_time": live.expire_time,
                "changed": changed,
            }
            self._session.emit_line(told)
            return
        until = f", until {live.expire_time:%Y-%m-%d %H:%M:%S} UTC" if live.expire_time else ""
        self._session.say(f"{folder}: {live.binding_id}{until}" + ("" if changed else " (as it was)"))


async def perform(react: Reaction, session: Session) -> None:
    """Do what is to be done after a change; a failure is said, never raised."""
    if react.command:
        await _run(react.command, session)
    if react.signal is not None:
        try:
            os.kill(_pid(react.pid_file), react.signal)
        except (OSError, ValueError) as error:
            session.say(f"the process of {react.pid_file} could not be told: {error}")


def _pid(path: str) -> int:
    with Path(path).open("rb") as file:
        number = int(file.read(MAX_PID_BYTES))
    if number <= 1:
        raise ValueError(f"{number} is not the number of an application")
    return number


async def _run(command: tuple[str, ...], session: Session) -> None:
    try:
        process = await asyncio.create_subprocess_exec(*command, stdin=asyncio.subprocess.DEVNULL)
    except OSError as error:
        session.say(f"{command[0]} could not be started: {error.strerror}")
        return
    try:
        async with asyncio.timeout(COMMAND_SECONDS):
            code = await process.wait()
    except TimeoutError:
        session.say(f"{command[0]} was ended after {COMMAND_SECONDS:.0f} s")
        code = 0
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    if code != 0:
        session.say(f"{command[0]} ended with {code}")
