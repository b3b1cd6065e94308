"""Reading what people wrote by hand: a provider's configuration, a plan's settings, a consumer's parameters.

Guarantee: every bad value is named by its key, never shown; unknown keys are refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from purveyor_server.domain.errors import PurveyorError, Reason, Violation
from purveyor_server.domain.model import Json
from purveyor_server.providers.contract import Permanent


class Strict(BaseModel):
    """Unknown keys are refused; values do not change. A validator is built at first use: of most kinds of plans there are none."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


_Model = TypeVar("_Model", bound=BaseModel)


def read_configuration(model: type[_Model], values: Mapping[str, Json]) -> _Model:
    """A provider's configuration. Raises PurveyorError(INVALID_REQUEST) that names each bad key."""
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        violations = tuple(name_violations(error))
        summary = "; ".join(f"{violation.field}: {violation.description}" for violation in violations)
        raise PurveyorError(Reason.INVALID_REQUEST, summary, violations=violations) from None


def read_values(model: type[_Model], values: Mapping[str, Json], what: str) -> _Model:
    """Settings or parameters, named `what` in the message. Raises Permanent that names each bad key."""
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        found = "; ".join(f"{violation.field}: {violation.description}" for violation in name_violations(error))
        raise Permanent(f"{what} cannot be used: {found}") from None


def name_violations(error: ValidationError) -> Iterable[Violation]:
    """Keys and rules; never the value, which may be a password in the wrong place."""
    for problem in error.errors(include_url=False, include_input=False, include_context=False):
        yield Violation(".".join(str(part) for part in problem["loc"]) or "config", problem["msg"])
