"""What every asyncio client is: something that is opened once at a time and then has a connection.

Guarantee: a client that is open cannot be opened again, so no connection is lost; closing is idempotent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Self

from purveyor import tokens
from purveyor.connection import Connection
from purveyor.tls import choose

if TYPE_CHECKING:
    from os import PathLike
    from types import TracebackType

    from purveyor.connection import Limits
    from purveyor.tls import Tls


class OpenedClient:
    """Base of the clients; `address` is a target for a gRPC channel."""

    _opening: ClassVar[str]  # how it is opened, for whoever forgot to

    def __init__(
        self,
        address: str,
        limits: Limits,
        tls: Tls | bool | None,  # noqa: FBT001 - see `tls.choose`
        token: str | None = None,
        token_file: str | PathLike[str] | None = None,
    ) -> None:
        self.address = address
        self._limits = limits
        self._tls = choose(tls, address)
        self._token = tokens.choose(token, token_file, address, secure=self._tls is not None)
        self._connection: Connection | None = None

    async def __aenter__(self) -> Self:
        if self._connection is not None:
            raise RuntimeError("the client is open already")
        self._connection = Connection(self.address, self._limits, self._tls, self._token)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection; calls in flight are cancelled here, never on the server."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    @property
    def connection(self) -> Connection:
        """The open connection. Raises RuntimeError outside `async with`."""
        if self._connection is None:
            raise RuntimeError(f"the client is not open: use `{self._opening}`")
        return self._connection
