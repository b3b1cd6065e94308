"""One run of a command: where to call, how to speak, and how failures become words and exit codes.

Guarantee: a failure prints its message, reason and violations, never a traceback of the library's own errors.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, Concatenate, ParamSpec, get_type_hints

import typer

from purveyor.cli.documents import failure_document, text
from purveyor.cli.exits import Exit, code_of
from purveyor.errors import DeadlineExceededError, PurveyorError, UnavailableError

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from purveyor.client import Client

P = ParamSpec("P")
RETRY_SECONDS = 3.0  # a person waits: shorter than the library's own
WIDTH_OF_A_PIPE = 240

Address = Annotated[
    str | None, typer.Option("--address", "-a", help="unix:/path or host:port.", metavar="ADDRESS", show_default=False)
]
Tenant = Annotated[str | None, typer.Option("--tenant", "-t", metavar="TENANT", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="JSON on stdout.", show_default=False)]


@dataclass(frozen=True)
class Globals:
    """What was given before the command's name."""

    address: str | None = None
    tenant: str = "default"
    json: bool = False


@dataclass(frozen=True)
class Session:
    """What a command gets: `client()` to call with, `say` for people, `emit` for the result."""

    address: str | None
    tenant: str
    json: bool

    def client(self) -> Client:
        """A client to open with `async with`."""
        os.environ.setdefault("GRPC_VERBOSITY", "ERROR")  # a restarting broker is shown by us, not by gRPC's own log
        from purveyor.client import Client  # noqa: PLC0415 - gRPC is loaded by commands that call, not by --help

        return Client(self.address, tenant=self.tenant, retry_for=RETRY_SECONDS)

    @cached_property
    def out(self) -> Console:
        """Stdout, wide enough for whole rows when it is not a terminal."""
        return console(sys.stdout)

    @cached_property
    def err(self) -> Console:
        """Stderr."""
        return console(sys.stderr)

    def emit(self, value: Any, shown: RenderableType | Callable[[], RenderableType]) -> None:
        """The result: `value` as JSON, or `shown` for people."""
        if self.json:
            sys.stdout.write(text(value) + "\n")
        else:
            self.show(shown() if callable(shown) else shown)

    def show(self, shown: RenderableType) -> None:
        """Something for people on stdout; without trailing blanks where it is not a terminal."""
        if self.out.is_terminal:
            self.out.print(shown)
            return
        with self.out.capture() as captured:
            self.out.print(shown)
        sys.stdout.write("".join(f"{line.rstrip()}\n" for line in captured.get().splitlines()))

    def emit_line(self, value: Any) -> None:
        """One item of a stream as one line of JSON."""
        sys.stdout.write(text(value, indent=None) + "\n")
        sys.stdout.flush()

    def say(self, message: str) -> None:
        """A remark on stderr; silent with --json."""
        if not self.json:
            self.err.print(message)


def console(stream: Any) -> Console:
    """A rich console that takes no markup from data."""
    from rich.console import Console  # noqa: PLC0415 - not needed for JSON

    width = None if stream.isatty() else WIDTH_OF_A_PIPE
    return Console(file=stream, markup=False, highlight=False, emoji=False, width=width)


def command(
    app: typer.Typer, name: str | None = None
) -> Callable[[Callable[Concatenate[Session, P], Awaitable[None]]], Callable[Concatenate[Session, P], Awaitable[None]]]:
    """Register an async function as a command: its first argument is the session, --address, --tenant, --json are added."""

    def register(
        function: Callable[Concatenate[Session, P], Awaitable[None]],
    ) -> Callable[Concatenate[Session, P], Awaitable[None]]:
        app.command(name or function.__name__)(_entry(function))
        return function

    return register


def _entry(function: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """What typer calls: a plain function with the session's options in its signature."""

    def run(context: typer.Context, address: str | None, tenant: str | None, json: bool, **arguments: Any) -> None:  # noqa: FBT001 - typer calls by name
        given = context.find_object(Globals) or Globals()
        session = Session(address or given.address, tenant or given.tenant, json or given.json)
        execute(session, function, arguments)

    hints = get_type_hints(function, include_extras=True)
    _, *own = inspect.signature(function).parameters.values()
    keyword = inspect.Parameter.KEYWORD_ONLY
    added = [
        inspect.Parameter("context", keyword, annotation=typer.Context),
        inspect.Parameter("address", keyword, annotation=Address, default=None),
        inspect.Parameter("tenant", keyword, annotation=Tenant, default=None),
        inspect.Parameter("json", keyword, annotation=AsJson, default=False),
    ]
    parameters = [parameter.replace(kind=keyword, annotation=hints[parameter.name]) for parameter in own]
    run.__doc__ = function.__doc__
    run.__name__ = function.__name__
    run.__signature__ = inspect.Signature([*parameters, *added])  # type: ignore[attr-defined] # what inspect.signature reads
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in (*parameters, *added)}
    return run


def execute(session: Session, function: Callable[..., Awaitable[None]], arguments: dict[str, Any]) -> None:
    """Run a command to its end. Raises typer.Exit with the code of a failure."""

    async def whole() -> None:
        await function(session, **arguments)

    try:
        asyncio.run(whole())
    except PurveyorError as error:
        raise typer.Exit(report(session, error)) from error
    except TimeoutError as error:
        session.err.print("not finished in time; the operation goes on: see `purveyor operations`")
        raise typer.Exit(Exit.TIMED_OUT) from error
    except KeyboardInterrupt as error:
        session.err.print("interrupted; an accepted operation goes on: see `purveyor operations`")
        raise typer.Exit(Exit.INTERRUPTED) from error


def report(session: Session, error: PurveyorError) -> Exit:
    """Print a failure on stderr. Returns its exit code."""
    code = code_of(error)
    if session.json:
        sys.stderr.write(text(failure_document(error, code)) + "\n")
        return code
    session.err.print(f"error: {error}")
    for violation in error.violations:
        session.err.print(f"  {violation.field}: {violation.description}")
    if isinstance(error, UnavailableError | DeadlineExceededError) and error.request_id:
        session.err.print(f"  to send the same request again: --request-id {error.request_id} and the same arguments")
    return code
