"""SQL as files: `load("commands")` gives the statements of `commands.sql` by their `-- name:` lines.

Guarantee: a name is unique in its file and an unknown one fails at import, not at the first call.
"""

from __future__ import annotations

from pathlib import Path

_MARK = "-- name:"
_FOLDER = Path(__file__).parent


class Queries:
    """The statements of one file."""

    def __init__(self, topic: str, text: str) -> None:
        self._topic = topic
        self._texts: dict[str, str] = {}
        for part in text.split(_MARK)[1:]:
            name, _, statement = part.partition("\n")
            if name.strip() in self._texts:
                raise ValueError(f"{topic}.sql names {name.strip()!r} twice")
            self._texts[name.strip()] = statement.strip().removesuffix(";")

    def __getitem__(self, name: str) -> str:
        if name not in self._texts:
            raise LookupError(f"{self._topic}.sql has no statement {name!r}")
        return self._texts[name]

    def names(self) -> tuple[str, ...]:
        """Every name in the file, in its order."""
        return tuple(self._texts)


def load(topic: str) -> Queries:
    """The statements of `<topic>.sql`."""
    return Queries(topic, (_FOLDER / f"{topic}.sql").read_text(encoding="utf-8"))
