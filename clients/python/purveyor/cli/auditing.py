"""`purveyor audit`: who did what; whether the records are what was written; the records as JSON lines."""

# ruff: noqa: FBT002 - flags of the command line

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from purveyor.cli.exits import Exit
from purveyor.cli.operating import Admin
from purveyor.cli.serving import ConfigFile, server_app
from purveyor.cli.session import Session, command

if TYPE_CHECKING:
    from purveyor.admin_values import AuditAnchor

TIMES = ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S%z"]
_ANCHOR = re.compile(r"([1-9][0-9]{0,17}):([0-9a-f]{64})")
Since = Annotated[
    datetime | None, typer.Option(formats=TIMES, help="From here on; a day is one of UTC.", show_default=False)
]
Until = Annotated[
    datetime | None, typer.Option(formats=TIMES, help="Before this; a day is one of UTC.", show_default=False)
]
Anchors = Annotated[
    list[str] | None,
    typer.Option(
        "--anchor", metavar="NUMBER:CHAIN", help="Kept from an earlier verification or the log.", show_default=False
    ),
]
Backup = Annotated[Path, typer.Argument(metavar="FILE", help="Made by `purveyor backup`.")]
DataDir = Annotated[
    Path | None, typer.Option(metavar="FOLDER", help="Where the broker keeps its things.", show_default=False)
]
Dev = Annotated[bool, typer.Option("--dev", help="The keys of `serve --dev`.", show_default=False)]


class _ListByDefault(TyperGroup):
    """A group whose command `list` need not be said."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or (args[0] not in self.commands and args[0] not in {"--help", "-h"}):
            args = ["list", *args]
        return super().parse_args(ctx, args)


def add(app: typer.Typer) -> None:
    """Register the commands of this module."""
    audit = typer.Typer(help="Who did what; `purveyor audit` alone lists the newest records.", cls=_ListByDefault)
    command(audit, "list")(list_records)
    command(audit)(verify)
    command(audit)(export)
    audit.command("verify-backup")(verify_backup)
    audit.command("verify-export")(verify_export)
    audit.command("keys")(keys)
    app.add_typer(audit, name="audit")


async def list_records(
    session: Session,
    limit: Annotated[int, typer.Option(help="How many, newest first.", min=1)] = 50,
    filter_: Annotated[
        str,
        typer.Option("--filter", metavar="TEXT", help='As `outcome = DENIED AND tenant = "a"`.', show_default=False),
    ] = "",
    since: Since = None,
    until: Until = None,
    admin: Admin = None,
) -> None:
    """Who did what, newest first."""
    from purveyor.auditing import conditions  # noqa: PLC0415 - gRPC is loaded by commands that call
    from purveyor.cli import operator_tables  # noqa: PLC0415 - rich only where it is used

    found = []
    where = conditions(filter_, _aware(since), _aware(until))
    async with session.admin_client(admin) as broker:
        async for record in broker.audit(filter=where, page_size=min(limit, 100)):
            found.append(record)
            if len(found) >= limit:
                break
    session.emit(found, lambda: operator_tables.records(found))


async def verify(session: Session, anchor: Anchors = None, admin: Admin = None) -> None:
    """Whether the records are those that were written; ends with 1 when they are not."""
    from purveyor.cli import operator_tables  # noqa: PLC0415 - rich only where it is used

    last = None
    async with session.admin_client(admin) as broker:
        async for last in broker.verify_audit(_anchors(anchor)):
            if not last.done:
                session.say(f"{last.checked} records verified")
    assert last is not None, "a verification says at least that it is done"
    before = f", {last.before_chain} of them older than the chain" if last.before_chain else ""
    words = f"{last.checked} records from number {last.first_number} on are what was written{before}"
    session.emit(last, words if not last.faults else lambda: operator_tables.findings(last.findings))
    session.say(f"keep elsewhere: --anchor {last.last.number}:{last.last.chain}")
    if last.faults:
        session.say(f"{last.faults} faults in {last.checked} records")
        raise typer.Exit(Exit.OPERATION_FAILED)


async def export(session: Session, since: Since = None, until: Until = None, admin: Admin = None) -> None:
    """The records as JSON lines, oldest first, each with its place in the chain."""
    from purveyor.auditing import conditions, export_line  # noqa: PLC0415 - as above

    where = conditions("", _aware(since), _aware(until))
    async with session.admin_client(admin) as broker:
        async for record in broker.audit(filter=where, oldest_first=True, page_size=1000):
            session.write(export_line(record) + "\n")


def verify_backup(
    file: Backup, anchor: Anchors = None, config: ConfigFile = None, dev: Dev = False, data_dir: DataDir = None
) -> None:
    """The same for the records in a backup, with the broker's key file and without the broker."""
    raise typer.Exit(server_app().verify_backup_command(file, _pairs(anchor), config, dev, data_dir))


def verify_export(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Made by `purveyor audit export`.")],
    key_file: Annotated[Path, typer.Option("--keys", metavar="FILE", help="Made by `purveyor audit keys`.")],
    anchor: Anchors = None,
) -> None:
    """The same for exported lines, with the keys of the records alone."""
    raise typer.Exit(server_app().verify_export_command(file, key_file, _pairs(anchor)))


def keys(file: Backup, config: ConfigFile = None, dev: Dev = False, data_dir: DataDir = None) -> None:
    """Print the keys that chain the records in a backup. WHO HAS THEM CAN FORGE RECORDS: for whom you trust."""
    raise typer.Exit(server_app().audit_keys_command(file, config, dev, data_dir))


def _aware(given: datetime | None) -> datetime | None:
    if given is None or given.tzinfo is not None:
        return given
    return given.replace(tzinfo=UTC)


def _pairs(given: list[str] | None) -> dict[int, bytes]:
    """Anchors by number. Raises typer.BadParameter."""
    found = {}
    for text in given or ():
        match = _ANCHOR.fullmatch(text)
        if match is None:
            raise typer.BadParameter("give NUMBER:CHAIN as `purveyor audit verify` printed it", param_hint="--anchor")
        found[int(match[1])] = bytes.fromhex(match[2])
    return found


def _anchors(given: list[str] | None) -> list[AuditAnchor]:
    from purveyor.admin_values import AuditAnchor  # noqa: PLC0415 - only where it is used

    return [AuditAnchor(number=number, chain=chain.hex()) for number, chain in _pairs(given).items()]
