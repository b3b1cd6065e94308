"""The open calls of a server, by what their callers showed: to be ended together when that is no longer good.

Guarantee: a call is here exactly while it is served; what has no open call is forgotten.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

from purveyor_server.domain.errors import PurveyorError
from purveyor_server.rpc.calls import Call

Shown = TypeVar("Shown")


class OpenCalls(Generic[Shown]):
    """Calls by a key of what was shown."""

    def __init__(self) -> None:
        self._open: dict[Hashable, tuple[Shown, set[Call]]] = {}

    @contextmanager
    def holding(self, key: Hashable, shown: Shown, call: Call) -> Iterator[None]:
        """`call` is open until the block ends."""
        _, calls = self._open.setdefault(key, (shown, set()))
        calls.add(call)
        try:
            yield
        finally:
            calls.discard(call)
            if not calls:
                self._open.pop(key, None)

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[tuple[Shown, set[Call]]]:
        """What was shown, and the calls by it, as of now: it may change while they are gone through."""
        return iter(list(self._open.values()))


def interrupt(calls: Iterable[Call], refusal: PurveyorError, counted: Callable[[PurveyorError], PurveyorError]) -> None:
    """End those of `calls` that were not ended before, each with a refusal of its own that is `counted`."""
    for call in [call for call in calls if call.interrupted is None]:
        call.interrupt(counted(refusal.again()))
