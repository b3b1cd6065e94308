"""One run of a command: where to call, and how to speak.

Guarantee: what is shown on a terminal is whole: an id, a URI or a password that is copied from there is not cut or folded.
"""

from __future__ import annotations

import functools
import inspect
import io
import os
import re
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Any, Concatenate, ParamSpec, get_type_hints

import typer

from purveyor.cli import completing, contexts
from purveyor.cli.documents import text
from purveyor.cli.exits import code_of
from purveyor.cli.running import execute, report
from purveyor.cli.words import clean, tell
from purveyor.errors import PurveyorError

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from purveyor.admin import AdminClient
    from purveyor.client import Client
    from purveyor.operations import OperationHandle
    from purveyor.tls import Tls

P = ParamSpec("P")
RETRY_SECONDS = 3.0  # a person waits: shorter than the library's own
WIDEST = 10_000  # a terminal folds a longer line by itself, and a copy of it stays whole
_BLANKS = re.compile(r" +((?:\x1b\[[0-9;]*m)*)$")  # rich fills columns up, inside their colours
_KEPT = r"\1"

Address = Annotated[
    str | None, typer.Option("--address", "-a", help="unix:/path or host:port.", metavar="ADDRESS", show_default=False)
]
Tenant = Annotated[str | None, typer.Option("--tenant", "-t", metavar="TENANT", show_default=False)]
ContextName = Annotated[
    str | None,
    typer.Option(
        "--context",
        metavar="NAME",
        help="A broker by name; see `purveyor context`. [env var: PURVEYOR_CONTEXT]",
        show_default=False,
        autocompletion=completing.context_names,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="JSON on stdout.", show_default=False)]


@dataclass(frozen=True)
class Globals:
    """What was given before the command's name."""

    address: str | None = None
    tenant: str | None = None
    json: bool = False
    context: str | None = None
    tls: Tls | None = None
    token_file: str | None = None


@dataclass
class Trace:
    """How far a command got, for its failure: the id that was made, the operation that is waited for."""

    made_id: str = ""
    handle: OperationHandle[Any] | None = None


@dataclass(frozen=True)
class Session:
    """What a command gets: `client()` to call with, `say` for people, `emit` for the result."""

    address: str | None
    tenant: str
    json: bool
    trace: Trace = field(default_factory=Trace)
    place: contexts.Place = contexts.NOWHERE

    def client(self) -> Client:
        """A client to open with `async with`."""
        os.environ.setdefault("GRPC_VERBOSITY", "ERROR")  # a restarting broker is shown by us, not by gRPC's own log
        from purveyor.client import Client  # noqa: PLC0415 - gRPC is loaded by commands that call, not by --help

        place = self.place
        return Client(
            self.address, tenant=self.tenant, tls=place.tls, token_file=place.token_file, retry_for=RETRY_SECONDS
        )

    def admin_client(self, address: str | None, retry_for: float = RETRY_SECONDS) -> AdminClient:
        """The same for operators: `address`, else the context's. Raises InvalidRequestError when the context has none."""
        os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
        from purveyor.admin import AdminClient  # noqa: PLC0415 - as above

        tls = contexts.admin_tls(address, self.place)
        found = contexts.admin_address(address, self.place)
        return AdminClient(found, tls=tls, token_file=contexts.admin_token(address, self.place), retry_for=retry_for)

    def emit(self, value: Any, shown: RenderableType | Callable[[], RenderableType]) -> None:
        """The result: `value` as JSON, or `shown` for people."""
        if self.json:
            self.write(text(value, ascii_only=not writes_unicode()) + "\n")
        else:
            self.show(shown() if callable(shown) else shown)

    def show(self, shown: RenderableType) -> None:
        """Something for people on stdout: never cut to the width of a terminal, without trailing blanks."""
        buffer = io.StringIO()
        console(buffer, terminal=sys.stdout.isatty(), width=WIDEST).print(shown)
        plain = "".join(f"{_BLANKS.sub(_KEPT, line)}\n" for line in buffer.getvalue().splitlines())
        coding = sys.stdout.encoding or "utf-8"
        self.write(plain.encode(coding, "replace").decode(coding))

    def emit_line(self, value: Any) -> None:
        """One item of a stream as one line of JSON."""
        self.write(text(value, indent=None, ascii_only=not writes_unicode()) + "\n")

    def write(self, content: str) -> None:
        """Text on stdout, as it is, at once. Raises OSError, and UnicodeEncodeError where it has no letters for it."""
        sys.stdout.write(content)
        sys.stdout.flush()

    def say(self, message: str) -> None:
        """A remark on stderr; silent with --json."""
        if not self.json:
            tell(clean(message))


