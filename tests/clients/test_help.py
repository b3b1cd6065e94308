"""`purveyor --help`: every command is found in one group, what a newcomer needs first."""

from __future__ import annotations

from collections import Counter

import typer
from typer.testing import CliRunner

from purveyor.cli.app import PANELS, app


def test_each_command_is_in_exactly_one_group() -> None:
    root = typer.main.get_command(app)
    names = getattr(root, "commands")  # noqa: B009 - typer's own class is not typed here
    grouped = Counter(name for group in PANELS.values() for name in group)
    assert set(grouped) == set(names)
    assert set(grouped.values()) == {1}


def test_the_groups_are_shown_in_their_order() -> None:
    shown = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "120"}).stdout
    places = [shown.index(f" {name} ") for name in PANELS]
    assert places == sorted(places)
