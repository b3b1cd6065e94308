"""The schema of an instance of plan `schema`, in the database that such instances share.

Guarantee: the schema belongs to the broker's role; the instance's group may use it and make things in it, and nobody else
may; when it goes, everything that the instance owned in the database goes with it, and nothing of others.
Limit: no setting bounds an instance as a whole (a schema has no connection limit and no quota); its logins are bounded.
"""

from __future__ import annotations

from purveyor_server.providers.contract import Context, Done, NotYet, Permanent, Retryable, RightsMissing
from purveyor_server.providers.postgresql.common import common_databases, members_of
from purveyor_server.providers.postgresql.pieces import GROUP, SCHEMA, LockedPiece, default_setting, enter
from purveyor_server.providers.postgresql.roles import left_members, shut_out
from purveyor_server.providers.postgresql.sessions import Actor, Session
from purveyor_server.providers.postgresql.settings import SchemaParameters, SchemaSettings, read_as, settings_of
from purveyor_server.providers.postgresql.sql import ident, literal

ENDING_SECONDS = 1.0
AGAIN_SECONDS = 0.05
OWNER = """
SELECT pg_get_userbyid(nspowner) AS owner, nspowner = (SELECT oid FROM pg_roles WHERE rolname = current_user) AS ours
  FROM pg_namespace WHERE nspname = $1
"""
# What a DROP locks one by one: too much at once does not fit into the server's lock table. Parts before their wholes.
CONTENTS = """
SELECT statement FROM (
    SELECT 1 AS turn, c.relispartition AS part, format('DROP %s IF EXISTS %s CASCADE',
           CASE c.relkind WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW' WHEN 'S' THEN 'SEQUENCE'
                WHEN 'f' THEN 'FOREIGN TABLE' ELSE 'TABLE' END, c.oid::regclass) AS statement
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE n.nspname = $1 AND c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f')
       AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid
                        AND d.deptype IN ('a', 'i') AND d.refobjsubid > 0)
    UNION ALL
    SELECT 2, false, format('DROP ROUTINE IF EXISTS %s CASCADE', p.oid::regprocedure)
      FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname = $1
       AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid
                        AND d.deptype = 'i')
    UNION ALL
    SELECT 3, false, format('DROP TYPE IF EXISTS %s CASCADE', format_type(t.oid, NULL))
      FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
     WHERE n.nspname = $1 AND t.typtype IN ('d', 'e', 'r') AND t.typelem = 0
    UNION ALL
    SELECT 4, false, format('SELECT lo_unlink(%s)', l.oid)
      FROM pg_largeobject_metadata l WHERE pg_get_userbyid(l.lomowner) = ANY($2)) contents
 ORDER BY turn, part DESC LIMIT $3
"""
MOST_ROUNDS = 20  # of one run; then it asks to be called again


def login_settings(login: str, database: str, plan: SchemaSettings) -> list[str]:
    """What a database of one's own has as its settings, a login has where it is shared."""
    target = f"ROLE {ident(login)} IN DATABASE {ident(database)}"
    return [
        default_setting(target, "statement_timeout", plan.statement_timeout_seconds),
        default_setting(target, "idle_in_transaction_session_timeout", plan.idle_in_transaction_timeout_seconds),
    ]


class OwnSchemaPiece(LockedPiece):
    """The schema and the group's rights. `batch` is what one transaction drops at most."""

    name = "own_schema"
    weight = 2.0
    batch = 500

    async def _ensure(self, ctx: Context, session: Session) -> Done:
        plan, schema = settings_of(ctx.want, SchemaSettings), ctx.instance_name(SCHEMA)
        read_as(SchemaParameters, ctx.want.parameters if ctx.want else {})
        database = plan.database
        group = ident(ctx.instance_name(GROUP))
        ctx.report(20, "making the schema")
        async with enter(self._sessions, session, ctx, self.name, database) as inside:
            if inside is None:
                raise Retryable("the database that instances share takes no connections", database)
            for row in await inside.ask(OWNER, schema):
                if not row["ours"]:
                    raise Permanent("the schema belongs to somebody else", f"{schema} belongs to {row['owner']}")
            await inside.change(
                ctx,
                "make_schema",
                f"CREATE SCHEMA IF NOT EXISTS {ident(schema)}",
                f"REVOKE ALL ON SCHEMA {ident(schema)} FROM PUBLIC",
                f"GRANT USAGE, CREATE ON SCHEMA {ident(schema)} TO {group}",
                f"COMMENT ON SCHEMA {ident(schema)} IS {literal(ctx.marker)}",
                # SET FALSE: nobody acts as that role, so nothing can be owned by it.
                f"GRANT {ident(members_of(database))} TO {group} WITH ADMIN FALSE, INHERIT TRUE, SET FALSE",
            )
        logins = await left_members(session, ctx.instance_name(GROUP))
        if logins:
            changes = [change for login in logins for change in login_settings(login, database, plan)]
            await session.change(ctx, "set_logins", *changes)
        return Done({"database": database, "schema": schema})

    async def _absent(self, ctx: Context, session: Session) -> Done | NotYet:
        """In whichever of the shared databases it is: no setting needs to be known."""
        group = ctx.instance_name(GROUP)
        logins = await left_members(session, group)
        for login in logins:
            if not await shut_out(ctx, session, login, self._limits.terminate_timeout_seconds):
                return NotYet(ENDING_SECONDS, "open sessions are ending")
        for database in await common_databases(session):
            async with enter(self._sessions, session, ctx, self.name, database) as inside:
                if inside is None:
                    raise Retryable("the database that instances share takes no connections", database)
                ctx.report(20, "dropping the schema")
                schema = ctx.instance_name(SCHEMA)
                if not await empty_schema(ctx, inside, schema, [group, *logins], self.batch):
                    return NotYet(AGAIN_SECONDS, "dropping what the schema holds")
        return Done()


async def empty_schema(ctx: Actor, inside: Session, schema: str, roles: list[str], batch: int) -> bool:
    """Drop the schema and what `roles` own beside it; False when much is left. Raises RightsMissing for somebody else's."""
    owner = await inside.ask(OWNER, schema)
    if owner and not owner[0]["ours"]:
        detail = f"{schema} belongs to {owner[0]['owner']}: ALTER SCHEMA ... OWNER TO the broker's role, or drop it"
        raise RightsMissing("the schema belongs to somebody else", detail)
    for _ in range(MOST_ROUNDS):
        parts = [row["statement"] for row in await inside.ask(CONTENTS, schema, roles, batch)]
        if len(parts) < batch:
            break
        await inside.change(ctx, "drop_contents", *parts)
    else:
        return False
    there = [row["rolname"] for row in await inside.ask("SELECT rolname FROM pg_roles WHERE rolname = ANY($1)", roles)]
    if owner or there:
        await inside.change(
            ctx,
            "drop_schema",
            f"DROP SCHEMA IF EXISTS {ident(schema)} CASCADE",
            *(f"DROP OWNED BY {ident(role)} CASCADE" for role in there),
        )
    return True
