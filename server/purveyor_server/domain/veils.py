"""Parameters that a plan's schema marks as secret, taken out of the rest and put back.

Guarantee: whatever a schema, or any part of it that may apply to a value, marks with `writeOnly: true` or `x-secret: true`
is found, nested as it may be; in doubt (alternatives, patterns) a value is secret. What is left shows MASK in its place.
Limit: a mark works from the request on that meets it; what was stored before stays as it was stored.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from purveyor_server.domain.catalog import JsonSchema
from purveyor_server.domain.model import Json
from purveyor_server.kit.hiding import MASK

MARKS = ("writeOnly", "x-secret")
MAX_MARKED = 4096
_SAME_VALUE = ("allOf", "anyOf", "oneOf")
_CONDITIONAL = ("if", "then", "else")
_MEMBERS = ("additionalProperties", "unevaluatedProperties")
_ITEMS = ("items", "additionalItems", "unevaluatedItems", "contains")

_marked: dict[int, tuple[JsonSchema, bool]] = {}


def has_marks(schema: JsonSchema | None) -> bool:
    """Whether anything in a schema is marked; asked once per schema: the entry holds it, so its id is not given to another."""
    if schema is None:
        return False
    held = _marked.get(id(schema))
    if held is None:
        if len(_marked) >= MAX_MARKED:
            _marked.clear()
        held = _marked[id(schema)] = (schema, _mentions(schema))
    return held[1]


def _mentions(value: Any) -> bool:
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, dict):
            if _is_marked(item):
                return True
            stack.extend(item.values())
        elif isinstance(item, list):
            stack.extend(item)
    return False


def _is_marked(schema: Mapping[str, Any]) -> bool:
    return any(schema.get(mark) is True for mark in MARKS)


def secret_places(schemas: Sequence[JsonSchema | None], parameters: Mapping[str, Json]) -> tuple[str, ...]:
    """JSON Pointers of the secret values, none within another; a whole that is marked is secret key by key."""
    marked = [(schema, schema) for schema in schemas if schema is not None and has_marks(schema)]
    if not marked:
        return ()
    if any(_is_marked(schema) for schema, _ in _applying(marked)):
        return tuple(f"/{_escaped(key)}" for key in parameters)
    return tuple(_places(marked, dict(parameters), ""))


Rooted = tuple[Any, JsonSchema]  # a part of a schema, and the whole


def _places(parts: Sequence[Rooted], value: Json, at: str) -> Iterator[str]:
    applying = list(_applying(parts))
    if at and any(_is_marked(schema) for schema, _ in applying):
        yield at
    elif isinstance(value, dict):
        for key, item in value.items():
            inner = [part for schema, root in applying for part in _of_member(schema, root, key)]
            yield from _places(inner, item, f"{at}/{_escaped(key)}")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            inner = [part for schema, root in applying for part in _of_item(schema, root, index)]
            yield from _places(inner, item, f"{at}/{index}")


def _applying(parts: Sequence[Rooted]) -> Iterator[tuple[Mapping[str, Any], JsonSchema]]:
    """The parts and all that may apply to the same value, each once: references, alternatives, conditions."""
    stack, seen = list(parts), set[int]()
    while stack:
        schema, root = stack.pop()
        if not isinstance(schema, dict) or id(schema) in seen:
            continue
        seen.add(id(schema))
        yield schema, root
        for key in _SAME_VALUE:
            stack.extend((item, root) for item in _listed(schema.get(key)))
        stack.extend((schema.get(key), root) for key in _CONDITIONAL)
        for key in ("dependentSchemas", "dependencies"):
            stack.extend((item, root) for item in _mapped(schema.get(key)).values())
        for key in ("$ref", "$dynamicRef", "$recursiveRef"):
            if isinstance(schema.get(key), str):
                stack.extend((item, root) for item in _referred(root, schema[key]))


def _of_member(schema: Mapping[str, Any], root: JsonSchema, key: str) -> Iterator[Rooted]:
    properties = _mapped(schema.get("properties"))
    if key in properties:
        yield properties[key], root
    for pattern, item in _mapped(schema.get("patternProperties")).items():
        if _may_match(pattern, key):
            yield item, root
    if key not in properties:
        yield from ((schema.get(name), root) for name in _MEMBERS)


def _of_item(schema: Mapping[str, Any], root: JsonSchema, index: int) -> Iterator[Rooted]:
    listed = [*_listed(schema.get("prefixItems")), *_listed(schema.get("items"))]
    if index < len(listed):
        yield listed[index], root
    yield from ((schema.get(name), root) for name in _ITEMS)


def _may_match(pattern: str, key: str) -> bool:
    try:
        return re.search(pattern, key) is not None
    except re.error:
        return True  # another dialect: in doubt it matches


def _referred(root: JsonSchema, reference: str) -> Iterator[Any]:
    """What a reference within the document names; of an anchor, whatever carries it."""
    target = reference.removeprefix("#")
    if target == "" or target.startswith("/"):
        found: Any = root
        for token in tokens_of(target):
            found = _child(found, token)
        yield found
    else:
        yield from _anchored(root, target)


def _anchored(root: Any, name: str) -> Iterator[Any]:
    stack = [root]
    while stack:
        item = stack.pop()
        if isinstance(item, dict):
            if name in (item.get("$anchor"), item.get("$dynamicAnchor"), str(item.get("$id", "")).removeprefix("#")):
                yield item
            stack.extend(item.values())
        elif isinstance(item, list):
            stack.extend(item)


def _child(value: Any, token: str) -> Any:
    if isinstance(value, dict):
        return value.get(token)
    if isinstance(value, list) and token.isdigit() and int(token) < len(value):
        return value[int(token)]
    return None


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _mapped(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _escaped(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1")


def pointer_of(path: Iterable[str | int]) -> str:
    """The JSON Pointer of a path."""
    return "".join(f"/{_escaped(str(part))}" for part in path)


def tokens_of(pointer: str) -> list[str]:
    """The steps of a JSON Pointer."""
    return [token.replace("~1", "/").replace("~0", "~") for token in pointer.split("/")[1:]]


def top_of(pointer: str) -> str:
    """The top-level key that a pointer leads through."""
    return tokens_of(pointer)[0]


def take_out(parameters: Mapping[str, Json], places: Sequence[str]) -> tuple[dict[str, Json], dict[str, Json]]:
    """The parameters with MASK at each place, and what was there, by place."""
    shown, taken = dict(parameters), {}
    for place in places:
        tokens = tokens_of(place)
        value: Json = parameters
        for token in tokens:
            value = _child(value, token) if isinstance(value, list) else value[token]
        taken[place] = value
        shown = _with(shown, tokens, MASK)
    return shown, taken


def put_back(parameters: Mapping[str, Json], values: Mapping[str, Json]) -> dict[str, Json]:
    """The parameters with each value at its place."""
    whole = dict(parameters)
    for place, value in values.items():
        whole = _with(whole, tokens_of(place), value)
    return whole


def _with(value: Any, tokens: Sequence[str], new: Json) -> Any:
    """A copy with `new` at the place; what the place leads through is copied too."""
    if not tokens:
        return new
    first, rest = tokens[0], tokens[1:]
    if isinstance(value, dict):
        return {**value, first: _with(value.get(first), rest, new)}
    copied = list(value)
    copied[int(first)] = _with(copied[int(first)], rest, new)
    return copied
