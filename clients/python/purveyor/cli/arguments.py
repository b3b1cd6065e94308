"""Arguments of commands: parameters as `key=value`, files, durations.

Guarantee: a value is JSON if it reads as JSON (`5`, `true`, `["a"]`, `"5"`), else text; what cannot be read is refused with
the option's name, before anything is called.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Iterable

    from purveyor.values import Json

MAX_FILE_BYTES = 1 << 20  # the server takes no larger request
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}

Params = Annotated[
    list[str] | None,
    typer.Option("--param", "-p", metavar="KEY=VALUE", help="A parameter; VALUE is JSON, or text.", show_default=False),
]
ParamsFile = Annotated[
    str | None, typer.Option(metavar="FILE", help="Parameters as a JSON object; - is stdin.", show_default=False)
]
Labels = Annotated[
    list[str] | None, typer.Option("--label", "-l", metavar="KEY=VALUE", help="A label.", show_default=False)
]
Wait = Annotated[bool, typer.Option(help="Wait for the end, with progress, or return at once.")]
Timeout = Annotated[
    float | None, typer.Option(metavar="SECONDS", help="Wait at most this long.", min=0.0, show_default=False)
]
ValidateOnly = Annotated[
    bool,
    typer.Option(
        "--validate-only", "--dry-run", help="Make every check, change nothing, show the steps.", show_default=False
    ),
]
RequestId = Annotated[str | None, typer.Option(metavar="ID", help="Send an earlier request again.", show_default=False)]
Filter = Annotated[
    str, typer.Option(metavar="FILTER", help="As in: state = READY AND NOT plan_id = big.", show_default=False)
]

Limit = Annotated[
    int | None, typer.Option("--limit", "-n", metavar="N", help="The newest N.", min=1, show_default=False)
]


def parameters(pairs: Iterable[str] | None, file: str | None) -> dict[str, Json] | None:
    """The parameters of a file, with those of the command line over them; None when there are none."""
    if not pairs and file is None:
        return None
    found = {} if file is None else _read(file)
    found.update(values("--param", pairs))
    return found


def values(option: str, pairs: Iterable[str] | None) -> dict[str, Json]:
    """NAME=VALUE pairs of an option; a value that is JSON is taken as such. Raises typer.BadParameter, naming the option."""
    return {key: _value(option, value) for key, value in _pairs(option, pairs)}


def labels(pairs: Iterable[str] | None) -> dict[str, str] | None:
    """Labels; None when there are none."""
    return dict(_pairs("--label", pairs)) or None


def _pairs(option: str, pairs: Iterable[str] | None) -> list[tuple[str, str]]:
    split = [pair.partition("=") for pair in pairs or ()]
    for key, separator, _ in split:
        if not key or not separator:
            raise typer.BadParameter(f"{key!r} is not KEY=VALUE", param_hint=option)
    return [(key, value) for key, _, value in split]


def _value(option: str, text: str) -> Json:
    try:
        found: Json = json.loads(text)
    except ValueError:
        return text
    except RecursionError as error:
        raise typer.BadParameter("nested too deep", param_hint=option) from error
    return found


def _read(file: str) -> dict[str, Json]:
    try:
        found: Any = json.loads(_text(file))
    except (OSError, ValueError, RecursionError) as error:
        raise typer.BadParameter(f"{file}: {error}", param_hint="--params-file") from error
    if not isinstance(found, dict):
        raise typer.BadParameter(f"{file}: not a JSON object", param_hint="--params-file")
    return found


def _text(file: str) -> str:
    if file == "-":
        text = sys.stdin.read(MAX_FILE_BYTES + 1)
    else:
        with Path(file).open(encoding="utf-8") as stream:
            text = stream.read(MAX_FILE_BYTES + 1)
    if len(text) > MAX_FILE_BYTES:
        raise ValueError(f"larger than {MAX_FILE_BYTES} bytes")
    return text


def duration(text: str | None, option: str) -> float | None:
    """Seconds of `90`, `90s`, `15m`, `2h` or `1d`; None stays None."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", text)
    if found is None:
        raise typer.BadParameter(f"{text!r} is not a duration such as 90s, 15m, 2h or 1d", param_hint=option)
    return float(found[1]) * _UNITS[found[2]]
