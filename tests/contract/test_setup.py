"""scripts/setup.sh says what is missing, and does nothing when everything is there."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("python3", "python3.11", "python3.12", "python3.13", "python3.14")
TOO_OLD = '#!/bin/sh\n[ "$1" = --version ] && { echo Python 3.9.2; exit; }\nexit 1\n'
NO_VENV = '#!/bin/sh\ncase "$2" in *ensurepip*) exit 1;; esac\nexit 0\n'
RUN_TIMEOUT_SECONDS = 30


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """What the script needs of a clone, in a folder with a space in its name."""
    root = tmp_path / "a clone"
    for folder in ("scripts", "requirements"):
        shutil.copytree(ROOT / folder, root / folder)
    shutil.copy(ROOT / "pyproject.toml", root)
    return root


def set_up(clone: Path, kind: str, python: str) -> subprocess.CompletedProcess[str]:
    """Run the script where every Python on PATH behaves as the given script."""
    tools = clone.parent / "bin"
    tools.mkdir(exist_ok=True)
    for name in NAMES:
        (tools / name).write_text(python, encoding="utf-8")
        (tools / name).chmod(0o755)
    environment = {"PATH": f"{tools}{os.pathsep}/usr/bin{os.pathsep}/bin"}
    command = ["sh", str(clone / "scripts/setup.sh"), kind]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, timeout=RUN_TIMEOUT_SECONDS
    )


def stamp(clone: Path, kind: str) -> None:
    """Leave the mark of an earlier, complete set-up."""
    (clone / ".venv").mkdir(exist_ok=True)
    script = f"cksum requirements/{kind}.txt pyproject.toml; pwd"
    mark = subprocess.run(
        ["sh", "-c", script], cwd=clone, check=True, capture_output=True, text=True, timeout=RUN_TIMEOUT_SECONDS
    )
    (clone / f".venv/.stamp-{kind}").write_text(mark.stdout, encoding="utf-8")


def test_an_old_python_is_named(clone: Path) -> None:
    done = set_up(clone, "dev", TOO_OLD)

    assert done.returncode == 1
    assert "Python 3.11 or newer is needed; found: Python 3.9.2." in done.stderr
    assert not (clone / ".venv").exists()


def test_a_missing_venv_module_is_named(clone: Path) -> None:
    done = set_up(clone, "demo", NO_VENV)

    assert done.returncode == 1
    assert "no venv module" in done.stderr
    assert not (clone / ".venv").exists()


@pytest.mark.parametrize("kind", ["demo", "dev"])
def test_nothing_runs_after_the_full_set_up(clone: Path, kind: str) -> None:
    stamp(clone, "dev")

    done = set_up(clone, kind, TOO_OLD)

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_small_set_up_is_not_enough_for_the_full_one(clone: Path) -> None:
    stamp(clone, "demo")

    assert set_up(clone, "demo", TOO_OLD).returncode == 0
    assert set_up(clone, "dev", TOO_OLD).returncode == 1


def test_a_changed_lock_is_installed_again(clone: Path) -> None:
    stamp(clone, "dev")
    (clone / "requirements/dev.txt").write_text("", encoding="utf-8")

    assert set_up(clone, "dev", TOO_OLD).returncode == 1


def test_a_moved_clone_is_installed_again(clone: Path) -> None:
    stamp(clone, "dev")
    moved = clone.rename(clone.with_name("moved"))

    assert set_up(moved, "dev", TOO_OLD).returncode == 1


def test_an_unknown_kind_is_refused(clone: Path) -> None:
    assert set_up(clone, "all", TOO_OLD).returncode == 2
