"""What a thing says of itself beside its marker: how it was before it was put in quarantine, or before it was adopted.

Guarantee: the comment of a thing is its marker, alone or followed by one space and a note as JSON; whoever makes the thing anew
writes the marker alone, so a note never outlives what it is about.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from purveyor_server.domain.model import Json


class Comment(NamedTuple):
    """A comment, taken apart."""

    marker: str
    note: dict[str, Json]


def read(comment: str | None) -> Comment:
    """The marker and the note; both empty for what carries none."""
    marker, _, text = (comment or "").partition(" ")
    try:
        note = msgspec.json.decode(text, type=dict[str, Json]) if text.startswith("{") else {}
    except msgspec.MsgspecError:
        note = {}
    return Comment(marker, note)


def write(marker: str, note: dict[str, Json]) -> str:
    """The comment of a thing with that marker and note."""
    return f"{marker} {msgspec.json.encode(note).decode()}" if note else marker
