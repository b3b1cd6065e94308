"""The distribution says what it is: entry points resolve, versions agree, locks carry hashes and no addresses."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import entry_points, version
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))
PIN = re.compile(r"^(?P<name>[a-z0-9._-]+)==(?P<version>[^\s;\\]+)", re.MULTILINE)
BUILD_TIMEOUT_SECONDS = 100


def pins(lock: Path) -> dict[str, str]:
    """Normalised name to version."""
    return {found["name"]: found["version"] for found in PIN.finditer(lock.read_text(encoding="utf-8"))}


@pytest.mark.parametrize(
    ("group", "name"),
    [("console_scripts", "purveyor"), ("purveyor.providers", "postgresql")],
    ids=["command", "provider"],
)
def test_entry_points_resolve(group: str, name: str) -> None:
    (found,) = [point for point in entry_points(group=group, name=name) if point.dist and point.dist.name == "purveyor"]

    assert callable(found.load())


def test_the_generator_is_the_floor_of_the_runtime() -> None:
    """Generated code refuses an older grpcio than the grpcio-tools that made it."""
    base = {requirement.name: requirement for requirement in map(Requirement, PYPROJECT["project"]["dependencies"])}
    build = {requirement.name: requirement for requirement in map(Requirement, PYPROJECT["build-system"]["requires"])}

    assert str(build["grpcio-tools"].specifier) == f"=={version('grpcio-tools')}"
    assert str(base["grpcio"].specifier) == f">={version('grpcio-tools')}"


def test_the_protobuf_floor_is_what_the_stubs_check() -> None:
    stub = (ROOT / "clients/python/purveyor/v1/operation_pb2.py").read_text(encoding="utf-8")
    checked = re.search(r"Domain\.PUBLIC,\s+(\d+),\s+(\d+),\s+(\d+)", stub)

    assert checked is not None
    assert f"protobuf>={'.'.join(checked.groups())}" in PYPROJECT["project"]["dependencies"]


def test_the_build_group_is_what_the_build_needs() -> None:
    assert PYPROJECT["build-system"]["requires"] == PYPROJECT["dependency-groups"]["build"]


def test_extra_all_names_every_other_extra() -> None:
    extras = PYPROJECT["project"]["optional-dependencies"]
    (everything,) = map(Requirement, extras["all"])

    assert everything.extras == set(extras) - {"all"}


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: str(lock.name))
def test_locks_carry_hashes_and_no_addresses(lock: Path) -> None:
    text = lock.read_text(encoding="utf-8")
    blocks = re.split(r"\n(?=[a-z])", re.sub(r"(?m)^#.*\n", "", text).strip())

    assert len(pins(lock)) == len(blocks) > 0
    assert all("--hash=sha256:" in block for block in blocks)
    assert "://" not in text


def test_both_locks_agree() -> None:
    """They share one environment, so the demo's lock is part of the developer's."""
    demo, dev = pins(ROOT / "requirements/demo.txt"), pins(ROOT / "requirements/dev.txt")

    assert demo.items() <= dev.items()


def test_locks_satisfy_the_declared_floors() -> None:
    """A dependency added to pyproject.toml without `make lock` is found here."""
    dev = pins(ROOT / "requirements/dev.txt")
    extras = PYPROJECT["project"]["optional-dependencies"]
    groups = PYPROJECT["dependency-groups"]
    declared = [
        *PYPROJECT["project"]["dependencies"],
        *(line for name, lines in extras.items() if name != "all" for line in lines),
        *(line for lines in groups.values() for line in lines if isinstance(line, str)),
    ]
    unmet = [
        line for line in map(Requirement, declared) if dev.get(canonicalize_name(line.name), "0") not in line.specifier
    ]

    assert not unmet


def test_both_packages_are_typed() -> None:
    assert (ROOT / "server/purveyor_server/py.typed").is_file()
    assert (ROOT / "clients/python/purveyor/py.typed").is_file()


def test_a_wheel_holds_both_packages_and_the_generated_stubs(tmp_path: Path) -> None:
    """Built from a copy without stubs, so that the build hook has to make them."""
    copy = tmp_path / "purveyor"
    leave_out = shutil.ignore_patterns("v1", "__pycache__", ".stubs-*")
    for folder in ("server", "clients"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=leave_out)
    shutil.copytree(ROOT / "protos", copy / "protos")
    for path in (ROOT / "pyproject.toml", *ROOT.glob("*.md"), ROOT / "LICENSE", ROOT / ".gitignore"):
        shutil.copy(path, copy)
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path / "dist")]
    done = subprocess.run(command, cwd=copy, capture_output=True, text=True, check=False, timeout=BUILD_TIMEOUT_SECONDS)

    assert done.returncode == 0, done.stderr
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {
        "purveyor/__init__.py",
        "purveyor/py.typed",
        "purveyor/v1/broker_service_pb2.py",
        "purveyor/v1/broker_service_pb2.pyi",
        "purveyor/v1/broker_service_pb2_grpc.py",
        "purveyor/v1/broker_service_pb2_grpc.pyi",
        "purveyor/v1/service_config.json",
        "purveyor_server/__init__.py",
        "purveyor_server/py.typed",
    } <= names
    assert not [name for name in names if name.startswith(("protos/", "tests/", "scripts/"))]
    template = ROOT / "server/purveyor_server/providers/skeleton/template"
    data = [*(ROOT / "server").rglob("*.sql"), *(path for path in template.rglob("*") if path.is_file())]
    sources = {str(path.relative_to(ROOT / "server")) for path in data if "cache" not in str(path)}
    assert sources <= names
