"""What is wrong with a configuration, in words that name the place.

Guarantee: what has the wrong type or stands at an unknown key is not quoted, only its path and the rule: it may be a
secret in the wrong place.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from typing import NamedTuple

from pydantic import BaseModel, ValidationError

Path = tuple[str | int, ...]

_WORDS = {
    "missing": "is required",
    "string_type": "must be a text",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "dict_type": "must be a table of keys and values",
    "model_type": "must be a table of keys and values",
    "model_attributes_type": "must be a table of keys and values",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "path_type": "must be a path",
}


class Problem(NamedTuple):
    """One bad value: its path, what is wrong with it, and where it stands (empty when that is not known)."""

    path: str
    message: str
    place: str = ""

    def __str__(self) -> str:
        return f"{self.place}: {self.sentence}" if self.place else self.sentence

    @property
    def sentence(self) -> str:
        """Path and message, without the place."""
        return f"{self.path}: {self.message}" if self.path else self.message


class ConfigError(Exception):
    """A configuration is refused, with every problem found in it."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


def dotted(path: Path) -> str:
    """`("services", 0, "id")` as `services[0].id`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def found(failure: ValidationError, model: type[BaseModel]) -> Iterator[tuple[Path, str]]:
    """Path and message of every error that pydantic found while it made `model`."""
    for error in failure.errors(include_url=False, include_input=False):
        location = tuple(part for part in error["loc"] if part != "[key]")
        yield location, _worded(error["type"], error["msg"], location, model)


def _worded(kind: str, message: str, location: Path, model: type[BaseModel]) -> str:
    if kind == "extra_forbidden":
        return _unknown(location, model)
    if kind in _WORDS:
        return _WORDS[kind]
    return message.removeprefix("Value error, ").replace("Input should be", "must be")


def _unknown(location: Path, model: type[BaseModel]) -> str:
    near = get_close_matches(str(location[-1]), _fields(location[:-1], model), n=1)
    return f"is not a known key; did you mean {near[0]!r}?" if near else "is not a known key"


def _fields(location: Path, model: type[BaseModel]) -> list[str]:
    """Names that are known at `location` below `model`; empty where they are not told by annotations alone."""
    here: type[BaseModel] = model
    for part in location:
        field = here.model_fields.get(str(part))
        if field is None or not (isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)):
            return []
        here = field.annotation
    return list(here.model_fields)
