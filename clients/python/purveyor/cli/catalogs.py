"""`purveyor catalog`: what can be ordered; and, for operators, how that changes. The latter go to the admin listener."""

# ruff: noqa: FBT002 - flags of the command line

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from purveyor.cli.exits import Exit
from purveyor.cli.operating import Admin, DryRun, Reason
from purveyor.cli.session import Session, command, fallback
from purveyor.errors import FailedPreconditionError

if TYPE_CHECKING:
    from purveyor.admin import AdminClient
    from purveyor.catalog_values import CatalogChange, CatalogCheck

MAX_BYTES = 1 << 20  # the broker takes no larger request
File = Annotated[str, typer.Argument(metavar="FILE", help="A catalog file (YAML); - is stdin.")]
Policies = Annotated[
    list[str] | None,
    typer.Option(
        "--policy",
        "-p",
        metavar="SERVICE/PLAN=WHAT",
        help="For a plan that is endangered, by ids: keep, or migrate:PLAN.",
        show_default=False,
    ),
]


def add(app: typer.Typer) -> None:
    """Register the commands of this module."""
    catalogs = typer.Typer(help="What can be ordered, and how that changes.")
    fallback(catalogs)(catalog)
    command(catalogs)(validate)
    command(catalogs)(diff)
    command(catalogs)(apply)
    command(catalogs)(history)
    command(catalogs)(show)
    app.add_typer(catalogs, name="catalog")


async def catalog(
    session: Session,
    watch: Annotated[
        bool,
        typer.Option(
            "--watch", "-w", help="Again whenever it has changed; with --json a line each.", show_default=False
        ),
    ] = False,
) -> None:
    """What can be ordered; for operators, how that changes."""
    from purveyor.cli import render  # noqa: PLC0415 - rich only where it is used

    async with session.client() as client:
        if watch:
            async for current in client.catalogs():
                session.say(f"catalog {current.version}")
                if session.json:
                    session.emit_line(current)
                else:
                    session.show(render.catalog(current))
            return
        found = await client.catalog()
    session.emit(found, lambda: render.catalog(found))


async def validate(
    session: Session,
    file: File,
    offline: Annotated[
        bool,
        typer.Option("--offline", help="Judged here, by the providers installed here; no broker.", show_default=False),
    ] = False,
    admin: Admin = None,
) -> None:
    """Judge a catalog file by all rules, those of the providers included."""
    from purveyor.cli import catalog_tables  # noqa: PLC0415 - rich only where it is used

    content = read(file)
    if offline:
        found = _judged_here(content, file)
    else:
        async with session.admin_client(admin) as broker:
            found = _placed(await broker.validate_catalog(content), file)
    session.emit(found, lambda: catalog_tables.check(found))
    if found.problems:
        raise typer.Exit(Exit.USAGE)


def _placed(found: CatalogCheck, file: str) -> CatalogCheck:
    """With the name of the file here: the broker was sent a text."""
    problems = tuple(replace(one, place=f"{file}{one.place.removeprefix('catalog')}") for one in found.problems)
    return replace(found, problems=problems)


def _judged_here(content: str, file: str) -> CatalogCheck:
    from purveyor.catalog_values import CatalogCheck, CatalogProblem  # noqa: PLC0415 - with --offline alone
    from purveyor.cli.serving import server_app  # noqa: PLC0415 - the server may not be installed

    problems, sha256, services, plans = server_app().judge_catalog(content.encode(), file)
    found = tuple(CatalogProblem(path=path, message=message, place=place) for path, message, place in problems)
    return CatalogCheck(problems=found, sha256=sha256, services=services, plans=plans)


async def diff(session: Session, file: File, policy: Policies = None, admin: Admin = None) -> None:
    """What a catalog file would change, how dangerous that is, and whom it concerns. Exit code 5 when it would be refused."""
    from purveyor.cli import catalog_tables  # noqa: PLC0415 - as above

    content = read(file)
    async with session.admin_client(admin) as broker:
        found = await broker.diff_catalog(content, policy or ())
    session.emit(found, lambda: catalog_tables.changes(found.changes))
    if found.refused:
        session.say(f"would be refused; {advice(found.changes)}")
        raise typer.Exit(Exit.REFUSED)


