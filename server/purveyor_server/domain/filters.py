"""Filters of list calls: the subset of AIP-160 that is served.

Guarantee: a filter is a conjunction of comparisons `field op value`, each with an allowed field; anything else is
INVALID_FILTER that names the place. Values are compared as parameters, never pasted into SQL.
Grammar: `comparison (AND comparison)*`, `comparison = [NOT] field (= | != | < | >) value`, value = bare word or "quoted".
`<` and `>` are for time fields (RFC 3339) only.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Comparator(StrEnum):
    """How a field is compared."""

    EQUAL = "="
    NOT_EQUAL = "!="
    LESS = "<"
    GREATER = ">"


class Condition(msgspec.Struct, frozen=True):
    """One comparison. `value` is text; for a time field it is normalised RFC 3339 in UTC."""

    field: str
    comparator: Comparator
    value: str


Filter = tuple[Condition, ...]

INSTANCE_FIELDS = frozenset({"instance_id", "state", "service_id", "plan_id", "create_time", "update_time"})
BINDING_FIELDS = frozenset({"instance_id", "binding_id", "state", "create_time", "update_time"})
OPERATION_FIELDS = frozenset({"instance_id", "binding_id", "verb", "state", "create_time", "end_time"})
TIME_FIELDS = frozenset({"create_time", "update_time", "end_time"})
