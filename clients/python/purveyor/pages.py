"""Walking over the pages of a list.

Guarantee: a page is fetched when the reader gets to it, and the walk ends with the server's empty token. A page that is too
large for one message is asked for again in halves, down to single items.
Limit: a walk is not a snapshot; each item is as of the reading of its page.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

from purveyor.errors import ResourceExhaustedError, TransportReason

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import grpc.aio

    from purveyor.connection import Connection


SERVER_PAGE = 100  # what the contract takes for a page size of 0
MAX_PAGE = 1000


class _Asks(Protocol):
    page_token: str
    page_size: int


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
        try:
            page = await connection.call(method, request)
        except ResourceExhaustedError as error:
            size = min(request.page_size or SERVER_PAGE, MAX_PAGE)
            if error.transport_reason != TransportReason.CALL_TOO_LARGE or size <= 1:
                raise
            request.page_size = size // 2
            continue
        yield page
        if not page.next_page_token:
            return
        request.page_token = page.next_page_token
