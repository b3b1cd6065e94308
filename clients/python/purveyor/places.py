"""Where a reader of events stands, kept over its own restarts.

Guarantee: a place is saved only after every event before it was taken in, so a reader that dies reads some events again and
misses none. A file holds a whole place at every moment, or is not there.
Limit: what the reader made of the events is its own to keep; `Event.revision` tells what it had already.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol

MODE = 0o600


class EventPlace(Protocol):
    """Something that keeps a place: a file, a row of the reader's own database. Called in a thread, one call at a time."""

    def load(self) -> str:
        """The place that was saved last; empty when none was."""
        ...

    def save(self, token: str) -> None:
        """Keep this place."""
        ...


class FilePlace:
    """A place in a file of its own. Raises OSError, and ValueError for a file that holds something else."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)

    def load(self) -> str:
        """The place in the file; empty when there is no file."""
        try:
            token = self._path.read_text(encoding="ascii").strip()
        except FileNotFoundError:
            return ""
        if not token or any(letter.isspace() for letter in token):
            # Empty is damage, not a beginning: to begin anew would skip what happened meanwhile.
            raise ValueError(f"{self._path} holds no place in a stream of events")
        return token

    def save(self, token: str) -> None:
        """Write the place beside the old one, then put it in its place."""
        draft = self._path.with_name(f".{self._path.name}.new")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, MODE)
        with os.fdopen(descriptor, "w", encoding="ascii") as stream:
            stream.write(token + "\n")
            stream.flush()
            os.fsync(stream.fileno())
        draft.replace(self._path)
