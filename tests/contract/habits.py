"""Checks of the house rules, as functions from source text to findings, so that each can be shown a planted fault."""

from __future__ import annotations

import ast
import subprocess
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
MAX_LINES = 400
MAX_TEST_LINES = 500
MAX_FUNCTION_LINES = 60
GIT_TIMEOUT_SECONDS = 30
CANCELLED = {"CancelledError", "BaseException"}
# Joined here so that this file does not contain what it looks for.
REGISTRY_HOSTS = tuple(
    ".".join(parts)
    for parts in (
        ("pypi", "org"),
        ("pythonhosted", "org"),
        ("registry", "npmjs", "org"),
        ("proxy", "golang", "org"),
        ("crates", "io"),
        ("artifactory", "io"),
        ("jfrog", "io"),
    )
)
MACHINE_PATHS = tuple(f"/{folder}/" for folder in ("work", "root"))
FORBIDDEN_OPTIONS = ("--index-url", "--extra-index-url", "--find-links", "--trusted-host")


class Finding(NamedTuple):
    """One breach: the file, its 1-based line, and the rule in words."""

    path: str
    line: int
    rule: str


def tracked(*patterns: str) -> list[Path]:
    """Files that git tracks or would add, under ROOT, by git pathspec."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", "--", *patterns]
    listing = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=GIT_TIMEOUT_SECONDS)
    paths = (ROOT / name for name in listing.stdout.split("\0") if name)
    return [path for path in paths if path.is_file()]


def swallowed_cancellation(source: str, path: str = "<planted>") -> list[Finding]:
    """An `except` that can catch CancelledError and has no bare `raise` (nor `raise` of what it caught) in its body."""
    return [
        Finding(path, node.lineno, "CancelledError is caught and not raised again")
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ExceptHandler) and _catches_cancelled(node.type) and not _raises_again(node)
    ]


def _catches_cancelled(caught: ast.expr | None) -> bool:
    if caught is None:
        return True
    names = caught.elts if isinstance(caught, ast.Tuple) else [caught]
    return any(_last_name(name) in CANCELLED for name in names)


def _last_name(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def _raises_again(handler: ast.ExceptHandler) -> bool:
    """Whether a raise of the caught exception stands in the handler itself, not in a function defined there."""
    return any(
        isinstance(node, ast.Raise) and (node.exc is None or _last_name(node.exc) == (handler.name or " "))
        for statement in handler.body
        for node in _walk_here(statement)
    )


def _walk_here(node: ast.AST) -> list[ast.AST]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
        return []
    return [node, *(inner for child in ast.iter_child_nodes(node) for inner in _walk_here(child))]


def too_long(source: str, limit: int, path: str = "<planted>") -> list[Finding]:
    """A file with more lines than `limit`."""
    lines = len(source.splitlines())
    return [Finding(path, lines, f"{lines} lines, at most {limit}")] if lines > limit else []


def long_functions(source: str, path: str = "<planted>") -> list[Finding]:
    """Functions of more than MAX_FUNCTION_LINES lines, signature and docstring included."""
    return [
        Finding(path, node.lineno, f"{node.name} is longer than {MAX_FUNCTION_LINES} lines")
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or node.lineno) - node.lineno >= MAX_FUNCTION_LINES
    ]


def addresses(text: str, path: str = "<planted>") -> list[Finding]:
    """Lines that name a package registry, tell pip where to look, or hold a path of one machine."""
    words = (*REGISTRY_HOSTS, *FORBIDDEN_OPTIONS, *MACHINE_PATHS)
    return [
        Finding(path, number, "names a package registry, an index option or a folder of one machine")
        for number, line in enumerate(text.splitlines(), start=1)
        if any(word in line for word in words)
    ]


def mock_imports(source: str, path: str = "<planted>") -> list[Finding]:
    """Any import of unittest.mock or of the mock package, in whatever spelling."""
    return [
        Finding(path, node.lineno, "unittest.mock is used")
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Import | ast.ImportFrom) and any(_is_mock(name) for name in _imported(node))
    ]


def _imported(node: ast.Import | ast.ImportFrom) -> list[str]:
    names = [alias.name for alias in node.names]
    if isinstance(node, ast.Import):
        return names
    return [node.module or "", *(f"{node.module}.{name}" for name in names)]


def _is_mock(name: str) -> bool:
    return f"{name}.".startswith(("mock.", "unittest.mock."))


def sleeps(source: str, path: str = "<planted>") -> list[Finding]:
    """Calls of asyncio.sleep or time.sleep with anything but the literal 0: a test waits for a signal instead."""
    return [
        Finding(path, node.lineno, "sleeps instead of waiting for a signal")
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call) and _last_name(node.func) == "sleep" and not _is_zero(node.args)
    ]


def _is_zero(arguments: list[ast.expr]) -> bool:
    return bool(arguments) and isinstance(arguments[0], ast.Constant) and arguments[0].value == 0
