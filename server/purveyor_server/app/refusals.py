"""Why a start was refused, as an exit code and one message a person can act on.

Guarantee: the codes are part of the command's contract: scripts tell by them what to repair.
"""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """Exit codes of `purveyor serve` and `purveyor config check`."""

    OK = 0
    FAILED = 1  # a defect: the log has the details
    CONFIG = 2  # settings or catalog
    STORE = 3  # data folder, database or key file
    LISTEN = 4  # an address


class StartRefusedError(Exception):
    """The broker does not start; nothing was changed that a later start could not use."""

    def __init__(self, code: Exit, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
