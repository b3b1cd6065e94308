"""Text on its way to a person or a script.

Guarantee: text from elsewhere moves no cursor, and a remark that cannot be written (stderr is closed or full) stops nothing.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress


def clean(value: object) -> str:
    """Text without control characters."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in str(value))


def clean_lines(value: object) -> str:
    """The same over several lines, all but the first indented."""
    return "\n  ".join(clean(line) for line in str(value).splitlines())


def tell(line: str) -> None:
    """One line on stderr."""
    with suppress(OSError):
        sys.stderr.write(line + "\n")
        sys.stderr.flush()


def drop_output() -> None:
    """Send what is still buffered for stdout nowhere, so that the end of the process does not try again."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
