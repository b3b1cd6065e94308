"""Running a command to its end, and how failures become words and exit codes.

Guarantee: a failure prints its message, reason and violations, or with `--json` one document, and never a traceback; each
kind has its exit code, so that 1 always means that the operation failed.
Limit: PURVEYOR_TRACEBACK=1 shows where a defect of the command line itself came from; that text may hold arguments.
"""

from __future__ import annotations

import asyncio
import os
import signal
import traceback
from typing import TYPE_CHECKING, Any

import typer

from purveyor.cli.documents import document, failure_document, text
from purveyor.cli.exits import Exit, code_of
from purveyor.cli.words import clean_lines, drop_output, tell
from purveyor.errors import DeadlineExceededError, PurveyorError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from purveyor.cli.session import Session

TRACEBACK_VARIABLE = "PURVEYOR_TRACEBACK"
_TELLING_NOTHING = frozenset({"CANCELLED", "UNKNOWN"})  # codes that stand for what the message says
ENDING_SIGNALS = (signal.SIGTERM, signal.SIGHUP)


def execute(session: Session, function: Callable[..., Awaitable[None]], arguments: dict[str, Any]) -> None:
    """Run a command to its end. Raises typer.Exit with the code of a failure, typer.TyperException for wrong use."""

    async def whole() -> None:
        task = asyncio.ensure_future(function(session, **arguments))
        ended = _listen(task)
        await asyncio.wait((task,))
        if task.cancelled():
            raise typer.Exit(_interrupted(session, 128 + ended[0] if ended else Exit.INTERRUPTED))
        task.result()

    try:
        asyncio.run(whole())
    except (typer.Exit, typer.TyperException):
        raise
    except KeyboardInterrupt as error:
        raise typer.Exit(_interrupted(session, Exit.INTERRUPTED)) from error
    except Exception as error:
        raise typer.Exit(_failed(session, error)) from error


def _listen(task: asyncio.Future[None]) -> list[signal.Signals]:
    """End the task in order at SIGTERM and SIGHUP: a progress bar gives the cursor back. Returns which came."""
    ended: list[signal.Signals] = []

    def end(number: signal.Signals) -> None:
        ended.append(number)
        task.cancel()

    for number in ENDING_SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup
            asyncio.get_running_loop().add_signal_handler(number, end, number)
    return ended


def _failed(session: Session, error: Exception) -> int:
    """Tell what happened. Returns the exit code."""
    match error:
        case PurveyorError():
            return report(session, error, code_of(error))
        case TimeoutError():
            return report(session, DeadlineExceededError("not finished in time"), Exit.TIMED_OUT)
        case BrokenPipeError():
            drop_output()
            return Exit.READER_GONE
        case UnicodeEncodeError():
            drop_output()
            message = f"stdout is {error.encoding}, which cannot hold the result: set PYTHONUTF8=1"
            return report(session, PurveyorError(message), Exit.OUTPUT)
        case OSError():
            drop_output()
            message = f"the result could not be written: {error.strerror or type(error).__name__}"
            return report(session, PurveyorError(message), Exit.OUTPUT)
    if os.environ.get(TRACEBACK_VARIABLE):
        traceback.print_exception(error)
    message = f"a defect of the command line ({type(error).__name__}): {TRACEBACK_VARIABLE}=1 shows where"
    return report(session, PurveyorError(message), Exit.DEFECT)


def _interrupted(session: Session, code: int) -> int:
    return report(session, PurveyorError("interrupted", code="CANCELLED"), code)


def report(session: Session, error: PurveyorError, code: int) -> int:
    """Print a failure on stderr. Returns its exit code."""
    if session.json:
        tell(text(_document(session, error, code), ascii_only=True))
        return code
    name = "" if error.name in _TELLING_NOTHING else f" [{error.name}]"
    tell(f"error: {clean_lines(error.message)}{name}")
    for violation in error.violations:
        line = f"{violation.field}: {violation.description}"
        if error.message not in {line, violation.description}:
            tell(f"  {clean_lines(line)}")
    if isinstance(error, UnavailableError | DeadlineExceededError) and error.request_id:
        tell(f"  to send the same request again: --request-id {error.request_id} and the same arguments")
    handle = session.trace.handle
    if handle and handle.id and not handle.done:
        tell(f"  the operation goes on: purveyor watch {handle.id}")
    return code


def _document(session: Session, error: PurveyorError, code: int) -> dict[str, Any]:
    """A failure, with what was accepted before it: enough to ask again."""
    found = failure_document(error, code)
    if session.trace.made_id:
        found["error"]["made_id"] = session.trace.made_id
    if session.trace.handle:
        found["error"].setdefault("operation", document(session.trace.handle.status))
    return found
