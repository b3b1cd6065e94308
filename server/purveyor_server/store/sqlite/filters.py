"""Filters of list calls as SQL conditions with parameters.

Guarantee: only columns named here reach the SQL text; every value is a parameter.
"""

from __future__ import annotations

from datetime import datetime

from purveyor_server.domain.errors import Reason, invalid
from purveyor_server.domain.filters import TIME_FIELDS, Comparator, Condition, Filter
from purveyor_server.store.sqlite import rows

_TIMES = {"create_time": "created_at", "update_time": "updated_at", "end_time": "ended_at"}
INSTANCE_COLUMNS = {name: name for name in ("instance_id", "state", "service_id", "plan_id")} | _TIMES
BINDING_COLUMNS = {name: name for name in ("instance_id", "binding_id", "state")} | _TIMES
OPERATION_COLUMNS = {
    **{name: name for name in ("instance_id", "binding_id", "verb", "state")},
    **_TIMES,
    "parent_operation_id": "parent",
}
# A record that somebody has damaged fits nothing; that it is damaged is for the verification to say.
_FIELD = "CASE WHEN json_valid(CAST(a.body AS TEXT)) THEN json_extract(CAST(a.body AS TEXT), '$.{}') END"
_AUDIT_TEXTS = ("tenant", "principal", "action", "resource", "on_behalf", "origin", "request_id", "call_id")
AUDIT_COLUMNS = {
    **{name: f"coalesce({_FIELD.format(name)}, '')" for name in _AUDIT_TEXTS},
    "outcome": f"coalesce({_FIELD.format('outcome')}, 'DONE')",
    "act_time": "a.at",
}
_OPERATORS = {
    Comparator.EQUAL: "IS",
    Comparator.NOT_EQUAL: "IS NOT",
    Comparator.LESS: "<",
    Comparator.GREATER: ">",
}


def conditions(where: Filter, columns: dict[str, str]) -> tuple[str, list[str | int]]:
    """SQL that starts with ` AND ` (or is empty), and its parameters. Raises INVALID_FILTER for an unknown field."""
    text = ""
    values: list[str | int] = []
    for condition in where:
        if condition.field not in columns:
            raise invalid("filter", f"{condition.field!r} cannot be compared here", Reason.INVALID_FILTER)
        text += f" AND {columns[condition.field]} {_OPERATORS[condition.comparator]} ?"
        values.append(_value(condition))
    return text, values


def _value(condition: Condition) -> str | int:
    if condition.field not in TIME_FIELDS:
        return condition.value
    try:
        moment = datetime.fromisoformat(condition.value)
        return rows.micros(moment)
    except (TypeError, ValueError):
        raise invalid("filter", f"{condition.value!r} is not an RFC 3339 time", Reason.INVALID_FILTER) from None
