"""Bad settings are refused by their key. REPLACE by the mistakes that people make with yours."""

from __future__ import annotations

from pathlib import Path

import pytest
from purveyor_server.domain.errors import PurveyorError
from purveyor_server.domain.model import Json
from purveyor_server.providers.contract import Permanent, WorkSettings
from purveyor_server.providers.testing import Environment

from purveyor_newthing import NewthingProvider
from purveyor_newthing.settings import size_of


def settings(plan: dict[str, Json], parameters: dict[str, Json]) -> WorkSettings:
    return WorkSettings("service", "plan", plan, parameters)


def test_an_unknown_key_of_the_configuration_is_named(tmp_path: Path) -> None:
    with pytest.raises(PurveyorError, match="rot"):
        NewthingProvider({"rot": "/x"}, Environment("main", tmp_path, "store"))


def test_the_plan_decides_unless_the_instance_asks() -> None:
    assert size_of(settings({"size": 10}, {})) == 10  # noqa: PLR2004
    assert size_of(settings({"size": 10, "max_size": 20}, {"size": 20})) == 20  # noqa: PLR2004


@pytest.mark.parametrize("parameters", [{"size": 21}, {"size": "big"}, {"sise": 1}])
def test_what_the_plan_does_not_allow_is_named(parameters: dict[str, Json]) -> None:
    with pytest.raises(Permanent, match=r"size|sise"):
        size_of(settings({"size": 10, "max_size": 20}, parameters))
