"""`purveyor token`: static tokens, by the admin listener; the first one of a broker also with the broker stopped."""

# ruff: noqa: FBT002 - flags of the command line

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from purveyor.cli.arguments import duration
from purveyor.cli.operating import Admin, DryRun, Reason
from purveyor.cli.serving import ConfigFile, server_app
from purveyor.cli.session import Session, command
from purveyor.errors import InvalidRequestError, Violation

TokenId = Annotated[str, typer.Argument(metavar="ID", help="As `purveyor token list` shows it.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="What it is for: its holder is token:NAME.")]
RoleNames = Annotated[
    list[str], typer.Option("--role", metavar="ROLE", help="A role of its holder, once or more: viewer, consumer, ...")
]
Tenants = Annotated[
    list[str] | None, typer.Option("--in", metavar="TENANT", help="Where, once or more.", show_default=False)
]
Everywhere = Annotated[bool, typer.Option("--every-tenant", help="In every tenant.", show_default=False)]
Expires = Annotated[
    str | None, typer.Option("--expires", metavar="DURATION", help="After 90d, 12h, ...; never without.")
]
Out = Annotated[
    Path | None, typer.Option("--out", metavar="FILE", help="A new file for the token, 0600.", show_default=False)
]


def add(app: typer.Typer) -> None:
    """Register the commands of this module."""
    group = typer.Typer(help="Static tokens: who may call, and what.", no_args_is_help=True)
    command(group)(create)
    command(group, "list")(list_tokens)
    command(group)(revoke)
    app.add_typer(group, name="token")


async def create(
    session: Session,
    name: Name,
    roles: RoleNames,
    reason: Reason,
    tenants: Tenants = None,
    everywhere: Everywhere = False,
    expires: Expires = None,
    out: Out = None,
    config: ConfigFile = None,
    data_dir: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="With the broker stopped: its folder.", show_default=False)
    ] = None,
    validate_only: DryRun = False,
    admin: Admin = None,
) -> None:
    """Make a token; it is shown once. With --config or --data-dir: in the store of a broker that does not run."""
    ttl = duration(expires, "--expires")
    where = tuple(tenants or ())
    if config is not None or data_dir is not None:
        short = tuple(role.upper().replace("-", "_") for role in roles)
        make = server_app().create_token_command  # it runs an event loop of its own
        code, text = await asyncio.to_thread(make, name, short, where, everywhere, ttl, reason, config, data_dir)
        if code:
            raise typer.Exit(code)
        _hand_over(session, {"name": name, "text": text}, text, out)
        return
    async with session.admin_client(admin) as broker:
        made = await broker.create_token(
            name, roles, reason, tenants=where, every_tenant=everywhere, ttl=ttl, validate_only=validate_only
        )
    if validate_only:
        session.emit(made.token, f"would be made: {made.token.name}")
        return
    _hand_over(session, made, made.text, out)


def _hand_over(session: Session, value: object, text: str, out: Path | None) -> None:
    if out is None:
        session.emit(value, text)
        session.say("keep it: it is not shown again")
        return
    try:
        number = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        sys.stdout.write(f"{text}\n")  # it is made, and this is the only chance to have it
        text_of = f"{out}: {error.strerror}; the token is on stdout"
        raise InvalidRequestError(f"out: {text_of}", violations=(Violation("out", text_of),)) from error
    with os.fdopen(number, "w", encoding="ascii") as stream:
        stream.write(f"{text}\n")
    session.emit({"file": str(out)}, f"written to {out}")


async def list_tokens(session: Session, admin: Admin = None) -> None:
    """Every token, revoked and expired ones too, without what is secret."""
    from purveyor.cli import operator_tables  # noqa: PLC0415 - rich only where it is used

    async with session.admin_client(admin) as broker:
        found = [token async for token in broker.tokens()]
    session.emit(found, lambda: operator_tables.tokens(found))


async def revoke(
    session: Session, token_id: TokenId, reason: Reason, validate_only: DryRun = False, admin: Admin = None
) -> None:
    """Take a token back: its next call is refused, its open streams end."""
    async with session.admin_client(admin) as broker:
        found = await broker.revoke_token(token_id, reason, validate_only=validate_only)
    session.emit(found, f"{'would be ' if validate_only else ''}revoked: {found.name} ({found.token_id})")
