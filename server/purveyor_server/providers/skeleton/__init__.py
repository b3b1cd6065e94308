"""`purveyor provider new`: a working provider package with its tests, to be made one's own. See docs/providers.md.

Guarantee: the new folder appears whole or not at all, and nothing that exists is touched; every mistake in the name is said.
Limit: it is written for a person to go on with, not against a power cut: nothing is forced onto the disk.
The files below `template` are a provider of their own, named `newthing`, and are linted and type-checked as they are.
"""

from __future__ import annotations

import re
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import entry_points
from importlib.resources import as_file, files
from pathlib import Path

from purveyor_server.domain.errors import invalid

GROUP = "purveyor.providers"
NAME_LIMIT = 24  # a longer one would not fit into the lines of the template
TEMPLATE_NAME = "newthing"
_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_ID = re.compile(r"00000000-0000-4000-8000-\d{12}")
_CACHES = ("__pycache__", "*.pyc", ".*_cache")  # of whoever ran the template where it is installed
RESERVED = frozenset({"server"})  # the package would be that of the broker


def check_name(name: str) -> str:
    """Return `name`, or raise INVALID_REQUEST that says what is wrong with it."""
    if problem := next(_problems(name), ""):
        raise invalid("NAME", f"{name[:80]!r} {problem}")
    return name


def _problems(name: str) -> Iterator[str]:
    if not name:
        yield "is empty"
    if len(name) > NAME_LIMIT:
        yield f"has {len(name)} characters, at most {NAME_LIMIT}"
    if "/" in name or "\\" in name:
        yield "holds a path: give the folder with --into"
    if name != name.lower():
        yield f"holds capital letters: try {name.lower()[:NAME_LIMIT]!r}"
    if "_" in name:
        yield f"holds '_': try {name.replace('_', '-').strip('-')!r}"
    if name[:1].isdigit():
        yield "begins with a digit: the first character is a letter"
    if name.startswith("-") or name.endswith("-") or "--" in name:
        yield "has a '-' that does not stand between two words"
    if strange := sorted(set(re.sub(r"[a-z0-9-]", "", name))):
        yield f"holds {''.join(strange)[:20]!r}: only a-z, 0-9 and '-' are allowed"
    if not _NAME.fullmatch(name):
        yield "is no name of letters, digits and single '-'"
    if name in RESERVED:
        yield f"would make the package 'purveyor_{name}', which is the broker's own"
    if any(point.name == name for point in entry_points(group=GROUP)):
        yield "is the kind of a provider that is installed"


def write_skeleton(name: str, into: Path) -> Path:
    """Write the package for the provider `name` as the folder `into/name`; returns it.

    Raises PurveyorError(INVALID_REQUEST) that names NAME or --into.
    """
    target = into / check_name(name)
    if not into.is_dir():
        raise invalid("--into", f"{into} is no folder that exists")
    if target.exists() or target.is_symlink():
        raise invalid("NAME", f"{target} exists")
    try:
        _write(name, into, target)
    except OSError as error:
        raise invalid("--into", f"{target} cannot be written: {error.strerror}") from error
    return target


def _write(name: str, into: Path, target: Path) -> None:
    fresh = Path(tempfile.mkdtemp(prefix=f".{name}-", suffix=".new", dir=into))
    try:
        with as_file(files(__package__) / "template") as template:
            shutil.copytree(template, fresh / name, ignore=shutil.ignore_patterns(*_CACHES))
        for path in sorted((fresh / name).rglob("*"), reverse=True):  # a folder's content before the folder
            if path.is_file():
                path.write_text(_adapted(path.read_text(encoding="utf-8"), name), encoding="utf-8")
            path.rename(path.with_name(_adapted(path.name, name)))
        (fresh / name).rename(target)  # refuses whatever came to be there but an empty folder
    finally:
        with suppress(OSError):
            shutil.rmtree(fresh)


def _adapted(text: str, name: str) -> str:
    """A text of the template for the provider `name`: in the package, in class names, everywhere else; with ids of its own."""
    text = text.replace(f"purveyor_{TEMPLATE_NAME}", f"purveyor_{name.replace('-', '_')}")
    text = text.replace(TEMPLATE_NAME.capitalize(), "".join(word.capitalize() for word in name.split("-")))
    return _ID.sub(lambda _: str(uuid.uuid4()), text.replace(TEMPLATE_NAME, name))
