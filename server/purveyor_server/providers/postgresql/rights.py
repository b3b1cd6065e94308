"""Whether the broker's role can do its work, and what the server's administrator should run when it cannot.

Guarantee: each missing right is named together with the statement that gives it; nothing is changed.
Limit: rights can be taken away later; then the operation that needs them waits, with the reason.
"""

from __future__ import annotations

import structlog

from purveyor_server.providers.contract import Permanent, RightsMissing
from purveyor_server.providers.postgresql.sessions import Sessions
from purveyor_server.providers.postgresql.sql import ident

OLDEST_VERSION = 160000  # createrole_self_grant
ROLE = """
SELECT current_user AS name, rolsuper, rolcreaterole, rolcreatedb,
       current_setting('server_version_num')::int AS version FROM pg_roles WHERE rolname = current_user
"""
# Databases of others that everybody may enter: a tenant's login could, too.
ENTERED_BY_ALL = """
SELECT datname, array_agg(DISTINCT privilege_type ORDER BY privilege_type) AS rights
  FROM pg_database, aclexplode(coalesce(datacl, acldefault('d', datdba)))
 WHERE grantee = 0 AND privilege_type IN ('CONNECT', 'TEMPORARY') AND datallowconn
 GROUP BY datname ORDER BY datname
"""

_log = structlog.get_logger(__name__)


async def check_rights(sessions: Sessions) -> None:
    """Raise Permanent for a server that is too old, RightsMissing with the statements that an administrator should run."""
    async with sessions.admin() as session:
        role = (await session.ask(ROLE))[0]
        entered = await session.ask(ENTERED_BY_ALL)
    if role["version"] < OLDEST_VERSION:
        raise Permanent("the PostgreSQL server is too old: version 16 or newer is needed", str(role["version"]))
    missing = [right for right in ("CREATEROLE", "CREATEDB") if not role["rol" + right.lower()]]
    statements = [f"ALTER ROLE {ident(role['name'])} {' '.join(missing)};"] if missing else []
    statements += [
        f"REVOKE {', '.join(row['rights'])} ON DATABASE {ident(row['datname'])} FROM PUBLIC;" for row in entered
    ]
    if role["rolsuper"]:
        _log.warning("the broker's role is a superuser and should not be", role=role["name"])
    if statements:
        reasons = [f"{right} is missing" for right in missing]
        reasons += [f"everybody may connect to database {row['datname']}" for row in entered]
        detail = f"{'; '.join(reasons)}. As a superuser run: {' '.join(statements)}"
        lacking = f" ({', '.join(missing)} missing)" if missing else ""
        raise RightsMissing(f"the broker's role in the PostgreSQL server is not set up{lacking}", detail)
