"""The data folder: who may enter it, and the note that tells scripts where the broker listens.

Guarantee: the folder is ours and closed to everybody else (0700) before anything is put into it; a folder that is not is
refused, never changed.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path

from purveyor_server.app.refusals import Exit, StartRefusedError

ENDPOINT = "endpoint"
ADMIN_ENDPOINT = "admin-endpoint"


def prepare_data_dir(path: Path) -> None:
    """Make the folder (0700) or check the one that is there; raises StartRefusedError."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = path.stat()
    except OSError as failure:
        raise _refused(f"the data folder {path} cannot be made: {failure.strerror}") from None
    if status.st_uid != os.geteuid():
        raise _refused(f"the data folder {path} belongs to uid {status.st_uid}, the broker runs as uid {os.geteuid()}")
    if bits := stat.S_IMODE(status.st_mode) & 0o077:
        raise _refused(
            f"the data folder {path} is open to others (mode bits {bits:03o}); take them away: chmod 700 {path}"
        )


def note_endpoint(folder: Path, addresses: Iterable[str], name: str = ENDPOINT) -> Path:
    """Write the addresses, one per line, to the file `name`; it is whole or not there."""
    path = folder / name
    draft = folder / f".{name}.new"
    draft.write_text("".join(f"{address}\n" for address in addresses), encoding="utf-8")
    draft.replace(path)
    return path


def scratch_dir(folder: Path) -> Path:
    """An empty folder (0700) for what lives as long as one call; what a crash left there is removed."""
    path = folder / "scratch"
    path.mkdir(mode=0o700, exist_ok=True)
    for left in path.iterdir():
        left.unlink()
    return path


def _refused(message: str) -> StartRefusedError:
    return StartRefusedError(Exit.STORE, message)