async def apply(
    session: Session,
    file: File,
    reason: Reason,
    policy: Policies = None,
    expect: Annotated[
        int,
        typer.Option("--expect", metavar="VERSION", help="Only while this one is served.", min=0, show_default=False),
    ] = 0,
    request_id: Annotated[
        str | None, typer.Option(metavar="ID", help="Send an earlier request again.", show_default=False)
    ] = None,
    validate_only: DryRun = False,
    admin: Admin = None,
) -> None:
    """Serve a catalog from now on, without a restart."""
    from purveyor.cli import catalog_tables  # noqa: PLC0415 - as above

    content = read(file)
    async with session.admin_client(admin) as broker:
        try:
            found = await broker.apply_catalog(
                content, reason,
                policies=policy or (), expected_version=expect, request_id=request_id, validate_only=validate_only,
            )  # fmt: skip
        except FailedPreconditionError:
            await _explain(session, broker, content, policy or [])
            raise
    session.emit(found, lambda: catalog_tables.changes(found.changes))
    if found.catalog is None:
        session.say("would be refused" if found.refused else "nothing was changed; this would be")
        if found.refused:
            raise typer.Exit(Exit.REFUSED)
        return
    again = " (it was applied before)" if found.replayed else ""
    session.say(f"catalog {found.catalog.version} is served{again}")
    for campaign_id in found.campaign_ids:
        session.say(f"instances are moved: purveyor campaign watch {campaign_id}")


async def _explain(session: Session, broker: AdminClient, content: str, policies: list[str]) -> None:
    """Whom a refused catalog concerns; an error carries only some of it."""
    from purveyor.cli import catalog_tables  # noqa: PLC0415 - as above

    if session.json:
        return
    found = await broker.diff_catalog(content, policies)
    session.show(catalog_tables.changes([change for change in found.changes if change.blocking]))
    session.say(advice(found.changes))


async def history(
    session: Session,
    limit: Annotated[int, typer.Option("--limit", "-n", metavar="N", help="The newest N.", min=1)] = 20,
    admin: Admin = None,
) -> None:
    """Which catalogs were applied: when, by whom, why; the newest first."""
    from purveyor.cli import catalog_tables  # noqa: PLC0415 - as above

    found = []
    async with session.admin_client(admin) as broker:
        async for version in broker.catalog_history(page_size=min(limit, 1000)):
            found.append(version)
            if len(found) >= limit:
                break
    session.emit(found, lambda: catalog_tables.versions(found))


async def show(
    session: Session,
    version: Annotated[int, typer.Argument(metavar="[VERSION]", help="Without one the newest.", min=0)] = 0,
    admin: Admin = None,
) -> None:
    """The text of a catalog, as it was applied."""
    async with session.admin_client(admin) as broker:
        found = await broker.catalog_text(version)
    if session.json:
        session.emit(found, "")
    else:
        session.write(found.text)


def read(file: str) -> str:
    """The text of a file. Raises typer.BadParameter."""
    try:
        if file == "-":
            content = sys.stdin.buffer.read(MAX_BYTES + 1)
        else:
            with Path(file).open("rb") as stream:
                content = stream.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise typer.BadParameter(f"{file}: larger than {MAX_BYTES} bytes", param_hint="FILE")
        return content.decode("utf-8-sig")
    except OSError as error:
        raise typer.BadParameter(f"{file}: {error.strerror or error}", param_hint="FILE") from error
    except UnicodeDecodeError as error:
        raise typer.BadParameter(f"{file}: is not UTF-8", param_hint="FILE") from error


def advice(changes: tuple[CatalogChange, ...]) -> str:
    """What can be done about what stands in the way."""
    plans = sorted(
        {plan for change in changes if change.blocking and change.level == "DANGEROUS" for plan in change.plans}
    )
    if not plans:
        return "no policy helps: mend the file"
    chosen = " ".join(f"--policy {plan}=keep" for plan in plans)
    return f"say what becomes of the instances: {chosen} (or migrate:PLAN)"
