"""`purveyor campaign`: every instance of a plan is moved or upgraded, a few at a time. It goes to the admin listener."""

# ruff: noqa: FBT002 - flags of the command line

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from purveyor.cli import named
from purveyor.cli.exits import Exit
from purveyor.cli.operating import Admin, DryRun, Reason
from purveyor.cli.session import Session, command, fallback

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from purveyor.campaign_values import Campaign

CampaignId = Annotated[str, typer.Argument(metavar="CAMPAIGN")]
Follow = Annotated[bool, typer.Option("--watch", "-w", help="Show it to its end.", show_default=False)]


def add(app: typer.Typer) -> None:
    """Register the commands of this module."""
    campaigns = typer.Typer(
        help="Move or upgrade every instance of a plan, a few at a time; without a command, which there are."
    )
    fallback(campaigns)(list_campaigns)
    command(campaigns)(start)
    command(campaigns, "list")(list_campaigns)
    command(campaigns)(show)
    command(campaigns)(items)
    command(campaigns)(watch)
    command(campaigns)(pause)
    command(campaigns)(resume)
    command(campaigns)(abort)
    command(campaigns)(retry)
    app.add_typer(campaigns, name="campaign")


async def start(
    session: Session,
    plan: Annotated[str, typer.Argument(metavar="SERVICE/PLAN", help="Whose instances; by names or ids.")],
    to: Annotated[
        str, typer.Option(metavar="PLAN", help="The plan that they get; name or id.", show_default=False)
    ] = "",
    upgrade: Annotated[
        bool,
        typer.Option("--upgrade", help="They keep their plan and get its maintenance version.", show_default=False),
    ] = False,
    of_tenant: Annotated[str, typer.Option(metavar="TENANT", help="Of one tenant alone.", show_default=False)] = "",
    canary: Annotated[
        int | None,
        typer.Option(min=0, help="So many first, which must all succeed; without it one.", show_default=False),
    ] = None,
    batch: Annotated[int, typer.Option(min=0, help="So many, then the next batch; 0: one batch.")] = 0,
    parallel: Annotated[int, typer.Option(help="At most so many at once.")] = 4,
    max_failures: Annotated[int, typer.Option(min=0, help="It pauses itself when more than this fail.")] = 0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would become of each instance.", show_default=False)
    ] = False,
    reason: Annotated[
        str,
        typer.Option("--reason", "-r", metavar="TEXT", help="Why; it stays in the audit record.", show_default=False),
    ] = "",
    follow: Follow = False,
    admin: Admin = None,
) -> None:
    """Move every instance of a plan to another one (--to), or upgrade them all (--upgrade)."""
    from purveyor.cli import campaign_view  # noqa: PLC0415 - rich only where it is used

    service, name = named.split(plan)
    if bool(to) == upgrade:
        raise typer.BadParameter("give a plan to move to, or --upgrade", param_hint="--to")
    if not (reason or dry_run):
        raise typer.BadParameter("is needed: it is what the audit record will say", param_hint="--reason")
    more: dict[str, Any] = {
        "tenant": of_tenant, "canary": canary, "batch_size": batch, "parallelism": parallel, "max_failures": max_failures
    }  # fmt: skip
    async with session.admin_client(admin) as broker:

        async def foresee(service_id: str, plans: tuple[str, ...]) -> None:
            pages = broker.plan_campaign(service_id, plans[0], to_plan_id="".join(plans[1:]), **more)
            await campaign_view.foresee(session, pages)

        async def create(service_id: str, plans: tuple[str, ...]) -> Campaign:
            return await broker.create_campaign(service_id, plans[0], reason, to_plan_id="".join(plans[1:]), **more)

        plans = (name, to) if to else (name,)
        if dry_run:
            await named.by_name(session, service, plans, foresee)
            return
        found = await named.by_name(session, service, plans, create)
        if follow:
            session.say(f"campaign {found.campaign_id}")
            await _watch(session, broker.watch_campaign(found.campaign_id))
            return
    _emit(session, found)


