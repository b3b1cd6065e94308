"""What the server says of an instance, against what was recorded.

Guarantee: changes nothing; each difference is a sentence for operators.
Limit: a picture of one moment; of an instance whose operation runs it may show a state on the way.
"""

from __future__ import annotations

from datetime import UTC, datetime

from purveyor_server.domain.names import outside_name
from purveyor_server.domain.states import Drift
from purveyor_server.providers.contract import Known, Observed, ProviderError
from purveyor_server.providers.postgresql.common import members_of
from purveyor_server.providers.postgresql.contents import INSTALLED
from purveyor_server.providers.postgresql.pieces import (
    DATABASE,
    EXTENSION_SCHEMA,
    GROUP,
    LOGIN,
    SCHEMA,
    DatabaseFacts,
    Wanted,
    find_database,
)
from purveyor_server.providers.postgresql.sessions import Session, Sessions
from purveyor_server.providers.postgresql.settings import (
    SchemaSettings,
    SharedParameters,
    SharedSettings,
    read_as,
    read_settings,
    settings_of,
)

MAX_DIFFERENCES = 50
# Who may do what with a database, without its owner.
RIGHTS = """
SELECT CASE WHEN grantee = 0 THEN 'PUBLIC' ELSE pg_get_userbyid(grantee) END AS who, privilege_type AS right
  FROM pg_database, aclexplode(coalesce(datacl, acldefault('d', datdba)))
 WHERE datname = $1 AND grantee <> datdba
 ORDER BY 1, 2
"""
ROLES = """
SELECT r.rolname, r.rolcanlogin,
       r.rolsuper OR r.rolcreatedb OR r.rolcreaterole OR r.rolreplication OR r.rolbypassrls AS mighty,
       EXISTS (SELECT FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid
                WHERE m.member = r.oid AND g.rolname = $2 AND m.inherit_option AND m.set_option) AS member
  FROM pg_roles r WHERE r.rolname = ANY($1)
"""
SCHEMA_RIGHTS = """
SELECT pg_get_userbyid(nspowner) AS owner, pg_get_userbyid(nspowner) = current_user AS ours,
       CASE WHEN grantee = 0 THEN 'PUBLIC' ELSE pg_get_userbyid(grantee) END AS who, privilege_type AS right
  FROM pg_namespace LEFT JOIN LATERAL aclexplode(nspacl) ON true WHERE nspname = $1
 ORDER BY 3, 4
"""
IS_INSIDER = """
SELECT count(*) FROM pg_auth_members m JOIN pg_roles u ON u.oid = m.member JOIN pg_roles g ON g.oid = m.roleid
 WHERE u.rolname = $1 AND g.rolname = $2 AND m.inherit_option AND NOT m.set_option
"""
STRANGERS = """
SELECT r.rolname FROM pg_auth_members m JOIN pg_roles r ON r.oid = m.member JOIN pg_roles g ON g.oid = m.roleid
 WHERE g.rolname = $1 AND r.rolname <> current_user AND r.rolname <> ALL($2) ORDER BY 1
"""


async def observe(sessions: Sessions, instance: Known) -> Observed:
    """Drift of `instance`: MISSING without its database or schema, DRIFTED with any difference. Raises ProviderError when unreachable."""
    settings = read_settings(instance.settings.plan)
    if isinstance(settings, SchemaSettings):
        return await _observe_schema(sessions, instance, settings)
    wanted = Wanted(
        settings_of(instance.settings, SharedSettings), read_as(SharedParameters, instance.settings.parameters)
    )
    return await observe_database(sessions, instance, wanted)


async def observe_database(sessions: Sessions, instance: Known, wanted: Wanted) -> Observed:
    """Drift of an instance that is a database in the server of `sessions`."""
    database = outside_name(DATABASE, instance.uid)
    async with sessions.admin() as session:
        facts = await find_database(session, database)
        if facts is None or facts.invalid:
            return _observed(Drift.MISSING, [f"database {database} does not exist"], healthy=False)
        differences = _compare(facts, wanted)
        differences += await _compare_rights(session, instance)
        differences += await _compare_roles(session, instance)
    inside = await _compare_inside(sessions, database, wanted) if facts.open else None
    if inside is None:
        differences.append("the broker cannot connect to the database")
    differences += inside or []
    return _observed(Drift.DRIFTED if differences else Drift.IN_SYNC, differences, healthy=inside is not None)


