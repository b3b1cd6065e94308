"""Makes a story that goes wrong shorter, by leaving out what it goes wrong without."""

from __future__ import annotations

import time
from collections.abc import Callable

from tests.year.actions import Story

BUDGET_SECONDS = 30.0


def shortest(story: Story, is_wrong: Callable[[Story], bool], seconds: float = BUDGET_SECONDS) -> Story:
    """A story without anything that it goes wrong without, as far as `seconds` suffice."""
    end = time.monotonic() + seconds
    size = max(1, len(story) // 2)
    while size:
        start, shorter = 0, False
        while start < len(story) and time.monotonic() < end:
            rest = story[:start] + story[start + size :]
            if is_wrong(rest):
                story, shorter = rest, True
            else:
                start += size
        size = size // 2 if not shorter or size > 1 else size
    return story