async def list_campaigns(session: Session, admin: Admin = None) -> None:
    """Campaigns, the newest first."""
    from purveyor.cli import campaign_view  # noqa: PLC0415 - as above

    async with session.admin_client(admin) as broker:
        found = [campaign async for campaign in broker.campaigns()]
    session.emit(found, lambda: campaign_view.campaigns(found))


async def show(session: Session, campaign_id: CampaignId, admin: Admin = None) -> None:
    """How far a campaign is, and what failed."""
    async with session.admin_client(admin) as broker:
        found = await broker.campaign(campaign_id)
    _emit(session, found)


async def items(
    session: Session,
    campaign_id: CampaignId,
    state: Annotated[
        str,
        typer.Option(metavar="STATE", help="pending, running, succeeded, failed or skipped.", show_default=False),
    ] = "",
    admin: Admin = None,
) -> None:
    """What became of each instance of a campaign."""
    from purveyor.cli import campaign_view  # noqa: PLC0415 - as above

    if state.upper() not in {"", "PENDING", "RUNNING", "SUCCEEDED", "FAILED", "SKIPPED"}:
        raise typer.BadParameter("pending, running, succeeded, failed or skipped", param_hint="--state")
    async with session.admin_client(admin) as broker:
        found = [item async for item in broker.campaign_items(campaign_id, state=state)]
    session.emit(found, lambda: campaign_view.items(found))


async def watch(session: Session, campaign_id: CampaignId, admin: Admin = None) -> None:
    """Show a campaign to its end, over restarts of the broker. Exit code 1 unless it succeeded."""
    async with session.admin_client(admin) as broker:
        await _watch(session, broker.watch_campaign(campaign_id))


async def pause(
    session: Session, campaign_id: CampaignId, reason: Reason, validate_only: DryRun = False, admin: Admin = None
) -> None:
    """Begin nothing more for now; what runs goes on to its end."""
    async with session.admin_client(admin) as broker:
        found = await broker.pause_campaign(campaign_id, reason, validate_only=validate_only)
    _emit(session, found)


async def resume(
    session: Session, campaign_id: CampaignId, reason: Reason, validate_only: DryRun = False, admin: Admin = None
) -> None:
    """Go on; the failures until now are accepted."""
    async with session.admin_client(admin) as broker:
        found = await broker.resume_campaign(campaign_id, reason, validate_only=validate_only)
    _emit(session, found)


async def abort(
    session: Session, campaign_id: CampaignId, reason: Reason, validate_only: DryRun = False, admin: Admin = None
) -> None:
    """Begin nothing more, ever; nothing is taken back."""
    async with session.admin_client(admin) as broker:
        found = await broker.abort_campaign(campaign_id, reason, validate_only=validate_only)
    _emit(session, found)


async def retry(
    session: Session, campaign_id: CampaignId, reason: Reason, validate_only: DryRun = False, admin: Admin = None
) -> None:
    """Try again what failed."""
    async with session.admin_client(admin) as broker:
        found, count = await broker.retry_campaign(campaign_id, reason, validate_only=validate_only)
    session.say(
        f"{count} {'instance' if count == 1 else 'instances'} {'would be' if validate_only else 'to be'} tried again"
    )
    _emit(session, found)


def _emit(session: Session, found: Campaign) -> None:
    from purveyor.cli import campaign_view  # noqa: PLC0415 - rich only where it is used

    session.emit(found, lambda: campaign_view.campaign(found))


async def _watch(session: Session, states: AsyncIterator[Campaign]) -> None:
    from purveyor.cli import campaign_view  # noqa: PLC0415 - as above

    last = await campaign_view.follow(session, states)
    if last.state != "SUCCEEDED":
        raise typer.Exit(Exit.OPERATION_FAILED)