def writes_unicode() -> bool:
    """Whether stdout takes every letter."""
    return (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"


def console(stream: Any, *, terminal: bool | None = None, width: int | None = None) -> Console:
    """A rich console that takes no markup from data; by default as wide as the stream's terminal."""
    from rich.console import Console  # noqa: PLC0415 - not needed for JSON

    return Console(file=stream, markup=False, highlight=False, emoji=False, force_terminal=terminal, width=width)


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


def fallback(
    app: typer.Typer,
) -> Callable[[Callable[Concatenate[Session, P], Awaitable[None]]], Callable[Concatenate[Session, P], Awaitable[None]]]:
    """Register an async function as what a group does without a command; the session's options before a command count for it."""

    def register(
        function: Callable[Concatenate[Session, P], Awaitable[None]],
    ) -> Callable[Concatenate[Session, P], Awaitable[None]]:
        entry = _entry(function)

        @functools.wraps(entry)
        def run(ctx: typer.Context, **arguments: Any) -> None:
            if ctx.invoked_subcommand is None:
                entry(ctx=ctx, **arguments)
                return
            given = ctx.find_object(Globals) or Globals()
            own = {name: arguments[name] for name in ("address", "tenant", "context", "json") if arguments[name]}
            ctx.obj = replace(given, **own)

        app.callback(invoke_without_command=True)(run)
        return function

    return register


def _entry(function: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """What typer calls: a plain function with the session's options in its signature."""

    def run(ctx: typer.Context, **arguments: Any) -> None:
        execute(_session(ctx, arguments), function, arguments)

    hints = get_type_hints(function, include_extras=True)
    _, *own = inspect.signature(function).parameters.values()
    keyword = inspect.Parameter.KEYWORD_ONLY
    added = [
        inspect.Parameter("ctx", keyword, annotation=typer.Context),
        inspect.Parameter("address", keyword, annotation=Address, default=None),
        inspect.Parameter("tenant", keyword, annotation=Tenant, default=None),
        inspect.Parameter("context", keyword, annotation=ContextName, default=None),
        inspect.Parameter("json", keyword, annotation=AsJson, default=False),
    ]
    parameters = [parameter.replace(kind=keyword, annotation=hints[parameter.name]) for parameter in own]
    run.__doc__ = function.__doc__
    run.__name__ = function.__name__
    run.__signature__ = inspect.Signature([*parameters, *added])  # type: ignore[attr-defined] # what inspect.signature reads
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in (*parameters, *added)}
    return run


def _session(ctx: typer.Context, arguments: dict[str, Any]) -> Session:
    """The session of a command, whose own options are taken out of its arguments. Raises typer.Exit as `execute` does."""
    given = ctx.find_object(Globals) or Globals()
    address, tenant, context = (
        arguments.pop(name) or getattr(given, name) for name in ("address", "tenant", "context")
    )
    json = arguments.pop("json") or given.json
    try:
        place = contexts.choose(address, tenant, context, given.tls, given.token_file)
    except PurveyorError as error:
        raise typer.Exit(report(Session(None, "", json), error, code_of(error))) from error
    session = Session(place.address, place.tenant, json, place=place)
    if address and context:
        session.say(f"the address {address} goes before the context {context}")
    return session
