"""A provider as `purveyor provider new` writes it works before anything in it is replaced, and its tests find a planted flaw."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from purveyor_server.providers.skeleton import write_skeleton

if TYPE_CHECKING:
    from collections.abc import Iterator

RUN_SECONDS = 60
OPTIONAL = ("quarantine", "reclaim", "adopt")  # abilities that it leaves to whoever needs them; the table names each
REMOVAL = 'await held.remove(ctx, f"remove_{self.name}")'


def run(folder: Path, *command: str, path: str = "") -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": path, "NO_COLOR": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [sys.executable, "-m", *command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=RUN_SECONDS,
    )


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all tests, which leave its sources as they are."""
    into = tmp_path_factory.mktemp("n")
    done = run(into, "purveyor.cli", "provider", "new", "my-cache")

    assert (done.returncode, done.stdout) == (0, "my-cache\n"), done.stderr
    return into / "my-cache"


def test_its_own_tests_pass_and_print_the_table(written: Path) -> None:
    done = run(written, "pytest", "-p", "no:cacheprovider")

    assert done.returncode == 0, done.stdout
    topics = re.findall(r"^(\w[\w: ]+\w) +ok$", done.stdout.partition("provider contract")[2], re.MULTILINE)
    assert len(topics) == 24, done.stdout
    assert re.findall(r"^- my-cache, (\w+): the provider has not the ability (\w+)$", done.stdout, re.MULTILINE) == [
        (topic, topic.upper()) for topic in OPTIONAL
    ]
    assert re.search(rf"\b{len(OPTIONAL)} skipped\b", done.stdout), done.stdout


def test_a_removal_that_forgets_to_remove_is_found(written: Path, tmp_path: Path) -> None:
    flawed = shutil.copytree(written, tmp_path / "flawed")
    pieces = flawed / "src/purveyor_my_cache/pieces.py"
    text = pieces.read_text(encoding="utf-8")
    assert REMOVAL in text
    pieces.write_text(text.replace(REMOVAL, 'ctx.outside("remove")'), encoding="utf-8")
    impatient = flawed / "tests/test_contract.py"
    case = impatient.read_text(encoding="utf-8")
    impatient.write_text(case.replace("    factory = ", "    patience = 1.0\n    factory = "), encoding="utf-8")

    done = run(flawed, "pytest", "-p", "no:cacheprovider", "-x", "-k", "absent_twice")

    assert done.returncode == 1, done.stdout
    assert re.search(r"^absent twice +FAILED", done.stdout, re.MULTILINE), done.stdout


@pytest.mark.parametrize(
    "command",
    [("ruff", "check", "--no-cache", "."), ("ruff", "format", "--no-cache", "--check", "."), ("mypy", "--strict")],
    ids=["style", "format", "types"],
)
def test_linters_find_nothing(written: Path, command: tuple[str, ...]) -> None:
    done = run(written, *command)

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", ["a", "zoo", "names-of-24-characters-x"])
def test_style_holds_for_any_name(name: str, tmp_path: Path) -> None:
    """Names of every length, and before and after the others in the alphabet."""
    write_skeleton(name, tmp_path)

    for command in (("check", "--no-cache"), ("format", "--no-cache", "--check")):
        done = run(tmp_path / name, "ruff", *command, ".")
        assert done.returncode == 0, done.stdout


@pytest.fixture
def installed(written: Path, tmp_path: Path) -> str:
    """A folder for PYTHONPATH that holds what its wheel holds, the entry point included."""
    done = run(written, "hatchling", "build", "-t", "wheel", "-d", str(tmp_path / "dist"))
    assert done.returncode == 0, done.stderr
    (wheel,) = (tmp_path / "dist").iterdir()
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    return str(tmp_path / "site")


@pytest.fixture
def site(written: Path, installed: str, folder: Path) -> Iterator[tuple[Path, str]]:
    """Its sample configuration in a folder with a short name, served; stopped at the end."""
    for name in ("purveyor.toml", "catalog.yaml"):
        shutil.copy(written / name, folder)
    command = [sys.executable, "-m", "purveyor.cli", "serve", "--config", "purveyor.toml"]
    environment = {**os.environ, "PYTHONPATH": installed, "NO_COLOR": "1"}
    with subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True) as broker:
        assert broker.stderr
        seen = ""
        for line in broker.stderr:
            seen += line
            if re.search(r"\bstarted\b", line):
                break
        else:
            pytest.fail(f"the broker did not start: {seen}")
        try:
            yield folder, installed
        finally:
            broker.send_signal(signal.SIGTERM)
            broker.stderr.read()  # what it says while it stops has somewhere to go
        assert broker.wait(RUN_SECONDS) == 0


def test_its_readme_is_true(written: Path, site: tuple[Path, str]) -> None:
    """The commands of the second terminal, as they stand there."""
    folder, path = site
    text = (written / "README.md").read_text(encoding="utf-8")
    lines = text.partition("PURVEYOR_ADDRESS")[2].partition("```")[0].splitlines()
    address, *commands = ["PURVEYOR_ADDRESS" + lines[0], *lines[1:]]
    things = folder / "data/providers/main"

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(*address.split("=", 1))
        answers = {}
        for command in commands:
            verb = command.split()[1]
            done = run(folder, "purveyor.cli", "--json", *command.split()[1:], path=path)
            assert done.returncode == 0, f"{command}: {done.stderr}"
            answers[verb] = (json.loads(done.stdout), sorted(thing.name[:7] for thing in things.iterdir()))

    assert list(answers) == ["provision", "bind", "credentials", "unbind", "deprovision"]
    assert [there for _, there in answers.values()] == [
        ["pv_box_"],
        ["pv_box_", "pv_key_"],
        ["pv_box_", "pv_key_"],
        ["pv_box_"],
        [],
    ]
    assert set(answers["credentials"][0]) >= {"folder", "key", "token"}
