"""Texts that this process works with for a while and that must not be told.

Guarantee: within `hiding` every log line, and every text that passes `masked`, shows `***` instead of a hidden text of
at least SHORTEST characters, also where JSON has escaped it.
Limit: shorter texts are not looked for: they are a part of too much that is harmless.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

MASK = "***"
SHORTEST = 6

_hidden: Counter[str] = Counter()


@contextmanager
def hiding(values: Iterable[Any]) -> Iterator[None]:
    """Hide the texts in these JSON values until the block ends."""
    texts = {form for value in values for text in _texts(value) for form in (text, json.dumps(text)[1:-1])}
    _hidden.update(texts)
    try:
        yield
    finally:
        for text in texts:
            _hidden[text] -= 1
            if not _hidden[text]:
                del _hidden[text]


def masked(text: str) -> str:
    """`text` without what is hidden now; the longest first, for one may hold another."""
    if not _hidden:
        return text
    for hidden in sorted((hidden for hidden in _hidden if hidden in text), key=len, reverse=True):
        text = text.replace(hidden, MASK)
    return text


def holds_hidden(value: Any) -> bool:
    """Whether a JSON value holds a text that is hidden now, as a key or within a text."""
    return bool(_hidden) and any(hidden in text for text in _texts(value, 1) for hidden in _hidden)


def _texts(value: Any, shortest: int = SHORTEST) -> Iterator[str]:
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, dict):
            stack.extend((*item.keys(), *item.values()))
        elif isinstance(item, list | tuple):
            stack.extend(item)
        elif isinstance(item, str) and len(item) >= shortest:
            yield item
