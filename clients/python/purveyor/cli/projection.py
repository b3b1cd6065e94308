"""Credentials as the entries of a binding folder, by the Service Binding Specification for Kubernetes 1.0, section Workload
Projection: one file per entry, `type` required, `provider` recommended, folders named `[a-z0-9-.]{1,253}`. How the entries
are named follows its section Provisioned Service, Well-known Secret Entries, as far as the plan's provider does.

Guarantee: an entry's name is one that a Kubernetes Secret may have, is no other folder and no other entry on a file system
that ignores case; what has another name is refused by that name, and nothing is written.
Limit: names and values are the provider's own; nothing is renamed on the way, since a consumer could not know it.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from purveyor.errors import FailedPreconditionError, InvalidRequestError, Violation

if TYPE_CHECKING:
    from collections.abc import Mapping

    from purveyor.values import Json

PROVIDER = "purveyor"
RESERVED = frozenset({"type", "provider"})  # the specification's own entries
FOLDER_RULE = "1 to 253 of a-z, 0-9, '-' and '.', no '.' first"
ENTRY_RULE = "1 to 253 of letters, digits, '.', '_' and '-', no '.' first"
_FOLDER = re.compile(r"[a-z0-9-][a-z0-9.-]{0,252}")
_ENTRY = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,252}")


def folder_name(name: str) -> str:
    """The name of a binding's folder. Raises InvalidRequestError."""
    if not _FOLDER.fullmatch(name):
        raise InvalidRequestError(
            f"a binding folder cannot be called {name!r}: {FOLDER_RULE}; give another --binding-name",
            reason="INVALID_REQUEST",
            violations=(Violation("binding_name", FOLDER_RULE),),
        )
    return name


def entries(values: Mapping[str, Json], kind: str, provider: str = PROVIDER) -> dict[str, bytes]:
    """File name to content, `type` last: text as it is, anything else as JSON.

    Raises FailedPreconditionError that names a credential which no file can be called after, or two that want one file,
    and InvalidRequestError for an empty type or provider.
    """
    for name, value in (("type", kind), ("provider", provider)):
        if not value.strip():
            raise InvalidRequestError(
                f"{name}: is empty", reason="INVALID_REQUEST", violations=(Violation(name, "is empty"),)
            )
    taken: dict[str, str] = {}
    for name in values:
        if not _ENTRY.fullmatch(name):
            raise _refused(name, f"no file can be called so: {ENTRY_RULE}")
        if name.lower() in RESERVED:
            raise _refused(name, "is reserved for what the specification puts there")
        other = taken.setdefault(name.lower(), name)
        if other != name:
            raise _refused(name, f"and {other!r} are one file where case does not count")
    own = {"provider": provider, "type": kind}
    return {name: _content(value) for name, value in {**values, **own}.items()}


def _content(value: Json) -> bytes:
    return (value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)).encode()


def _refused(name: str, description: str) -> FailedPreconditionError:
    return FailedPreconditionError(
        f"credential {name!r}: {description}", violations=(Violation(f"credentials.{name}", description),)
    )
