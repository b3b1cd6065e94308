"""`purveyor provider new`: names are judged, and a folder appears whole or not at all."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import pytest

from purveyor_server.app import Exit, new_provider_command
from purveyor_server.domain.errors import PurveyorError
from purveyor_server.providers import skeleton
from purveyor_server.providers.skeleton import NAME_LIMIT, check_name, write_skeleton

TEMPLATE = Path(str(files(skeleton.__name__))) / "template"


@pytest.mark.parametrize("name", ["cache", "my-cache", "s3", "a", "x" * NAME_LIMIT, "class", "json"])
def test_a_name_is_good(name: str) -> None:
    """Words of Python and its library too: the package is `purveyor_` and the name."""
    assert check_name(name) == name


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("", "is empty"),
        ("x" * 25, "has 25 characters, at most 24"),
        ("../cache", "holds a path"),
        ("a\\b", "holds a path"),
        ("Cache", "try 'cache'"),
        ("my_cache", "try 'my-cache'"),
        ("3d", "begins with a digit"),
        ("-cache", "a '-' that does not stand between two words"),
        ("my--cache", "a '-' that does not stand between two words"),
        ("my cache", "holds ' '"),
        ("k\u00e4se", "holds '\u00e4'"),
        ("cache\n", "holds '\\n'"),
        ("server", "which is the broker's own"),
        ("directory", "is the kind of a provider that is installed"),
    ],
)
def test_what_is_wrong_with_a_name_is_said(name: str, why: str, tmp_path: Path) -> None:
    with pytest.raises(PurveyorError, match="NAME") as refused:
        write_skeleton(name, tmp_path)

    assert why in refused.value.message
    assert list(tmp_path.iterdir()) == []


def test_every_file_is_written_and_the_template_is_named_nowhere(tmp_path: Path) -> None:
    folder = write_skeleton("my-cache", tmp_path)

    wanted = {path.relative_to(TEMPLATE) for path in TEMPLATE.rglob("*") if "cache" not in str(path)}
    written = {path.relative_to(folder) for path in folder.rglob("*")}
    assert written == {Path(str(path).replace("newthing", "my_cache")) for path in wanted}
    text = "".join(path.read_text(encoding="utf-8") for path in folder.rglob("*") if path.is_file())
    assert "newthing" not in text.lower()
    assert "00000000-0000" not in text
    assert [path.name for path in tmp_path.iterdir()] == ["my-cache"]


def test_two_of_them_have_ids_of_their_own(tmp_path: Path) -> None:
    one, two = (write_skeleton(name, tmp_path) / "catalog.yaml" for name in ("one", "two"))

    ids = [line for file in (one, two) for line in file.read_text(encoding="utf-8").splitlines() if " id: " in line]
    assert len(ids) == len(set(ids)) == 4


@pytest.mark.parametrize("kind", ["folder", "file", "link"])
def test_what_exists_is_left_alone(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    there = tmp_path / "cache"
    match kind:
        case "folder":
            there.mkdir()
        case "file":
            there.write_text("mine", encoding="utf-8")
        case "link":
            there.symlink_to("nowhere")
    before = there.lstat()

    assert new_provider_command("cache", tmp_path) == Exit.CONFIG
    assert capsys.readouterr().err == f"purveyor: no provider was written: NAME: {there} exists\n"
    assert there.lstat() == before
    assert list(tmp_path.iterdir()) == [there]


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(PurveyorError, match=r"--into: .* is no folder that exists"):
        write_skeleton("cache", tmp_path / "no")


def test_a_disk_that_fails_half_way_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_text: str, _name: str) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(skeleton, "_adapted", full)
    with pytest.raises(PurveyorError, match=r"--into: .*cache cannot be written: No space left on device"):
        write_skeleton("cache", tmp_path)

    assert list(tmp_path.iterdir()) == []


def test_one_that_comes_to_be_meanwhile_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = tmp_path / "cache" / "mine"
    adapted = skeleton._adapted

    def slow(text: str, name: str) -> str:
        mine.parent.mkdir(exist_ok=True)
        mine.touch()
        return adapted(text, name)

    monkeypatch.setattr(skeleton, "_adapted", slow)
    with pytest.raises(PurveyorError, match="cannot be written: Directory not empty"):
        write_skeleton("cache", tmp_path)

    assert list(tmp_path.rglob("*")) == [mine.parent, mine]
