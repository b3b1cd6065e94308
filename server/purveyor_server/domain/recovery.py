"""A restored store: what it remembers of its backup until an operator says that the recovery is over.

Guarantee: revisions of a restored store begin JUMP after those of its backup, so that a marker tells on which side of the
restore its resource was made: up to `revision` before the backup, then in the time that was lost, then after the restore.
Source: DESIGN.md section 10.
"""

from __future__ import annotations

from datetime import datetime

import msgspec

JUMP = 2**40  # revisions; more than a store can write between a backup and the loss of what followed


class Recovery(msgspec.Struct, frozen=True):
    """The backup's time and newest revision, and when it was restored."""

    taken_at: datetime
    restored_at: datetime
    revision: int

    def was_lost(self, revision: int) -> bool:
        """Whether something with this revision was made after the backup and before the restore.

        A marker carries the head that its operation was accepted at, before its own event: at `revision` itself it was
        accepted after everything that is in the backup.
        """
        return self.revision <= revision < self.revision + JUMP
