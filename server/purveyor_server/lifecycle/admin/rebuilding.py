"""What the markers in the backends say that the store should hold.

Guarantee: nothing is changed. Every thing with our marker is told once, grouped by uid and, within a provider, in the order of
uids; then the records of which no thing was found in a provider whose list came to its end.
Limit: to be grouped, what a provider owns is held in memory (names alone) while it is told. Bindings without a thing are not
told: not every provider makes one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from enum import StrEnum
from itertools import pairwise

import msgspec
import structlog

from purveyor_server.domain.model import ProviderRef
from purveyor_server.domain.orphans import NOTHING, Standing, is_later
from purveyor_server.domain.states import InstanceState
from purveyor_server.lifecycle.admin.acts import enter
from purveyor_server.lifecycle.admin.contract import AdminParts
from purveyor_server.lifecycle.admin.inventories import PAGE, abilities_of, batches, known_providers
from purveyor_server.lifecycle.contract import Caller
from purveyor_server.lifecycle.door import Action
from purveyor_server.providers.contract import Ability, ProviderError
from purveyor_server.store.contract import Page

_log = structlog.get_logger(__name__)
SETTLED = frozenset({InstanceState.READY, InstanceState.UPDATING})  # of which something should be there


class Finding(StrEnum):
    """What the store says of a thing, or what else was found."""

    KNOWN = "KNOWN"
    UNKNOWN = "UNKNOWN"
    REMAINS = "REMAINS"
    MISSING = "MISSING"  # a record without a thing
    UNREADABLE = "UNREADABLE"  # the list broke off, or there is none


class Rebuilt(msgspec.Struct, frozen=True, kw_only=True):
    """One line. `first` begins a group of one uid; `later` tells that its marker is not older than the store."""

    provider: str
    finding: Finding
    kind: str = ""
    name: str = ""
    uid: str = ""
    revision: int = 0
    resource: str = ""  # the record or tombstone that has the uid
    first: bool = True
    later: bool = False
    problem: str = ""


async def rebuild_report(parts: AdminParts, caller: Caller) -> AsyncIterator[Rebuilt]:
    """Line by line."""
    enter(parts, caller, Action.REBUILD_REPORT)
    whole: dict[str, set[str]] = {}
    for ref in await known_providers(parts):
        lines: list[Rebuilt] = []
        problem = await _collect(parts, ref, lines)
        if not problem:
            whole[ref.name] = {line.uid for line in lines}
        lines.sort(key=lambda line: (line.uid, line.kind, line.name))
        for line in _grouped(lines):
            yield line
        if problem:
            yield Rebuilt(provider=ref.name, finding=Finding.UNREADABLE, problem=problem)
    async for missing in _missing(parts, whole):
        yield missing


async def _collect(parts: AdminParts, ref: ProviderRef, lines: list[Rebuilt]) -> str:
    """Everything that a provider lists; why that is not all, "" when it is."""
    if Ability.LIST_OWNED not in abilities_of(parts, ref):
        return "it cannot list what it owns"
    try:
        async with aclosing(batches(parts, ref)) as listed:
            async for batch, known in listed:
                for owned in batch:
                    found = known.get(owned.uid, NOTHING)
                    lines.append(
                        Rebuilt(
                            provider=ref.name,
                            finding=Finding(str(found.standing)),
                            kind=owned.kind,
                            name=owned.name,
                            uid=owned.uid,
                            revision=owned.revision,
                            resource=found.resource,
                            later=found.standing is not Standing.KNOWN and is_later(owned.revision, parts.store.head),
                        )
                    )
    except Exception as error:  # noqa: BLE001 - a backend that cannot be asked is a line of the report
        _log.warning("backend could not be read to its end", provider=ref.name, error=type(error).__name__)
        return error.message if isinstance(error, ProviderError) else type(error).__name__
    return ""


def _grouped(lines: list[Rebuilt]) -> list[Rebuilt]:
    starts = [True, *(before.uid != after.uid for before, after in pairwise(lines))]
    return [msgspec.structs.replace(line, first=start) for line, start in zip(lines, starts, strict=False)]


async def _missing(parts: AdminParts, whole: dict[str, set[str]]) -> AsyncIterator[Rebuilt]:
    after, providers_of = "", dict[str, str]()
    while page := await parts.store.every_instance(Page(PAGE, after)):
        for instance in page:
            settings = instance.present
            if settings.plan not in providers_of:
                plan = await parts.store.plan(settings.plan)
                providers_of[settings.plan] = plan.provider.name if plan is not None else ""
            name = providers_of[settings.plan]
            if instance.state in SETTLED and name in whole and instance.uid not in whole[name]:
                yield Rebuilt(
                    provider=name,
                    finding=Finding.MISSING,
                    uid=instance.uid,
                    resource=f"instance {instance.tenant}/{instance.instance_id}",
                )
        after = page[-1].uid