async def _observe_schema(sessions: Sessions, instance: Known, settings: SchemaSettings) -> Observed:
    schema, group = outside_name(SCHEMA, instance.uid), outside_name(GROUP, instance.uid)
    async with sessions.admin() as session:
        facts = await find_database(session, settings.database)
        if facts is None or facts.invalid:
            return _observed(Drift.MISSING, [f"database {settings.database} does not exist"], healthy=False)
        differences = await _compare_roles(session, instance)
        differences += await _compare_door(session, settings.database, group)
    if not facts.open:
        return _observed(Drift.DRIFTED, [*differences, "the shared database takes no connections"], healthy=False)
    async with sessions.inside(settings.database) as inside:
        rows = await inside.ask(SCHEMA_RIGHTS, schema)
    if not rows:
        return _observed(Drift.MISSING, [f"schema {schema} does not exist"], healthy=False)
    if not rows[0]["ours"]:
        differences.append(f"the schema belongs to {rows[0]['owner']}")
    found = {(row["who"], row["right"]) for row in rows if row["who"] is not None and row["who"] != row["owner"]}
    differences += _compare_sets(found, {(group, "USAGE"), (group, "CREATE")}, "the schema")
    return _observed(Drift.DRIFTED if differences else Drift.IN_SYNC, differences, healthy=True)


async def _compare_door(session: Session, database: str, group: str) -> list[str]:
    """Who may enter the database that instances share."""
    members = members_of(database)
    found = {(row["who"], row["right"]) for row in await session.ask(RIGHTS, database)}
    differences = _compare_sets(found, {(members, "CONNECT"), (members, "TEMPORARY")}, "the shared database")
    if not await session.value(IS_INSIDER, group, members):
        differences.append(f"role {group} may not enter the shared database")
    return differences


def _compare_sets(found: set[tuple[str, str]], wanted: set[tuple[str, str]], what: str) -> list[str]:
    return [f"{who} has {right} on {what}" for who, right in sorted(found - wanted)] + [
        f"{who} lacks {right} on {what}" for who, right in sorted(wanted - found)
    ]


def _observed(drift: Drift, differences: list[str], *, healthy: bool) -> Observed:
    return Observed(drift, healthy, datetime.now(UTC), tuple(differences[:MAX_DIFFERENCES]))


def _compare(facts: DatabaseFacts, wanted: Wanted) -> list[str]:
    differences = []
    if not facts.ours:
        differences.append(f"the database belongs to {facts.owner}")
    if not facts.open:
        differences.append("the database takes no connections")
    if facts.limit != wanted.connection_limit or facts.raised:
        raised = " (raised for the broker)" if facts.raised else ""
        differences.append(f"connection limit is {facts.limit}{raised}, not {wanted.connection_limit}")
    return differences


async def _compare_rights(session: Session, instance: Known) -> list[str]:
    group = outside_name(GROUP, instance.uid)
    wanted = {(group, "CONNECT"), (group, "TEMPORARY")}
    found = {(row["who"], row["right"]) for row in await session.ask(RIGHTS, outside_name(DATABASE, instance.uid))}
    return _compare_sets(found, wanted, "the database")


async def _compare_roles(session: Session, instance: Known) -> list[str]:
    group = outside_name(GROUP, instance.uid)
    logins = {outside_name(LOGIN, uid): uid for uid in instance.bindings}
    roles = {row["rolname"]: row for row in await session.ask(ROLES, [group, *logins], group)}
    differences = [f"role {name} does not exist" for name in (group, *logins) if name not in roles]
    for name, row in roles.items():
        if row["mighty"]:
            differences.append(f"role {name} has rights that no binding has")
        if row["rolcanlogin"] != (name != group):
            differences.append(f"role {name} {'may' if row['rolcanlogin'] else 'may not'} log in")
        if name != group and not row["member"]:
            differences.append(f"role {name} is no full member of the group role")
    strangers = await session.ask(STRANGERS, group, list(logins))
    return differences + [f"role {row['rolname']} is a member of the group role" for row in strangers]


async def _compare_inside(sessions: Sessions, database: str, wanted: Wanted) -> list[str] | None:
    """Differences inside the database; None when the broker cannot come in."""
    try:
        async with sessions.inside(database) as inside:
            rows = await inside.ask(INSTALLED, EXTENSION_SCHEMA)
    except ProviderError:
        return None
    found = {row["extname"] for row in rows}
    return [f"extension {name} is missing" for name in sorted(wanted.extensions - found)] + [
        f"extension {name} was not asked for" for name in sorted(found - wanted.extensions)
    ]
