"""The end of a list that is told oldest first."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

Item = TypeVar("Item")


async def newest(items: AsyncIterator[Item], limit: int | None) -> tuple[list[Item], int]:
    """The last `limit` items, all without one; and how many there were."""
    kept: deque[Item] = deque(maxlen=limit)
    count = 0
    async for item in items:
        kept.append(item)
        count += 1
    return list(kept), count
