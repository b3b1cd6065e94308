"""Campaigns for people: tables, and a live view on a terminal, lines elsewhere, JSON lines for scripts.

Guarantee: what failed is always named, as far as the broker tells it with the campaign (20 instances); the rest is counted.
"""

from __future__ import annotations

import sys
from collections import Counter
from contextlib import aclosing
from typing import TYPE_CHECKING

from rich.console import Group

from purveyor.cli.render import facts, state, table, when
from purveyor.cli.session import console
from purveyor.cli.words import clean

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from rich.console import RenderableType
    from rich.table import Table

    from purveyor.campaign_values import Campaign, CampaignItem, CampaignPlan
    from purveyor.cli.session import Session

BAR_WIDTH = 40


def campaigns(found: Sequence[Campaign]) -> Table:
    """One row per campaign."""
    return table(
        ("ID", "WHAT", "STATE", "DONE", "FAILED", "SKIPPED", "BEGUN", "BY"),
        (
            (
                one.campaign_id,
                _what(one),
                state(one.state),
                f"{one.succeeded} of {one.total}",
                str(one.failed),
                str(one.skipped),
                when(one.create_time),
                one.principal,
            )
            for one in found
        ),
    )


def campaign(found: Campaign) -> RenderableType:
    """One campaign: its facts, then what failed."""
    pace = f"canary {found.canary}, batches of {found.batch_size or 'all'}, {found.parallelism} at once"
    order = [("what", _what(found)), ("pace", f"{pace}, at most {found.max_failures} failures")]
    if not found.campaign_id:
        return facts([("campaign", "(dry run)"), *order])
    told = facts(
        [
            ("campaign", found.campaign_id),
            *order,
            ("state", state(found.state)),
            ("problem", clean(found.problem) or "-"),
            ("instances", _counts(found)),
            ("begun", f"{when(found.create_time)} by {clean(found.principal)}: {clean(found.reason)}"),
        ]
    )
    return Group(told, items(found.failures)) if found.failures else told


def items(found: Sequence[CampaignItem]) -> Table:
    """One row per instance."""
    return table(
        ("NO", "TENANT", "INSTANCE", "STATE", "OPERATION", "WHY"),
        (
            (
                str(one.place or "-"),
                one.tenant,
                one.instance_id,
                state(one.state),
                one.operation_id or "-",
                f"{one.code}: {one.message}" if one.code else "-",
            )
            for one in found
        ),
    )


async def foresee(session: Session, pages: AsyncIterator[CampaignPlan]) -> None:
    """A dry run: every instance with what would become of it, then how many of each."""
    found: list[CampaignItem] = []
    whole = None
    async for page in pages:
        whole = page.campaign
        found += page.items
    counts = Counter(_outcome(item) for item in found)
    assert whole is not None, "a dry run has one page at least"
    value = {"campaign": whole, "counts": dict(counts), "items": found}
    session.emit(value, lambda: Group(campaign(whole), items(found)))
    told = ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
    session.say(f"nothing was changed: {told or 'there is no instance of the plan'}")


def _outcome(item: CampaignItem) -> str:
    if item.state == "PENDING":
        return "would wait" if item.code else "would be moved"
    return "could not be moved" if item.state == "FAILED" else "need nothing"


async def follow(session: Session, states: AsyncIterator[Campaign]) -> Campaign:
    """Show a campaign to its end; the last that was told of it. Raises PurveyorError."""
    last = None
    if not session.json and sys.stdout.isatty():
        last = await _live(states)
        _name_failures(session, last)
        return last
    async with aclosing(states) as found:  # type: ignore[type-var] # a generator behind an iterator's type
        async for last in found:
            if session.json:
                session.emit_line(last)
            else:
                session.write(line(last) + "\n")
    assert last is not None, "the first message is the present state"
    _name_failures(session, last)
    return last


def _name_failures(session: Session, last: Campaign) -> None:
    """What failed, whole, below the lines or the view."""
    if not session.json and last.failures:
        session.show(items(last.failures))


def line(found: Campaign) -> str:
    """A campaign in one line."""
    problem = f"  {clean(found.problem)}" if found.problem else ""
    return f"{clean(found.campaign_id)}  {found.state}  {_stage(found)}  {_counts(found)}{problem}"


async def _live(states: AsyncIterator[Campaign]) -> Campaign:
    from rich.live import Live  # noqa: PLC0415 - for terminals only

    last = None
    with Live(console=console(sys.stdout), auto_refresh=False) as live:
        async with aclosing(states) as found:  # type: ignore[type-var] # as above
            async for last in found:
                live.update(_drawn(last), refresh=True)
    assert last is not None, "as above"
    return last


def _drawn(found: Campaign) -> Group:
    from rich.progress_bar import ProgressBar  # noqa: PLC0415 - for terminals only
    from rich.table import Table  # noqa: PLC0415 - as above
    from rich.text import Text  # noqa: PLC0415 - as above

    bar = Table.grid(padding=(0, 2))
    done = found.succeeded + found.failed + found.skipped
    bar.add_row(ProgressBar(total=max(1, found.total), completed=done, width=BAR_WIDTH), _counts(found))
    lines = [clean(found.problem)] if found.problem else []
    lines += [clean(f"{one.tenant}/{one.instance_id}  {one.code}: {one.message}") for one in found.failures]
    told = (Text(line, no_wrap=True, overflow="ellipsis") for line in lines)
    return Group(f"{_what(found)}  {found.state}  {_stage(found)}", bar, *told)


def _what(found: Campaign) -> str:
    target = found.to_plan_id or f"version {found.to_version}"
    whose = f" of {found.tenant}" if found.tenant else ""
    return clean(f"{found.service_id}/{found.from_plan_id} to {target}{whose}")


def _stage(found: Campaign) -> str:
    return f"batch {found.batch}" if found.batch else "canary"


def _counts(found: Campaign) -> str:
    parts = (
        (found.succeeded, "moved"),
        (found.running, "running"),
        (found.pending, "waiting"),
        (found.failed, "failed"),
        (found.skipped, "skipped"),
    )
    return f"{found.total}: " + ", ".join(f"{count} {name}" for count, name in parts)
