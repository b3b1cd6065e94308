"""YAML as plain JSON values together with the line of every key.

Guarantee: only what JSON can hold comes out; duplicate keys, tags of other types, more than one document, and input that
is too large, too deep or grows by aliases are refused; what is refused inside a document is collected, not thrown.
Limit: a text that is no YAML at all is refused at its first syntax error.
Source: YAML 1.2.2, core schema (`yes` is a text, `0o17` is 15).
"""

from __future__ import annotations

import math
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from purveyor_server.config.problems import ConfigError, Path, Problem, dotted

MAX_BYTES = 1024 * 1024
MAX_VALUES = 200_000
MAX_DEPTH = 64
_TAG = "tag:yaml.org,2002:"
_SCALARS = {f"{_TAG}{kind}" for kind in ("str", "int", "float", "bool", "null")}
_AS_TEXT = {f"{_TAG}timestamp", f"{_TAG}value"}  # JSON has no dates: they stay the text they are


class Tree:
    """Values of one YAML document; `line(path)` tells where a key stands, `problems` what was refused while reading."""

    def __init__(self, text: bytes, name: str) -> None:
        self.name = name
        self.problems: list[Problem] = []
        self._lines: dict[Path, int] = {}
        self._count = 0
        self._yaml = YAML(typ="safe", pure=True)
        root = self._compose(text)
        self.value: Any = {} if root is None else self._plain(root, ())

    def line(self, path: Path) -> int:
        """1-based line of the key or item at `path`, or of the nearest one around it."""
        while path and path not in self._lines:
            path = path[:-1]
        return self._lines.get(path, 1)

    def add(self, path: Path, message: str) -> None:
        """Note a problem of the value at `path`."""
        self.problems.append(Problem(dotted(path), message, f"{self.name}:{self.line(path)}"))

    def _compose(self, text: bytes) -> Node | None:
        if len(text) > MAX_BYTES:
            raise ConfigError([Problem("", f"larger than {MAX_BYTES} bytes", self.name)])
        try:
            node: Node | None = self._yaml.compose(text.decode("utf-8-sig"))
        except UnicodeDecodeError:
            raise ConfigError([Problem("", "is not UTF-8", self.name)]) from None
        except RecursionError:
            raise self._too_deep() from None
        except YAMLError as failure:
            raise ConfigError([_syntax(failure, self.name)]) from None
        return node

    def _too_deep(self) -> ConfigError:
        return ConfigError([Problem("", f"nested deeper than {MAX_DEPTH} levels", self.name)])

    def _plain(self, node: Node, path: Path) -> Any:
        self._lines.setdefault(path, node.start_mark.line + 1)
        self._count += 1
        if self._count > MAX_VALUES:
            raise ConfigError(
                [Problem("", f"more than {MAX_VALUES} values, aliases counted where they stand", self.name)]
            )
        if len(path) > MAX_DEPTH:
            raise self._too_deep()
        if isinstance(node, MappingNode) and node.tag == f"{_TAG}map":
            return self._mapping(node, path)
        if isinstance(node, SequenceNode) and node.tag == f"{_TAG}seq":
            return [self._plain(item, (*path, index)) for index, item in enumerate(node.value)]
        return self._scalar(node, path)

    def _mapping(self, node: MappingNode, path: Path) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key, value in node.value:
            name = self._key(key, path)
            if name is None:
                continue
            here = (*path, name)
            if name in values:
                self._refuse(key, here, f"stands twice (first on line {self._lines[here]})")
                continue
            self._lines[here] = key.start_mark.line + 1
            values[name] = self._plain(value, here)
        return values

    def _key(self, key: Node, path: Path) -> str | None:
        if isinstance(key, ScalarNode) and key.tag in _SCALARS | _AS_TEXT:
            return str(key.value)
        what = "merge keys (<<) are not taken" if key.tag == f"{_TAG}merge" else "a key must be a text"
        self._refuse(key, path, what)
        return None

    def _scalar(self, node: Node, path: Path) -> Any:
        if node.tag in _AS_TEXT:
            return node.value
        if node.tag not in _SCALARS:
            return self._refuse(node, path, f"the tag {node.tag!r} is not taken: only JSON's own types are")
        try:
            value = self._yaml.constructor.construct_object(node, deep=True)
        except (YAMLError, ValueError):
            return self._refuse(node, path, "is not a value of its type")
        if isinstance(value, float) and not math.isfinite(value):
            return self._refuse(node, path, "must be a finite number")
        return value

    def _refuse(self, node: Node, path: Path, message: str) -> None:
        self.problems.append(Problem(dotted(path), message, f"{self.name}:{node.start_mark.line + 1}"))


def _syntax(failure: YAMLError, name: str) -> Problem:
    if not isinstance(failure, MarkedYAMLError):
        return Problem("", "is not YAML", name)
    mark = failure.problem_mark or failure.context_mark
    place = name if mark is None else f"{name}:{mark.line + 1}"
    return Problem("", f"is not YAML: {failure.problem or failure.context or 'unreadable'}", place)
