"""What the server says of an instance, against what was recorded.

Guarantee: changes nothing; each difference is a sentence for operators.
Limit: a picture of one moment; of an instance whose operation runs it may show a state on the way.
"""

from __future__ import annotations

from datetime import UTC, datetime

from purveyor_server.domain.names import outside_name
from purveyor_server.domain.states import Drift
from purveyor_server.providers.contract import Known, Observed, ProviderError
from purveyor_server.providers.postgresql.config import read_parameters, read_settings
from purveyor_server.providers.postgresql.contents import INSTALLED
from purveyor_server.providers.postgresql.pieces import (
    DATABASE,
    EXTENSION_SCHEMA,
    GROUP,
    LOGIN,
    DatabaseFacts,
    Wanted,
    find_database,
)
from purveyor_server.providers.postgresql.sessions import Session, Sessions

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
STRANGERS = """
SELECT r.rolname FROM pg_auth_members m JOIN pg_roles r ON r.oid = m.member JOIN pg_roles g ON g.oid = m.roleid
 WHERE g.rolname = $1 AND r.rolname <> current_user AND r.rolname <> ALL($2) ORDER BY 1
"""


async def observe(sessions: Sessions, instance: Known) -> Observed:
    """Drift of `instance`: MISSING without its database, DRIFTED with any difference. Raises ProviderError when unreachable."""
    database = outside_name(DATABASE, instance.uid)
    async with sessions.admin() as session:
        facts = await find_database(session, database)
        if facts is None or facts.invalid:
            return _observed(Drift.MISSING, [f"database {database} does not exist"], healthy=False)
        wanted = Wanted(read_settings(instance.settings.plan), read_parameters(instance.settings.parameters))
        differences = _compare(facts, wanted)
        differences += await _compare_rights(session, instance)
        differences += await _compare_roles(session, instance)
    inside = await _compare_inside(sessions, database, wanted) if facts.open else None
    if inside is None:
        differences.append("the broker cannot connect to the database")
    differences += inside or []
    return _observed(Drift.DRIFTED if differences else Drift.IN_SYNC, differences, healthy=inside is not None)


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
    return [f"{who} has {right} on the database" for who, right in sorted(found - wanted)] + [
        f"{who} lacks {right} on the database" for who, right in sorted(wanted - found)
    ]


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
