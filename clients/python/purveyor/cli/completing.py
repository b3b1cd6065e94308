"""What a shell offers after Tab: names of contexts, services, plans and ids, asked from the broker.

Guarantee: an answer comes within about a second, and whatever goes wrong is silent: nothing is offered then.
Limit: the first 1,000 ids, oldest first.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import typer

from purveyor.cli import contexts
from purveyor.tls import Tls

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from purveyor.client import Client

ANSWER_SECONDS = 1.0
MOST = 1000
UNFINISHED = "NOT state = SUCCEEDED AND NOT state = FAILED AND NOT state = CANCELLED"


def context_names(incomplete: str) -> list[str]:
    """Names of contexts."""
    with suppress(Exception):
        return [name for name in sorted(contexts.load().entries) if name.startswith(incomplete)]
    return []


def services(ctx: typer.Context, incomplete: str) -> list[str]:
    """Names of services."""

    async def ask(client: Client) -> list[str]:
        return [service.name for service in (await client.catalog()).services]

    return _offered(ctx, incomplete, ask)


def plans(ctx: typer.Context, incomplete: str) -> list[str]:
    """Names of plans: of the service that was typed, else of all."""
    wanted = ctx.params.get("service")

    async def ask(client: Client) -> list[str]:
        found = (await client.catalog()).services
        return [plan.name for item in found if wanted in {None, item.name, item.id} for plan in item.plans]

    return _offered(ctx, incomplete, ask)


def instances(ctx: typer.Context, incomplete: str) -> list[str]:
    """Ids of instances."""

    async def ask(client: Client) -> list[str]:
        return [item.instance_id async for item in _first(client.instances(page_size=MOST))]

    return _offered(ctx, incomplete, ask)


def bindings(ctx: typer.Context, incomplete: str) -> list[str]:
    """Ids of the bindings of the instance that was typed."""
    instance = ctx.params.get("instance_id") or ""

    async def ask(client: Client) -> list[str]:
        return [item.binding_id async for item in _first(client.bindings(instance, page_size=MOST))]

    return _offered(ctx, incomplete, ask)


def operations(ctx: typer.Context, incomplete: str) -> list[str]:
    """Ids of operations that have not ended."""

    async def ask(client: Client) -> list[str]:
        return [item.operation_id async for item in _first(client.operations(UNFINISHED, page_size=MOST))]

    return _offered(ctx, incomplete, ask)


async def _first(items: AsyncIterator[Any]) -> AsyncIterator[Any]:
    left = MOST
    async for item in items:
        yield item
        left -= 1
        if not left:
            return


def _offered(ctx: typer.Context, incomplete: str, ask: Callable[[Client], Awaitable[list[str]]]) -> list[str]:
    with suppress(Exception):  # a shell's line is no place for an error
        names = asyncio.run(_asked(ctx, ask))
        return [name for name in names if name.startswith(incomplete)]
    return []


async def _asked(ctx: typer.Context, ask: Callable[[Client], Awaitable[list[str]]]) -> list[str]:
    os.environ["GRPC_VERBOSITY"] = "NONE"
    from purveyor.client import Client  # noqa: PLC0415 - gRPC is loaded when it is needed

    tls = Tls.of({key: _typed(ctx, f"tls_{key}") or "" for key in contexts.TLS_KEYS})
    address, tenant, context = (_typed(ctx, name) for name in ("address", "tenant", "context"))
    place = contexts.choose(address, tenant, context, tls, _typed(ctx, "token_file"))
    async with asyncio.timeout(ANSWER_SECONDS):
        made = Client(
            place.address,
            tenant=place.tenant,
            tls=place.tls,
            token_file=place.token_file,
            timeout=ANSWER_SECONDS,
            retry_for=0,
        )
        async with made as client:
            return await ask(client)


def _typed(ctx: typer.Context, name: str) -> str | None:
    """An option's value, given after the command's name or before it."""
    found = ctx.params.get(name) or (ctx.find_root().params.get(name))
    return str(found) if found else None
