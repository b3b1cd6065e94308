"""Texts of strangers: what may become a subject or a tenant, and how a refusal of a credential looks.

Guarantee: nothing unprintable (control characters, line ends, marks of direction) and nothing overlong gets into a
principal, hence into logs, records and audit; no part of what was shown is in a refusal.
"""

from __future__ import annotations

import re

from purveyor_server.domain.errors import PurveyorError, Reason

MAX_SUBJECT = 255
_TENANT = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")


def refused(problem: str, text: str, reason: Reason = Reason.UNAUTHENTICATED) -> PurveyorError:
    """The refusal of a credential; `problem` is a word of a fixed list."""
    return PurveyorError(reason, text, metadata={"problem": problem})


def is_name(value: object) -> bool:
    """Whether this may name somebody."""
    return (
        isinstance(value, str)
        and 0 < len(value) <= MAX_SUBJECT
        and value.isprintable()
        and value == value.strip()
        and len(value.encode("utf-8", "replace")) <= MAX_SUBJECT
    )


def is_tenant(value: object) -> bool:
    """Whether this is a tenant's name."""
    return isinstance(value, str) and _TENANT.fullmatch(value) is not None
