"""Write `purveyor/sync.pyi`, the types of the blocking classes, from the source of the asyncio ones.

`sync_stub.py` writes it, `sync_stub.py --check [FILE]` ends with 1 when it (or FILE) is not what would be written. Needs ruff, which formats.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

from purveyor.blocking import ASYNC_ONLY, BY_HAND, sync_text

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "clients/python/purveyor"
TARGET = PACKAGE / "sync.pyi"
SOURCES = {"operations.py": "OperationHandle", "client.py": "Client", "admin.py": "AdminClient"}  # as in sync.py
FORMAT_SECONDS = 30
HEAD = '"""The blocking classes as type checkers see them. Made by scripts/sync_stub.py; do not edit."""\n\n'
BASE = ("opened.py", "OpenedClient")
PARENTS = {"OperationHandle": "Generic[Result_co]"}

Function = ast.FunctionDef | ast.AsyncFunctionDef


def stub() -> str:
    """The whole file."""
    parts, imports, variables = [], {"BlockingIterator": "purveyor.blocking"}, dict[str, str]()
    shared = parsed(BASE[0])
    imports |= imported(shared)
    for file, name in SOURCES.items():
        module = parsed(file)
        imports |= imported(module)
        variables |= assigned(module)
        node = found_class(module, name)
        inherited = [found_class(shared, BASE[1])]
        for part, home in parts_of(node, module).items():
            imports |= imported(home)
            inherited.insert(0, found_class(home, part))
        parts.append(class_stub(node, name, inherited))
    body = "\n\n".join(parts)
    body = "\n".join(text for variable, text in variables.items() if variable in names_in(body)) + "\n\n" + body
    used = names_in(body)
    lines = sorted(f"from {home} import {name}" for name, home in imports.items() if name in used)
    return formatted(HEAD + "\n".join(lines) + "\n\n" + body + "\n")


def parsed(file: str) -> ast.Module:
    """A module of the library."""
    return ast.parse((PACKAGE / file).read_text(encoding="utf-8"))


def found_class(module: ast.Module, name: str) -> ast.ClassDef:
    """The class of that name."""
    return next(node for node in module.body if isinstance(node, ast.ClassDef) and node.name == name)


def parts_of(node: ast.ClassDef, module: ast.Module) -> dict[str, ast.Module]:
    """The classes that a client is put together from, with their modules, the last one first."""
    homes = imported(module)
    names = [name for name in map(ast.unparse, node.bases) if name in homes and name != BASE[1]]
    return {name: parsed(f"{homes[name].removeprefix('purveyor.')}.py") for name in reversed(names)}


def imported(module: ast.Module) -> dict[str, str]:
    """Names that the module imports, with where from."""
    found = (node for node in ast.walk(module) if isinstance(node, ast.ImportFrom) and node.module != "__future__")
    return {alias.name: node.module or "" for node in found for alias in node.names}


def assigned(module: ast.Module) -> dict[str, str]:
    """Type variables of the module, with their text."""
    found = [node for node in module.body if isinstance(node, ast.Assign) and "TypeVar" in ast.unparse(node.value)]
    return {ast.unparse(node.targets[0]): ast.unparse(node) for node in found}


def names_in(text: str) -> set[str]:
    """Every name that a text uses."""
    return {node.id for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Name)}


def class_stub(node: ast.ClassDef, name: str, inherited: list[ast.ClassDef]) -> str:
    """One class, with what it has from those of `inherited` that it derives from."""
    parent = f"({PARENTS[name]})" if name in PARENTS else ""
    lines = [f"class Sync{name}{parent}:", f'    """{sync_text(ast.get_docstring(node) or "")}"""']
    for member in members(node, inherited):
        if isinstance(member, ast.AnnAssign):
            lines += attribute(ast.unparse(member.target), ast.unparse(member.annotation))
        elif isinstance(member, Function):
            lines += function(member, is_handle=name in PARENTS)
    return "\n".join(lines)


def members(node: ast.ClassDef, inherited: list[ast.ClassDef]) -> list[ast.stmt]:
    """The statements of a class, then those that it inherits and does not replace."""
    found, bases = list(node.body), {ast.unparse(parent) for parent in node.bases}
    for base in inherited:
        if base.name in bases:
            own = {member.name for member in found if isinstance(member, Function)}
            found += [member for member in base.body if isinstance(member, Function) and member.name not in own]
    return found


def attribute(name: str, kind: str) -> list[str]:
    """A read-only property."""
    return ["    @property", f"    def {name}(self) -> {sync_text(kind)}: ..."]


def function(node: Function, *, is_handle: bool) -> list[str]:
    """A method or property; nothing for what is private."""
    name = {**BY_HAND, "__aiter__": "__iter__"}.get(node.name, node.name)
    hidden = name.startswith("_") and not name.startswith("__")
    if hidden or name in ASYNC_ONLY or name == "__repr__" or (is_handle and name == "__init__"):
        return []
    is_property = any(ast.unparse(found) == "property" for found in node.decorator_list)
    returned = sync_text(ast.unparse(node.returns)) if node.returns else "None"
    head = ["    @property"] if is_property else []
    head += [f"    def {name}({ast.unparse(node.args)}) -> {returned}:"]
    doc = ast.get_docstring(node)
    return [*head, f'        """{sync_text(doc)}"""' if doc else "        ..."]


def formatted(text: str) -> str:
    """The text in the house format."""
    ruff = [str(Path(sys.executable).with_name("ruff")), "--isolated"]
    names = ("--stdin-filename", "sync.pyi")
    for command in (
        [*ruff, "check", "--select", "I", "--fix-only", "--quiet", "--line-length", "120", *names],
        [*ruff, "format", "--line-length", "120", *names],
    ):
        done = subprocess.run(
            [*command, "-"], input=text, capture_output=True, text=True, check=True, timeout=FORMAT_SECONDS
        )
        text = done.stdout
    return text


def main() -> None:
    """Write or check. Raises SystemExit."""
    made = stub()
    if "--check" in sys.argv[1:]:
        target = Path(sys.argv[2]) if len(sys.argv) > len(["script", "--check"]) else TARGET
        same = target.is_file() and target.read_text(encoding="utf-8") == made
        sys.exit(0 if same else f"{target.name} is stale: run {Path(__file__).relative_to(ROOT)}")
    TARGET.write_text(made, encoding="utf-8")


if __name__ == "__main__":
    main()
