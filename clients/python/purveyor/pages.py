"""Walking over the pages of a list.

Guarantee: a page is fetched when the reader gets to it, and the walk ends with the server's empty token.
Limit: a walk is not a snapshot; each item is as of the reading of its page.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import grpc.aio

    from purveyor.connection import Connection


class _Asks(Protocol):
    page_token: str


class _Page(Protocol):
    @property
    def next_page_token(self) -> str: ...


Request = TypeVar("Request", bound=_Asks)
Page = TypeVar("Page", bound=_Page)


async def walk(
    connection: Connection, method: grpc.aio.UnaryUnaryMultiCallable[Request, Page], request: Request
) -> AsyncIterator[Page]:
    """The pages of `request`, which is changed on the way. Raises PurveyorError."""
    while True:
        page = await connection.call(method, request)
        yield page
        if not page.next_page_token:
            return
        request.page_token = page.next_page_token
