"""What the catalog says of this provider and its plans, and what a consumer may ask for.

Every bad value is named by its key; unknown keys are refused.
"""

from __future__ import annotations

from pathlib import Path

from purveyor_server.providers.contract import Permanent, WorkSettings
from purveyor_server.providers.strict import Strict, read_values
from pydantic import Field


class ProviderConfig(Strict):
    """`providers.<name>.config` of the catalog.

    REPLACE: address and account of your server. A password is a reference here, `password: dict[str, str]`, and its
    value is `environment.reference(config.password)` in the provider's constructor: it is never in the catalog.
    """

    root: Path | None = None  # the folder of the boxes; default: in the broker's data folder


class PlanSettings(Strict):
    """`settings` of a plan. REPLACE: what an operator decides for all instances of a plan."""

    size: int = Field(ge=1, le=1000, description="Of an instance that asks for none.")
    max_size: int | None = Field(default=None, ge=1, le=1000, description="What an instance may ask for.")


class Parameters(Strict):
    """What a consumer asks for when provisioning or updating. REPLACE."""

    size: int | None = Field(default=None, ge=1, le=1000)


class BindingParameters(Strict):
    """What a consumer asks for when binding. REPLACE; here there is nothing to choose."""


def size_of(settings: WorkSettings | None) -> int:
    """What plan and parameters come to. REPLACE. Raises Permanent that names the bad key."""
    if settings is None:
        raise Permanent("there are no settings to work towards")
    plan = read_values(PlanSettings, settings.plan, "the plan's settings")
    asked = read_values(Parameters, settings.parameters, "the parameters").size
    most = plan.size if plan.max_size is None else plan.max_size
    if asked is not None and asked > most:
        raise Permanent(f"size: {asked} is more than the plan allows ({most})")
    return plan.size if asked is None else asked
