"""Pieces of an instance inside its database: the group's rights in the schema, and extensions.

Guarantee: extensions come from the plan's list, are trusted ones, and lie in a schema where no tenant can make objects; one
that is in use is never dropped, and a change that cannot be done as a whole is not begun.
Limit: consumers make objects in `public`; they make no schemas, since the right to do that (CREATE on the database) would
also let them install any trusted extension, whatever the plan says.
"""

from __future__ import annotations

from purveyor_server.providers.contract import Context, Done, Permanent, Retryable
from purveyor_server.providers.postgresql.pieces import (
    DATABASE,
    EXTENSION_SCHEMA,
    GROUP,
    LockedPiece,
    enter,
    read_wanted,
    role_exists,
)
from purveyor_server.providers.postgresql.sessions import Session
from purveyor_server.providers.postgresql.sql import ident

INSTALLED = """
SELECT e.extname FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
 WHERE n.nspname = $1 AND pg_get_userbyid(e.extowner) = current_user
"""
UNTRUSTED = """
SELECT w.name, v.trusted FROM unnest($1::text[]) AS w(name)
  LEFT JOIN pg_available_extensions a ON a.name = w.name
  LEFT JOIN pg_available_extension_versions v ON v.name = a.name AND v.version = a.default_version
 WHERE v.trusted IS DISTINCT FROM true
 ORDER BY 1
"""
# Objects of a user that depend on an extension or on something that belongs to it; its own members do not count.
IN_USE = """
WITH parts AS (
    SELECT e.extname, 'pg_extension'::regclass::oid AS classid, e.oid AS objid
      FROM pg_extension e WHERE e.extname = ANY($1)
    UNION ALL
    SELECT e.extname, d.classid, d.objid FROM pg_extension e
      JOIN pg_depend d ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid AND d.deptype = 'e'
     WHERE e.extname = ANY($1))
SELECT DISTINCT p.extname FROM parts p
  JOIN pg_depend d ON d.refclassid = p.classid AND d.refobjid = p.objid AND d.deptype = 'n'
 WHERE NOT EXISTS (SELECT FROM parts q WHERE (q.classid, q.objid) = (d.classid, d.objid))
   AND NOT EXISTS (SELECT FROM pg_depend i JOIN parts q ON (q.classid, q.objid) = (i.refclassid, i.refobjid)
                    WHERE i.classid = d.classid AND i.objid = d.objid AND i.deptype = 'i')
 ORDER BY 1
"""


class SchemaPiece(LockedPiece):
    """The group's rights in `public`, and the schema that holds extensions."""

    name = "schema"

    async def _ensure(self, ctx: Context, session: Session) -> Done:
        read_wanted(ctx)
        group, schema = ident(ctx.instance_name(GROUP)), ident(EXTENSION_SCHEMA)
        ctx.report(20, "granting rights in the database")
        async with enter(self._sessions, session, ctx, self.name, ctx.instance_name(DATABASE)) as inside:
            if inside is None:
                raise Retryable("the database takes no connections")
            await inside.change(
                ctx,
                "grant_schema",
                f"GRANT USAGE, CREATE ON SCHEMA public TO {group}",
                f"CREATE SCHEMA IF NOT EXISTS {schema}",
                f"GRANT USAGE ON SCHEMA {schema} TO {group}",
            )
        return Done({"schema": "public"})

    async def _absent(self, ctx: Context, session: Session) -> Done:
        """Takes the rights away; the rest goes with the database. A database that is closed is on its way out."""
        group = ctx.instance_name(GROUP)
        if not await role_exists(session, group):
            return Done()
        async with enter(self._sessions, session, ctx, self.name, ctx.instance_name(DATABASE)) as inside:
            if inside is not None:
                await inside.change(
                    ctx,
                    "revoke_schema",
                    f"REVOKE ALL ON SCHEMA public FROM {ident(group)}",
                    f"DROP SCHEMA IF EXISTS {ident(EXTENSION_SCHEMA)}",
                )
        return Done()


class ExtensionsPiece(LockedPiece):
    """The extensions of an instance."""

    name = "extensions"

    async def _ensure(self, ctx: Context, session: Session) -> Done:
        wanted = read_wanted(ctx).extensions
        async with enter(self._sessions, session, ctx, self.name, ctx.instance_name(DATABASE)) as inside:
            if inside is None:
                raise Retryable("the database takes no connections")
            present = await _installed(inside)
            await _check_trusted(inside, wanted - present)
            await _check_unused(inside, present - wanted)
            await _apply(ctx, inside, make=wanted - present, drop=present - wanted)
        return Done({"extensions": sorted(wanted)})

    async def _absent(self, ctx: Context, session: Session) -> Done:
        async with enter(self._sessions, session, ctx, self.name, ctx.instance_name(DATABASE)) as inside:
            if inside is not None:
                await _apply(ctx, inside, make=frozenset(), drop=await _installed(inside))
        return Done()


async def _installed(inside: Session) -> frozenset[str]:
    return frozenset(row["extname"] for row in await inside.ask(INSTALLED, EXTENSION_SCHEMA))


async def _check_trusted(inside: Session, names: frozenset[str]) -> None:
    for row in await inside.ask(UNTRUSTED, sorted(names)):
        why = "the server does not have it" if row["trusted"] is None else "it is not a trusted extension"
        raise Permanent(f"extension {row['name']} cannot be installed: {why}")


async def _check_unused(inside: Session, names: frozenset[str]) -> None:
    used = [row["extname"] for row in await inside.ask(IN_USE, sorted(names))] if names else []
    if used:
        raise Permanent(f"extension {', '.join(used)} is in use by objects in the database: drop those first")


async def _apply(ctx: Context, inside: Session, *, make: frozenset[str], drop: frozenset[str]) -> None:
    statements = [f"DROP EXTENSION IF EXISTS {ident(name)}" for name in sorted(drop)]
    statements += [
        f"CREATE EXTENSION IF NOT EXISTS {ident(name)} SCHEMA {ident(EXTENSION_SCHEMA)}" for name in sorted(make)
    ]
    if statements:
        ctx.report(40, "installing and removing extensions")
        await inside.change(ctx, "change_extensions", *statements)
