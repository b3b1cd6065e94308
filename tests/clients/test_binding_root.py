"""`credentials --binding-root`: what is written, how readers see it, and everything that is refused."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from purveyor import errors
from purveyor.cli import bindingroot, projection
from purveyor.cli.exits import Exit
from purveyor.v1 import broker_service_pb2 as messages
from tests.clients.scripted import ScriptedBroker, binding, instance
from tests.clients.test_cli import run

if TYPE_CHECKING:
    from collections.abc import Iterator

OWNER = {"tenant": "t", "instance": "orders", "binding": "app"}
RUN_SECONDS = 30
VERSIONS = 40


@pytest.fixture
def root(folder: Path) -> Path:
    made = folder / "root"
    made.mkdir(mode=0o700)
    return made


@pytest.fixture
def bound(broker: ScriptedBroker) -> ScriptedBroker:
    """A broker with one binding."""
    answer = messages.GetCredentialsResponse(binding=binding())
    answer.credentials.values.update(
        {"host": "h", "port": 5432, "password": "pä\n", "options": {"a": [1]}, "none": None}
    )
    broker.script["GetCredentials"] = [answer]
    broker.script["GetInstance"] = [messages.GetInstanceResponse(instance=instance(service_name="postgresql"))]
    return broker


def content(place: Path) -> dict[str, str]:
    return {entry.name: entry.read_text(encoding="utf-8") for entry in place.iterdir() if entry.name[0] != "."}


def names(place: Path) -> list[str]:
    return sorted(entry.name for entry in place.iterdir())


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def put(root: Path, version: str = "1", name: str = "app", owner: dict[str, str] = OWNER) -> str:
    entries = {f"e{number}": version for number in range(6)}
    return bindingroot.write(str(root), name, projection.entries(dict(entries), version), owner)


def refused(root: Path, **arguments: Any) -> str:
    with pytest.raises(errors.FailedPreconditionError) as found:
        put(root, **arguments)
    return found.value.message


async def test_the_layout(bound: ScriptedBroker, folder: Path) -> None:
    shown = await run(folder, *["credentials", "orders", "app", "--binding-root", str(folder / "new")])
    ran = await run(folder, *["credentials", "orders", "app", "--binding-root", str(folder / "new"), "--json"])

    place = folder / "new" / "app"
    assert (shown.code, ran.code) == (0, 0), shown.err + ran.err
    assert content(place) == {
        "type": "postgresql",
        "provider": "purveyor",
        "host": "h",
        "port": "5432",
        "password": "pä\n",
        "options": '{"a": [1]}',
        "none": "null",
    }
    assert sorted(ran.json) == ["entries", "folder"]
    assert (ran.json["folder"], set(ran.json["entries"])) == (str(place), set(content(place)))
    assert "pä" not in ran.out + shown.out + shown.err
    assert {mode(entry) for entry in place.iterdir()} == {0o600}
    assert (mode(place), mode(place.parent)) == (0o700, 0o700)
    assert names(folder / "new") == [".purveyor", "app"]
    assert names(folder / "new" / ".purveyor") == []


async def test_names_and_types_of_ones_own(bound: ScriptedBroker, folder: Path) -> None:
    line = ["credentials", "orders", "app", "--binding-root", str(folder / "r"), "--binding-name", "main.db"]
    ran = await run(folder, *line, "--type", "mysql", "--provider", "me")

    assert ran.code == 0, ran.err
    assert {**content(folder / "r" / "main.db"), "host": ""}.items() >= {"type": "mysql", "provider": "me"}.items()
    assert not bound.seen["GetInstance"]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["App", "--binding-root", "r"], Exit.USAGE, "--binding-name"),
        (["..", "--binding-root", "r"], Exit.USAGE, "--binding-name"),
        (["app", "--binding-root", "r", "--binding-name", "a/b"], Exit.USAGE, "a/b"),
        (["app", "--binding-root", ""], Exit.REFUSED, "SERVICE_BINDING_ROOT"),
        (["app", "--binding-root", "r", "--env"], Exit.USAGE, "--env"),
        (["app", "--binding-root", "r", "--provider", ""], Exit.USAGE, "provider"),
    ],
)
async def test_wrong_use(bound: ScriptedBroker, folder: Path, arguments: list[str], code: int, said: str) -> None:
    ran = await run(folder, "credentials", "orders", *arguments)

    assert (ran.code, said in ran.err) == (code, True), ran.err


@pytest.mark.parametrize(
    "name", ["..", ".", "", "a/b", "/etc/passwd", "..data", ".hidden", "a\0b", "a b", "ü", "x" * 254]
)
def test_a_credential_that_no_file_can_be_called_after_is_refused_by_name(name: str) -> None:
    with pytest.raises(errors.FailedPreconditionError) as found:
        projection.entries({"host": "h", name: "x"}, "t")

    assert repr(name) in found.value.message
    assert found.value.violations[0].field == f"credentials.{name}"


@pytest.mark.parametrize(
    ("names", "said"),
    [(("type",), "'type'"), (("Provider",), "'Provider'"), (("Host", "host"), "'host': and 'Host'")],
)
def test_reserved_names_and_collisions_are_refused(names: tuple[str, ...], said: str) -> None:
    with pytest.raises(errors.FailedPreconditionError, match=said):
        projection.entries(dict.fromkeys(names, "x"), "t")


def test_what_a_new_version_lacks_is_gone(root: Path) -> None:
    put(root)
    bindingroot.write(str(root), "app", projection.entries({"only": "x"}, "t"), OWNER)

    assert set(content(root / "app")) == {"only", "type", "provider"}


def test_another_bindings_folder_is_refused(root: Path) -> None:
    put(root)

    assert "another binding's (t/orders/app)" in refused(root, owner={**OWNER, "instance": "users"})
    assert content(root / "app")["e0"] == "1"


def test_a_foreign_folder_is_refused_and_stays(root: Path) -> None:
    (root / "app").mkdir()
    (root / "app" / "precious").write_text("x")

    assert "was not written here" in refused(root)
    assert content(root / "app") == {"precious": "x"}


def test_a_folder_inside_ours_is_refused_and_stays(root: Path) -> None:
    put(root)
    (root / "app" / "sub").mkdir()

    assert "app/sub is a folder" in refused(root, version="2")
    assert (root / "app" / "sub").is_dir()


def test_planted_links_are_not_followed(folder: Path, root: Path) -> None:
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    (folder / "link").symlink_to(root)
    (folder / "deep").symlink_to(folder)

    assert "link is a symbolic link" in refused(folder / "link")
    assert "deep is a symbolic link" in refused(folder / "deep" / "root")
    (root / "app").symlink_to(elsewhere)
    assert "app is a symbolic link" in refused(root)
    (root / ".purveyor").rmdir()
    (root / ".purveyor").symlink_to(elsewhere)
    assert ".purveyor is a symbolic link" in refused(root, name="other")
    assert names(elsewhere) == []


def test_links_in_an_old_version_are_removed_and_not_followed(folder: Path, root: Path) -> None:
    put(root)
    (folder / "target").write_text("x")
    (root / "app" / "planted").symlink_to(folder / "target")
    put(root, "2")

    assert (folder / "target").read_text() == "x"
    assert set(content(root / "app").values()) == {"2", "purveyor"}


def test_a_file_in_the_way_is_refused(root: Path) -> None:
    (root / "app").write_text("x")

    assert "app is not a folder" in refused(root)


@pytest.mark.parametrize("bits", [0o770, 0o707, 0o1777])
def test_a_root_that_others_can_write_to_is_refused(root: Path, bits: int) -> None:
    root.chmod(bits)

    assert f"(mode {bits:04o})" in refused(root)
    assert names(root) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_root_of_another_user_is_refused(root: Path) -> None:
    os.chown(root, 12345, -1)

    assert "belongs to another user (uid 12345)" in refused(root)


def test_a_missing_parent_is_named(root: Path) -> None:
    assert f"{root}/a does not exist" in refused(root / "a" / "b")


def test_a_writer_waits_for_another_one(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bindingroot, "LOCK_SECONDS", 0.05)
    tried: list[str] = []

    def second(stage: str) -> None:
        if stage == "written":
            with pytest.raises(errors.AbortedError) as found:
                put(root, "2")
            tried.append(found.value.message)

    bindingroot.write(str(root), "app", projection.entries({}, "1"), OWNER, second)

    assert tried == [f"another process is writing to {root}"]
    assert content(root / "app")["type"] == "1"


CRASHER = """
import os, signal, sys
from purveyor.cli import bindingroot, projection
from tests.clients.test_binding_root import OWNER
root, stage = sys.argv[1:]
entries = projection.entries({f"e{n}": "2" for n in range(6)}, "2")
def reached(found):
    if found == stage:
        os.kill(os.getpid(), signal.SIGKILL)
