"""JSON Schemas of what the provider gives: outputs of each piece, and credentials."""

from __future__ import annotations

from typing import Any

from purveyor_server.providers.contract import Schemas
from purveyor_server.providers.postgresql.settings import settings_schema

_TEXT = {"type": "string", "minLength": 1}
_PORT = {"type": "integer", "minimum": 1, "maximum": 65535}
_COUNT = {"type": "integer", "minimum": 1}


def _some(**properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
    }


_WHERE: dict[str, dict[str, Any]] = {
    "host": _TEXT, "port": _PORT, "database": _TEXT, "username": _TEXT, "sslmode": _TEXT,
}  # fmt: skip
_CREDENTIALS = _some(
    **_WHERE, schema=_TEXT, ca_certificate=_TEXT, password=_TEXT, uri=_TEXT, jdbc_uri=_TEXT, certificate=_TEXT,
    private_key=_TEXT,
)  # fmt: skip

SCHEMAS = Schemas(
    settings=settings_schema(),
    outputs={
        # Nothing is required: what was removed has no outputs.
        "group": _some(role=_TEXT),
        "database": _some(database=_TEXT, connection_limit=_COUNT),
        "adopted": _some(database=_TEXT, connection_limit=_COUNT),
        "taken": _some(),
        "standstill": _some(),
        "logins": _some(),
        "data": _some(),
        "verified": _some(relations={"type": "integer", "minimum": 0}),
        "schema": _some(schema=_TEXT),
        "extensions": _some(extensions={"type": "array", "items": _TEXT}),
        "common_database": _some(database=_TEXT),
        "own_schema": _some(database=_TEXT, schema=_TEXT),
        "cluster_files": _some(version=_TEXT),
        "cluster_settings": _some(connection_limit=_COUNT),
        "server": _some(port=_PORT, build=_TEXT),
        "final_backup": _some(backup=_TEXT),
        "login": _some(**_WHERE, schema=_TEXT, ca_certificate=_TEXT),
    },
    credentials={
        **_CREDENTIALS,
        "required": list(_WHERE),
        "oneOf": [{"required": ["password", "uri", "jdbc_uri"]}, {"required": ["certificate", "private_key"]}],
    },
    secret_fields=frozenset({"password", "uri", "jdbc_uri", "private_key"}),
    unique_fields=frozenset({"username", "password", "private_key"}),
)
