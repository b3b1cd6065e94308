"""Which source of keys the settings name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from purveyor_server.config.settings import Settings
from purveyor_server.security.keyfile import KeyFile

if TYPE_CHECKING:
    from purveyor_server.security.keysource import KeySource


def key_source(settings: Settings) -> KeySource:
    """Where the keys are."""
    given = settings.keys
    if given.source == "file":
        return KeyFile(settings.keys_path)
    # Only here: a start with a key file need not load how commands are run.
    from purveyor_server.security.keysource import CommandKeys, EnvironmentKeys  # noqa: PLC0415 - see above

    if given.source == "environment":
        return EnvironmentKeys(given.variable)
    return CommandKeys(given.command, given.timeout.total_seconds())
