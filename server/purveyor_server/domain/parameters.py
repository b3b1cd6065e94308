"""Parameters: sizes, JSON Schemas compiled once, defaults, and what an update leaves.

Guarantee: a bad parameter is INVALID_PARAMETERS with one violation per fault (at most 20), each with its path; messages
show no value, for a parameter may be a secret. Merging is by top-level key: class < plan < request.
Limit: schemas are the catalog's and were compiled when it was loaded; `$ref` to elsewhere is never fetched.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Container, Iterator, Mapping
from typing import Any

import jsonschema_rs
import msgspec

from purveyor_server.domain.catalog import JsonSchema, Offer
from purveyor_server.domain.errors import PurveyorError, Reason, Violation, invalid
from purveyor_server.domain.model import Json
from purveyor_server.domain.veils import pointer_of

MAX_BYTES = 64 * 1024
MAX_DEPTH = 32
MAX_VIOLATIONS = 20
MAX_DESCRIPTION = 300  # characters
MAX_COMPILED = 4096
BACKTRACK_LIMIT = 100_000  # steps of one regular expression of a schema

_compiled: dict[int, tuple[JsonSchema, Any]] = {}


def check_json(value: Json, field: str, max_bytes: int = MAX_BYTES) -> None:
    """Raise unless `value` is finite JSON: INVALID_REQUEST (too deep, not a number), MESSAGE_TOO_LARGE (over `max_bytes`)."""
    for item, depth in _walk(value):
        if depth > MAX_DEPTH:
            raise invalid(field, f"is nested more than {MAX_DEPTH} levels deep")
        if isinstance(item, float) and not math.isfinite(item):
            raise invalid(field, "holds a number that JSON cannot hold (NaN or infinite)")
    size = len(msgspec.json.encode(value))
    if size > max_bytes:
        raise PurveyorError(
            Reason.MESSAGE_TOO_LARGE,
            f"{field} is larger than {max_bytes} bytes",
            metadata={"field": field, "limit_bytes": str(max_bytes), "bytes": str(size)},
            violations=(Violation(field, f"{size} bytes, at most {max_bytes}"),),
        )


def _walk(value: Json) -> Iterator[tuple[Json, int]]:
    """Every value in `value` with its depth, without recursion; stops below MAX_DEPTH + 1."""
    stack: list[tuple[Json, int]] = [(value, 0)]
    while stack:
        item, depth = stack.pop()
        yield item, depth
        if isinstance(item, dict):
            stack.extend((inner, depth + 1) for inner in item.values())
        elif isinstance(item, list | tuple):
            stack.extend((inner, depth + 1) for inner in item)


def check_schema(schema: JsonSchema | None, parameters: Mapping[str, Json]) -> None:
    """Raise INVALID_PARAMETERS unless `parameters` fit `schema`; None accepts any object."""
    if schema is None:
        return
    faults = _compile(schema).iter_errors(dict(parameters))
    refuse(tuple(_violation(fault) for fault, _ in zip(faults, range(MAX_VIOLATIONS), strict=False)))


def fits(schema: JsonSchema | None, parameters: Mapping[str, Json], hidden: Container[str] = ()) -> bool:
    """Whether `parameters` fit; `hidden` are the places (JSON Pointers) of secrets, whose values are not there to be judged."""
    if schema is None:
        return True
    return not any(
        pointer_of(fault.instance_path) not in hidden for fault in _compile(schema).iter_errors(dict(parameters))
    )


def refuse(violations: tuple[Violation, ...]) -> None:
    """Raise INVALID_PARAMETERS with `violations`, unless there are none."""
    if violations:
        first = violations[0]
        message = f"{first.field}: {first.description}"
        raise PurveyorError(
            Reason.INVALID_PARAMETERS, message, metadata={"field": first.field}, violations=violations[:MAX_VIOLATIONS]
        )


def _compile(schema: JsonSchema) -> Any:
    """The validator of `schema`, made once: the entry holds the schema, so its id is not given to another."""
    held = _compiled.get(id(schema))
    if held is None:
        if len(_compiled) >= MAX_COMPILED:
            _compiled.clear()
        options = jsonschema_rs.FancyRegexOptions(backtrack_limit=BACKTRACK_LIMIT)
        validator = jsonschema_rs.validator_for(schema, mask="value", validate_formats=True, pattern_options=options)
        held = _compiled[id(schema)] = (schema, validator)
    return held[1]


def _violation(fault: Any) -> Violation:
    path = ".".join(["parameters", *(str(part) for part in fault.instance_path)])
    return Violation(path[:MAX_DESCRIPTION], str(fault.message)[:MAX_DESCRIPTION])


def instance_defaults(offer: Offer) -> dict[str, Json]:
    """Defaults of instances of a plan: the service's below the plan's."""
    return {**offer.service.defaults.instance, **offer.plan.defaults.instance}


def binding_defaults(offer: Offer) -> dict[str, Json]:
    """Defaults of bindings of a plan: the service's below the plan's."""
    return {**offer.service.defaults.binding, **offer.plan.defaults.binding}


def for_create(offer: Offer, sent: Mapping[str, Json]) -> dict[str, Json]:
    """Checked parameters of a new instance. The schema judges them as they will be stored, defaults merged in."""
    merged = {**instance_defaults(offer), **sent}
    check_schema(offer.plan.schemas.instance_create, merged)
    return merged


def for_bind(offer: Offer, sent: Mapping[str, Json]) -> dict[str, Json]:
    """Checked parameters of a new binding, as `for_create`."""
    merged = {**binding_defaults(offer), **sent}
    check_schema(offer.plan.schemas.binding_create, merged)
    return merged


def check_change(offer: Offer, sent: Mapping[str, Json]) -> None:
    """Raise INVALID_PARAMETERS unless `sent` may be changed: the update schema judges what is sent, without nulls.

    A null (remove the key) is allowed for a key that the schema would accept with some value.
    """
    schema = offer.plan.schemas.instance_update
    check_schema(schema, {key: value for key, value in sent.items() if value is not None})
    if schema is None or schema.get("additionalProperties") is not False or "patternProperties" in schema:
        return
    known = schema.get("properties", {})
    removed = [key for key, value in sent.items() if value is None and key not in known]
    refuse(tuple(Violation(f"parameters.{key}"[:MAX_DESCRIPTION], "cannot be changed") for key in removed))


def check_kept(offer: Offer, parameters: Mapping[str, Json], veiled: Collection[str]) -> None:
    """Raise INVALID_PARAMETERS unless an instance with these parameters may be of the plan: what moves, or is upgraded, keeps what
    was stored, and the plan may have become stricter.

    Values at the places `veiled` (JSON Pointers) are secrets that are masked here, and are not judged; nor is what only an
    update can set.
    """
    schemas = offer.plan.schemas
    if schemas.instance_create is None:
        return
    later = (schemas.instance_update or {}).get("properties", {}).keys() - schemas.instance_create.get("properties", {})
    judged = {key: value for key, value in parameters.items() if key not in later}
    faults = _compile(schemas.instance_create).iter_errors(judged)
    shown = (fault for fault in faults if not any(_pointer(fault).startswith(f"{place}/") for place in veiled))
    refuse(tuple(_violation(fault) for fault, _ in zip(shown, range(MAX_VIOLATIONS), strict=False)))


def _pointer(fault: Any) -> str:
    """The place of a fault as a JSON Pointer, with a slash behind it."""
    parts = (str(part).replace("~", "~0").replace("/", "~1") for part in fault.instance_path)
    return "".join(f"/{part}" for part in parts) + "/"


def for_update(offer: Offer, present: Mapping[str, Json], sent: Mapping[str, Json]) -> dict[str, Json]:
    """Parameters after an update: `sent` over `present` over the defaults; a null removes its key, so its default counts."""
    kept = {key: value for key, value in present.items() if key not in sent or sent[key] is not None}
    given = {key: value for key, value in sent.items() if value is not None}
    return {**instance_defaults(offer), **kept, **given}
