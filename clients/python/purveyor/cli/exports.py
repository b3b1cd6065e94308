"""Credentials as shell exports: `eval "$(purveyor credentials orders app --env)"`, then `psql`.

Guarantee: every value is quoted for a POSIX shell, and names are letters, digits and `_`; nothing in a credential can end
its quotes. A value that a shell cannot hold (NUL) is refused, and so are two values that want the same name.
"""

from __future__ import annotations

import json
import re
import shlex
from typing import TYPE_CHECKING

from purveyor.errors import FailedPreconditionError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from purveyor.values import Json

# What libpq reads, by the name of the credential.
LIBPQ = {
    "host": "PGHOST",
    "port": "PGPORT",
    "database": "PGDATABASE",
    "username": "PGUSER",
    "password": "PGPASSWORD",
    "sslmode": "PGSSLMODE",
}
DEFAULT_PREFIX = "BINDING_"  # not PURVEYOR_: a credential named address would lead the next command astray
_POSTGRES = ("postgres://", "postgresql://")


def lines(values: Mapping[str, Json], prefix: str = DEFAULT_PREFIX) -> list[str]:
    """One `export NAME=value` per credential, then DATABASE_URL and libpq's names when it is PostgreSQL.

    Raises FailedPreconditionError for a value that no shell can hold, or whose name another value has.
    """
    wanted = [(f"{prefix}{_name(name)}", _text(value)) for name, value in values.items()]
    uri = str(values.get("uri", ""))
    if uri.startswith(_POSTGRES):
        wanted.append(("DATABASE_URL", uri))
        wanted.extend((LIBPQ[name], _text(value)) for name, value in values.items() if name in LIBPQ)
    variables: dict[str, str] = {}
    for name, text in wanted:
        if variables.setdefault(name, text) != text:
            raise FailedPreconditionError(f"two credentials want to be {name}: choose another --prefix, or use --json")
    return [f"export {name}={_quoted(name, text)}" for name, text in variables.items()]


def _name(name: str) -> str:
    """JDBC names such as jdbcUrl become JDBC_URL; anything but letters and digits becomes `_`."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name)
    return re.sub(r"[^A-Za-z0-9]", "_", words).upper()


def _text(value: Json) -> str:
    if isinstance(value, str):
        return value
    return "" if value is None else json.dumps(value)


def _quoted(name: str, text: str) -> str:
    if "\0" in text:
        raise FailedPreconditionError(f"the value of {name} holds a NUL, which no shell variable can")
    return shlex.quote(text)
