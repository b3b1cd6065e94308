"""Where keys come from besides a file: an environment variable, or a command that prints them.

Guarantee: neither a key nor what a command printed gets into a message; a command is started without a shell, has a time-out
and a bound on its output, and nothing of it is left running. The variable is taken out of the environment when it is
read, so that no child process inherits it.
Limit: the environment that the process was started with stays readable in /proc for the same user and for root.
"""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import time
from collections.abc import MutableMapping
from contextlib import suppress
from typing import IO, Protocol

from purveyor_server.security.keytext import HEADER, MAX_BYTES, KeyFileError, KeyTrouble, parse

_PIECE = 4096
END_SECONDS = 5.0  # that a command may take to end after its output


class KeySource(Protocol):
    """Where the labelled keys are. `name` says it to a person."""

    name: str

    def load(self) -> dict[str, bytes]:
        """Blocking: the keys by label, the sealing one first; empty when there is no such thing. Raises KeyFileError."""
        ...

    def first(self) -> dict[str, bytes]:
        """Blocking: the keys for a store that has none yet. Raises KeyFileError."""
        ...

    def remove(self, label: str) -> bool:
        """Blocking: take a key out, where that is this program's to do; returns whether it did. Raises KeyFileError."""
        ...


class EnvironmentKeys:
    """Keys in a variable: as in a key file, the header line optional, `;` as good as a new line."""

    def __init__(self, variable: str, environ: MutableMapping[str, str] | None = None) -> None:
        self._variable = variable
        self._environ = os.environ if environ is None else environ
        self._text: str | None = None
        self.name = f"the environment variable {variable}"

    def load(self) -> dict[str, bytes]:
        self._text = self._environ.pop(self._variable, self._text)
        if self._text is None:
            return {}
        lines = self._text.replace(";", "\n").encode()
        return parse(self.name, lines, with_header=lines.lstrip().startswith(HEADER.encode()))

    def first(self) -> dict[str, bytes]:
        return _found(self)

    def remove(self, label: str) -> bool:  # noqa: ARG002 - the protocol's
        return False


class CommandKeys:
    """Keys printed by a command, in the format of the key file."""

    def __init__(self, command: tuple[str, ...], seconds: float) -> None:
        self._command = command
        self._seconds = seconds
        self.name = f"the key command {command[0]}"

    def load(self) -> dict[str, bytes]:
        try:
            process = subprocess.Popen(  # noqa: S603 - the operator's own command, without a shell
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,  # it may hold a key, and would go into the log
                start_new_session=True,
            )
        except OSError as failure:
            raise self._trouble(f"cannot be started: {failure.strerror}") from None
        assert process.stdout is not None, "it is a pipe"
        try:
            text = self._read(process.stdout)
            code = process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            raise self._trouble("does not end") from None
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.stdout.close()
            process.wait()
        if code:
            raise self._trouble(f"ended with code {code}; run it by hand to see why")
        return parse(self.name, text)

    def _read(self, output: IO[bytes]) -> bytes:
        """All that it prints, within time and bound."""
        until, text = time.monotonic() + self._seconds, b""
        with selectors.DefaultSelector() as selector:
            selector.register(output, selectors.EVENT_READ)
            while selector.select(max(0.0, until - time.monotonic())):
                piece = os.read(output.fileno(), _PIECE)
                if not piece:
                    return text
                text += piece
                if len(text) > MAX_BYTES:
                    raise self._trouble(f"printed more than {MAX_BYTES} bytes")
        raise self._trouble(f"did not answer within {self._seconds:g} s")

    def _trouble(self, what: str) -> KeyFileError:
        return KeyFileError(KeyTrouble.UNREADABLE, f"{self.name} {what}")

    def first(self) -> dict[str, bytes]:
        return _found(self)

    def remove(self, label: str) -> bool:  # noqa: ARG002 - the protocol's
        return False


def _found(source: KeySource) -> dict[str, bytes]:
    """What is there: only a key file is made by this program."""
    keys = source.load()
    if not keys:
        raise KeyFileError(
            KeyTrouble.LOST, f"{source.name} holds no keys; `purveyor keys new --print` makes one to put there"
        )
    return keys
