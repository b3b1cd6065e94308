"""What the catalog says of a directory provider and its plans, and what a consumer may ask for.

Guarantee: every bad value is named by its key, before the disk is touched; unknown keys are refused.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Annotated, Literal, NamedTuple

from pydantic import AfterValidator, Field

from purveyor_server.providers.contract import Permanent, WorkSettings
from purveyor_server.providers.strict import Strict, read_values

MOST_BYTES = 1 << 50
MOST_FILES = 1 << 40
MODES = {"0700": 0o700, "0750": 0o750, "0770": 0o770}


def _plain(value: str) -> str:
    path = PurePosixPath(value)
    if not path.is_absolute() or ".." in path.parts or "\0" in value:
        raise ValueError("an absolute path without '..' is needed")
    return str(path)


class DirectoryConfig(Strict):
    """Where the folders of all instances are, and who may enter them."""

    root: Annotated[str, AfterValidator(_plain)] | None = None  # default: in the broker's data folder
    mode: Literal["0700", "0750", "0770"] = "0700"  # of an instance's folders
    group: str = Field(
        default="", max_length=63
    )  # an OS group of which the broker is a member; default: the broker's own

    @property
    def mode_bits(self) -> int:
        """As the OS wants it."""
        return MODES[self.mode]


class PlanSettings(Strict):
    """What a plan fixes."""

    quota_bytes: int = Field(ge=1, le=MOST_BYTES, description="Most bytes, unless the instance asks for others.")
    quota_files: int = Field(default=10_000, ge=1, le=MOST_FILES, description="Most files and folders, likewise.")
    max_quota_bytes: int | None = Field(default=None, ge=1, le=MOST_BYTES, description="What an instance may ask for.")
    max_quota_files: int | None = Field(default=None, ge=1, le=MOST_FILES, description="What an instance may ask for.")


class Parameters(Strict):
    """What a consumer may ask for when provisioning or updating."""

    quota_bytes: int | None = Field(default=None, ge=1, le=MOST_BYTES)
    quota_files: int | None = Field(default=None, ge=1, le=MOST_FILES)


class BindingParameters(Strict):
    """A binding has nothing to choose."""


class Quota(NamedTuple):
    """Most bytes and most files (folders count) of one instance."""

    bytes: int
    files: int


def quota_of(settings: WorkSettings | None) -> Quota:
    """The quota of one side of a work. Raises Permanent that names the bad key."""
    if settings is None:
        raise Permanent("there are no settings to work towards")
    plan = read_values(PlanSettings, settings.plan, "the plan's settings")
    asked = read_values(Parameters, settings.parameters, "the parameters")
    return Quota(
        _within("quota_bytes", asked.quota_bytes, plan.quota_bytes, plan.max_quota_bytes),
        _within("quota_files", asked.quota_files, plan.quota_files, plan.max_quota_files),
    )


def _within(key: str, asked: int | None, default: int, most: int | None) -> int:
    limit = default if most is None else most
    if asked is not None and asked > limit:
        raise Permanent(f"{key}: {asked} is more than the plan allows ({limit})")
    return default if asked is None else asked
