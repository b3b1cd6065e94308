"""Values as JSON documents.

Guarantee: field names are those of the library's values, which are the contract's; times are RFC 3339, durations seconds.
Credentials are written as `***`; only the command `credentials` reveals them.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from purveyor.credentials import Credentials
from purveyor.errors import OperationFailedError, PurveyorError


def document(value: Any) -> Any:
    """A value of the library as plain JSON values."""
    if isinstance(value, Credentials):
        return dict.fromkeys(value, "***")
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: document(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {name: document(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [document(item) for item in value]
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    return value.total_seconds() if isinstance(value, timedelta) else value


def failure_document(error: PurveyorError, exit_code: int) -> dict[str, Any]:
    """A failure: what a script can decide by."""
    found: dict[str, Any] = {
        "code": error.code,
        "reason": error.reason,
        "transport_reason": error.transport_reason or "",
        "message": error.message,
        "metadata": error.metadata,
        "violations": document(error.violations),
        "retry_after": error.retry_after,
        "request_id": error.request_id,
        "exit_code": exit_code,
    }
    if isinstance(error, OperationFailedError):
        found["operation"] = document(error.operation)
    return {"error": found}


def text(value: Any, *, indent: int | None = 2, ascii_only: bool = False) -> str:
    """The JSON text of a value; on one line without `indent`."""
    return json.dumps(document(value), ensure_ascii=ascii_only, indent=indent)
