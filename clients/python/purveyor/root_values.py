"""What a rotation of the broker's own accounts has done."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class RotatedRoots:
    """Accounts with new credentials, as the backend names them, and parts of it that do not run and keep what they had."""

    accounts: tuple[str, ...]
    left: tuple[str, ...] = ()
