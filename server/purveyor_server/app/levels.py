"""How much this process logs, as operators see and change it."""

from __future__ import annotations

from typing import cast

from purveyor_server.telemetry import logs


class LogLevels:
    """The process's own log level."""

    def current(self) -> str:
        """debug, info, warning or error."""
        return logs.current_level()

    def change(self, level: str) -> str:
        """Set it; returns what it was."""
        return logs.set_level(cast("logs.Level", level))
