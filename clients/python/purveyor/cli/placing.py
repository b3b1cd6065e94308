"""`purveyor context`: list, use, set and delete contexts; calls no broker."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from purveyor.cli import completing, contexts
from purveyor.cli.running import execute
from purveyor.cli.securing import TlsCa, TlsCertificate, TlsKey, TlsServerName, TokenFile
from purveyor.cli.session import AsJson, Globals, Session

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

Name = Annotated[
    str, typer.Argument(metavar="NAME", help="The context's name.", autocompletion=completing.context_names)
]


@dataclass(frozen=True)
class Listed:
    """A context as it is shown."""

    name: str
    address: str
    tenant: str
    admin: str
    current: bool
    tls: dict[str, str]


def add(app: typer.Typer) -> None:
    """Register the commands of this module."""
    group = typer.Typer(help="Brokers by name.", no_args_is_help=True)
    group.command("list")(list_all)
    group.command("use")(use)
    group.command("set")(set_one)
    group.command("delete")(delete)
    app.add_typer(group, name="context")


def list_all(context: typer.Context, json: AsJson = False) -> None:  # noqa: FBT002 - a flag
    """The contexts; `*` marks the current one."""

    async def work(session: Session) -> None:
        known = contexts.load()
        found = [
            Listed(
                name,
                entry.address,
                entry.tenant or contexts.DEFAULT_TENANT,
                entry.admin,
                name == known.current,
                contexts.tls_values(entry.tls) if entry.tls else {},
            )
            for name, entry in sorted(known.entries.items())
        ]
        session.emit(found, lambda: _table(found))

    _run(context, work, json=json)


def _table(found: list[Listed]) -> Any:
    from purveyor.cli import render  # noqa: PLC0415 - rich only where it is used

    rows = (
        ("*" if item.current else "", item.name, item.address, item.tenant, item.admin, _shown(item.tls))
        for item in found
    )
    return render.table(("", "NAME", "ADDRESS", "TENANT", "ADMIN", "TLS"), rows)


def _shown(tls: dict[str, str]) -> str:
    """Whether there is TLS, and with what of the client's own."""
    return (tls["certificate"] or "yes") if tls else ""


def use(context: typer.Context, name: Name, json: AsJson = False) -> None:  # noqa: FBT002 - a flag
    """Make a context the current one."""

    async def work(session: Session) -> None:
        with contexts.changing() as known:
            known.get(name)
            known.current = name
        session.say(f"the current context is {name}")

    _run(context, work, json=json)


def set_one(
    context: typer.Context,
    name: Name,
    address: Annotated[
        str | None,
        typer.Option("--address", "-a", metavar="ADDRESS", help="unix:/path or host:port.", show_default=False),
    ] = None,
    tenant: Annotated[str | None, typer.Option("--tenant", "-t", metavar="TENANT", show_default=False)] = None,
    admin: Annotated[
        str | None,
        typer.Option("--admin", metavar="ADDRESS", help="The admin listener, for operators.", show_default=False),
    ] = None,
    tls_ca: TlsCa = None,
    tls_certificate: TlsCertificate = None,
    tls_key: TlsKey = None,
    tls_server_name: TlsServerName = None,
    token_file: TokenFile = None,
    json: AsJson = False,  # noqa: FBT002 - a flag
) -> None:
    """Make or change a context; what is not given stays, what is given empty goes. The first one becomes the current one."""
    given = dict(zip(contexts.TLS_KEYS, (tls_ca, tls_certificate, tls_key, tls_server_name), strict=True))

    async def work(session: Session) -> None:
        with contexts.changing() as known:
            old = known.entries.get(name, contexts.Entry(""))
            tenant_kept, admin_kept = old.tenant if tenant is None else tenant, old.admin if admin is None else admin
            tls = contexts.changed_tls(old.tls, given)
            token = old.token_file if token_file is None else token_file
            entry = contexts.checked(name, address or old.address, tenant_kept, admin_kept, tls, token)
            known.current = known.current or name
            known.entries[name] = entry
            current = known.current
        session.say(f"{name}: {entry.address}; the current context is {current}")

    _run(context, work, json=json)


def delete(context: typer.Context, name: Name, json: AsJson = False) -> None:  # noqa: FBT002 - a flag
    """Forget a context. When it is the current one, there is none then."""

    async def work(session: Session) -> None:
        with contexts.changing() as known:
            known.get(name)
            del known.entries[name]
            known.current = "" if known.current == name else known.current
        session.say(f"{name} is forgotten")

    _run(context, work, json=json)


def _run(context: typer.Context, work: Callable[[Session], Awaitable[None]], *, json: bool) -> None:
    given = context.find_object(Globals) or Globals()
    execute(Session(None, contexts.DEFAULT_TENANT, json or given.json), work, {})
