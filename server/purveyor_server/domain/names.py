"""What callers may call things, and what the outside world is called.

Guarantee: an accepted id holds only RFC 3986 unreserved characters and is neither `.` nor `..`; an outside name is made
from a uid alone, so it carries no caller text and is the same on every run.
"""

from __future__ import annotations

import re

from purveyor_server.domain.errors import PurveyorError, invalid

_TENANT = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_ID = re.compile(r"[A-Za-z0-9._~-]{1,128}")
_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,64}")
_KIND = re.compile(r"[a-z][a-z0-9]{0,15}")
TENANT_RULE = "1 to 63 of a-z, 0-9 and '-', starting and ending with a letter or digit"
ID_RULE = "1 to 128 of A-Z, a-z, 0-9, '.', '_', '~', '-' (not '.' or '..')"
REQUEST_ID_RULE = "1 to 64 printable ASCII characters without spaces"


def check_tenant(value: str, field: str = "tenant") -> str:
    """Return `value`, or raise INVALID_REQUEST that names `field`."""
    return _checked(_TENANT, value, field, TENANT_RULE)


def check_id(value: str, field: str) -> str:
    """Return `value`, or raise INVALID_REQUEST that names `field`."""
    if value in {".", ".."}:
        raise _refused(field, value, ID_RULE)
    return _checked(_ID, value, field, ID_RULE)


def check_request_id(value: str, field: str = "request_id") -> str:
    """Return `value`, or raise INVALID_REQUEST that names `field`."""
    return _checked(_REQUEST_ID, value, field, REQUEST_ID_RULE)


def outside_name(kind: str, uid: str, limit: int = 63) -> str:
    """The name in a backend of the thing `kind` of the incarnation `uid`: `pv_<kind>_<32 hex digits>`.

    Raises ValueError when `kind` is no short word or the name would not fit into `limit` characters: a provider's bug.
    """
    name = f"pv_{kind}_{uid.replace('-', '')}"
    if not _KIND.fullmatch(kind) or len(name) > limit:
        message = f"kind {kind!r} does not make a name of at most {limit} characters"
        raise ValueError(message)
    return name


def _checked(pattern: re.Pattern[str], value: str, field: str, rule: str) -> str:
    if not pattern.fullmatch(value):
        raise _refused(field, value, rule)
    return value


def _refused(field: str, value: str, rule: str) -> PurveyorError:
    if not value:
        return invalid(field, f"is required: {rule}")
    return invalid(field, f"{value[:80]!r} is not allowed: {rule}")