bindingroot.write(root, "app", entries, OWNER, reached)
"""


@pytest.mark.crash
@pytest.mark.parametrize(
    ("stage", "version"),
    [
        ("entry e3", "1"),
        ("entry type", "1"),
        ("written", "1"),
        ("swapped", "2"),
        ("removed type", "2"),
        ("removed e2", "2"),
    ],
)
@pytest.mark.parametrize("first", [False, True], ids=["again", "first"])
def test_a_crash_leaves_one_whole_version_and_the_next_write_cleans_up(
    root: Path, stage: str, version: str, *, first: bool
) -> None:
    if first and stage.startswith("removed"):
        return  # there is nothing to remove then
    if not first:
        put(root, "1")
    command = [sys.executable, "-c", CRASHER, str(root), stage]
    ended = subprocess.run(command, check=False, timeout=RUN_SECONDS, cwd=Path(__file__).parents[2])

    assert ended.returncode == -signal.SIGKILL
    if first and version == "1":
        assert names(root) == [".purveyor"]
    else:
        assert set(content(root / "app").values()) == {version, "purveyor"}
    put(root, "3")
    assert names(root / ".purveyor") == []
    assert set(content(root / "app").values()) == {"3", "purveyor"}


def versions(place: Path, ended: threading.Event) -> Iterator[dict[str, str] | None]:
    """What a reader finds that opens the folder once per look; None where it has to open it again."""
    while not ended.is_set():
        folder = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
        try:
            listed = [name for name in os.listdir(folder) if name[0] != "."]  # noqa: PTH208 - of a descriptor
            if "type" not in listed:
                yield None
                continue
            try:
                yield {name: read(folder, name) for name in listed}
            except FileNotFoundError:
                yield None
        finally:
            os.close(folder)


def read(folder: int, name: str) -> str:
    with os.fdopen(os.open(name, os.O_RDONLY, dir_fd=folder), encoding="utf-8") as stream:
        return stream.read()


def test_a_reader_sees_whole_versions_only(root: Path) -> None:
    put(root, "0")
    ended, seen, broken = threading.Event(), Counter[str](), list[dict[str, str]]()

    def look() -> None:
        for found in versions(root / "app", ended):
            values = set((found or {}).values()) - {"purveyor"}
            seen["again" if found is None else values.pop()] += 1
            if found is not None and (values or len(found) != 8):
                broken.append(found)

    readers = [threading.Thread(target=look) for _ in range(3)]
    for reader in readers:
        reader.start()
    try:
        for version in range(1, VERSIONS):
            put(root, str(version))
    finally:
        ended.set()
        for reader in readers:
            reader.join(RUN_SECONDS)

    assert not broken
    assert len(seen) > 3  # the readers did see it change
    assert json.loads((root / "app" / ".purveyor").read_text()) == OWNER


def test_at_every_stage_a_reader_finds_a_whole_version_or_knows_better(root: Path) -> None:
    """The same as above without luck: the writer stops at each stage while a reader looks, one that came before included."""
    put(root, "1")
    held = os.open(root / "app", os.O_RDONLY | os.O_DIRECTORY)
    stages: list[str] = []

    def look(stage: str) -> None:
        stages.append(stage)
        now = content(root / "app")
        assert (len(now), len(set(now.values()) - {"purveyor"})) == (8, 1), stage
        listed = os.listdir(held)  # noqa: PTH208 - of a descriptor
        assert len(listed) == 9 or "type" not in listed, stage

    try:
        bindingroot.write(str(root), "app", projection.entries({f"e{n}": "2" for n in range(6)}, "2"), OWNER, look)
    finally:
        os.close(held)

    assert [stage.split()[0] for stage in stages] == ["entry"] * 9 + ["written", "swapped"] + ["removed"] * 9
