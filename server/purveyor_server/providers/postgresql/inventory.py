"""What in the server carries our marker.

Guarantee: exactly the roles, databases and schemas whose comment is a marker of the store asked for, in pages, and the
dedicated servers whose files carry one, with what is in those that take connections (named `<server>/<name>`).
Limit: a walk over pages is no snapshot; what is in a dedicated server that does not run is not seen; who may comment on one of them is its owner or the broker's role, so tenants
cannot plant a marker.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from functools import partial

import structlog
from msgspec.structs import replace

from purveyor_server.providers.contract import Owned, Unreachable
from purveyor_server.providers.postgresql import notes
from purveyor_server.providers.postgresql.common import common_databases
from purveyor_server.providers.postgresql.host import Host
from purveyor_server.providers.postgresql.sessions import Session, Sessions

_log = structlog.get_logger(__name__)
PAGE = 500
MARKED = """
SELECT kind, name, description FROM (
    SELECT 'role' AS kind, r.rolname::text COLLATE "C" AS name, d.description FROM pg_shdescription d
      JOIN pg_roles r ON r.oid = d.objoid WHERE d.classoid = 'pg_authid'::regclass
    UNION ALL
    SELECT 'database', b.datname::text COLLATE "C", d.description FROM pg_shdescription d
      JOIN pg_database b ON b.oid = d.objoid WHERE d.classoid = 'pg_database'::regclass) marked
 WHERE starts_with(description, $1) AND (kind, name) > ($2, $3)
 ORDER BY kind, name LIMIT $4
"""


SCHEMAS = """
SELECT 'schema' AS kind, n.nspname::text COLLATE "C" AS name, d.description FROM pg_description d
  JOIN pg_namespace n ON n.oid = d.objoid WHERE d.classoid = 'pg_namespace'::regclass
   AND starts_with(d.description, $1) AND ('schema', n.nspname::text COLLATE "C") > ($2, $3)
 ORDER BY 2 LIMIT $4
"""


async def list_owned(sessions: Sessions, host: Host | None, store_id: str) -> AsyncIterator[Owned]:
    """Everything with the marker `purveyor:<store_id>:<uid>:<revision>`; what does not read so is left out."""
    async for owned in _walk(sessions.admin, MARKED, store_id):
        yield owned
    if host is not None:
        async for owned in _dedicated(host, store_id):
            yield owned
    async with sessions.admin() as session:
        databases = await common_databases(session)
    for database in databases:
        async for owned in _walk(partial(sessions.inside, database), SCHEMAS, store_id):
            yield owned


async def _dedicated(host: Host, store_id: str) -> AsyncIterator[Owned]:
    for name, marker in await asyncio.to_thread(lambda: list(host.kept())):
        if (kept := _owned("cluster", name, marker, store_id)) is None:
            continue
        yield kept
        async for owned in _inside(host, name, store_id):
            yield owned


async def _inside(host: Host, name: str, store_id: str) -> AsyncIterator[Owned]:
    """A server that somebody stopped or that does not answer hides nothing but its own: the walk goes on."""
    cluster = host.cluster(name)
    if not await asyncio.to_thread(lambda: cluster.answers):
        return
    try:
        async for owned in _walk(cluster.sessions.admin, MARKED, store_id):
            yield replace(owned, name=f"{name}/{owned.name}")  # the same names may be in the shared server
    except Unreachable as error:
        _log.warning("dedicated server is left out of the inventory", cluster=name, detail=error.detail)


async def _walk(
    enter: Callable[[], AbstractAsyncContextManager[Session]], query: str, store_id: str
) -> AsyncIterator[Owned]:
    after = ("", "")
    while True:
        async with enter() as session:
            rows = await session.ask(query, f"purveyor:{store_id}:", *after, PAGE)
        for row in rows:
            if (found := _owned(row["kind"], row["name"], row["description"], store_id)) is not None:
                yield found
        if len(rows) < PAGE:
            return
        after = (rows[-1]["kind"], rows[-1]["name"])


def _owned(kind: str, name: str, marker: str, store_id: str) -> Owned | None:
    prefix = f"purveyor:{store_id}:"
    marker = notes.read(marker).marker
    uid, _, revision = marker.removeprefix(prefix).partition(":")
    return Owned(kind, name, uid, int(revision)) if marker.startswith(prefix) and uid and revision.isdecimal() else None
