"""JSON Schemas of plans: judged when the catalog is loaded, so that a request never meets a broken one.

Guarantee: an accepted schema is valid under its draft, compiles, looks at nothing outside itself (nothing is ever fetched)
and has at most 64 KiB as JSON.
Source: OSBAPI v2.17, Schemas Object.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NoReturn

import jsonschema_rs
import msgspec

DEFAULT_DRAFT = "https://json-schema.org/draft/2020-12/schema"
MAX_BYTES = 64 * 1024
_DRAFTS = {
    "http://json-schema.org/draft-04/schema",
    "http://json-schema.org/draft-06/schema",
    "http://json-schema.org/draft-07/schema",
    "https://json-schema.org/draft/2019-09/schema",
    DEFAULT_DRAFT,
}
_REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")
# A default is a part of the parameters: what only a whole request must have is not asked of it.
_WHOLE_REQUEST = {"required", "dependentRequired", "dependencies", "minProperties", "anyOf", "oneOf", "not", "if"}


def completed(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema with its `$schema`, which OSBAPI requires; 2020-12 where none was given."""
    return {"$schema": DEFAULT_DRAFT} | schema


def faults(schema: dict[str, Any]) -> list[str]:
    """What is wrong with a schema; empty when it may be used."""
    size = len(msgspec.json.encode(schema))
    if size > MAX_BYTES:
        return [f"has {size} bytes as JSON, at most {MAX_BYTES} are allowed"]
    draft = schema.get("$schema", DEFAULT_DRAFT)
    if not isinstance(draft, str) or draft.removesuffix("#") not in _DRAFTS:
        return ["$schema must name draft-04, -06, -07, 2019-09 or 2020-12 of JSON Schema"]
    outside = sorted(set(_outside(schema)))
    if outside:
        return [f"refers to something outside itself: {', '.join(outside)}"]
    return _invalid(completed(schema)) or _no_object(schema)


def misfits(schema: dict[str, Any], defaults: dict[str, Any]) -> Iterator[tuple[list[str | int], str]]:
    """Path and message for each of `defaults` that the schema refuses; what they lack is not asked for."""
    for error in _validator(completed(schema)).iter_errors(defaults):
        if error.instance_path or error.schema_path[-1] not in _WHOLE_REQUEST:
            yield list(error.instance_path), error.message


def _invalid(schema: dict[str, Any]) -> list[str]:
    try:
        jsonschema_rs.meta.validate(schema)
        _validator(schema)
    except jsonschema_rs.ValidationError as failure:
        place = "/".join(str(part) for part in failure.instance_path)
        return [f"is not a valid JSON Schema: {f'{place}: ' if place else ''}{failure.message}"]
    except (jsonschema_rs.ReferencingError, ValueError) as failure:
        return [f"is not a valid JSON Schema: {str(failure).splitlines()[0]}"]
    return []


def _no_object(schema: dict[str, Any]) -> list[str]:
    kind = schema.get("type", "object")
    allowed = kind if isinstance(kind, list) else [kind]
    return [] if "object" in allowed else ["must allow an object: parameters always are one"]


def _validator(schema: dict[str, Any]) -> jsonschema_rs.Validator:
    return jsonschema_rs.validator_for(schema, retriever=_refuse)


def _refuse(_uri: str) -> NoReturn:
    raise ValueError("a schema of a catalog fetches nothing")


def _outside(value: Any) -> Iterator[str]:
    """Targets of references that do not stay within the document."""
    if isinstance(value, dict):
        for key, item in value.items():
            if key in _REFERENCES and isinstance(item, str) and not item.startswith("#"):
                yield item
            yield from _outside(item)
    elif isinstance(value, list):
        for item in value:
            yield from _outside(item)
