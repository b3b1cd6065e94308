"""The channel of a client, and another one when the files of its TLS change.

Guarantee: a call that begins after files were renewed uses them, a second later at most; calls that are open go on over the
channel that they began with. New files that cannot be used keep the old channel until they are mended.
Limit: the last few channels are kept for their calls; what is still open after MAX_RETIRED renewals is cut off, and told
apart from a cancelled task as CONNECTION_LOST.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

import grpc.aio

from purveyor.errors import InvalidRequestError
from purveyor.tokens import TokenChannel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from purveyor.tls import Tls
    from purveyor.tokens import TokenSource

LOOK_SECONDS = 1.0
MAX_RETIRED = 8


class Channels:
    """`current()` is for the next call. Make it inside the event loop that uses it. Raises InvalidRequestError for bad files."""

    def __init__(
        self,
        address: str,
        tls: Tls | None,
        options: Sequence[tuple[str, str | int]],
        token: TokenSource | None = None,
    ) -> None:
        self._address = address
        self._tls = tls
        self._token = token
        self._options = options
        self._clock = asyncio.get_running_loop().time
        self._looked_at = self._clock()
        self._stamp = tls.stamp() if tls else ()
        self._channel = self._open()
        self._used = self._with_token(self._channel)
        self._retired: list[grpc.aio.Channel] = []
        self._closing: set[asyncio.Task[None]] = set()
        self._renewed = 0
        self.dropped = False  # whether a channel was closed that may have had calls

    def _open(self) -> grpc.aio.Channel:
        if self._tls is None:
            return grpc.aio.insecure_channel(self._address, options=self._options)
        options = [*self._options, *self._tls.options(self._address)]
        return grpc.aio.secure_channel(self._address, self._tls.credentials(), options=options)

    def _with_token(self, channel: grpc.aio.Channel) -> grpc.aio.Channel:
        """The channel as calls use it."""
        if self._token is None:
            return channel
        return cast("grpc.aio.Channel", TokenChannel(channel, self._token))

    @property
    def renewals(self) -> int:
        """How often the files of TLS, and of the token, have changed."""
        return self._renewed + (self._token.renewals if self._token is not None else 0)

    def current(self) -> grpc.aio.Channel:
        """The channel for a call that begins now."""
        if self._tls is not None and self._clock() - self._looked_at >= LOOK_SECONDS:
            self._looked_at = self._clock()
            self._renew(self._tls)
        return self._used

    def _renew(self, tls: Tls) -> None:
        stamp = tls.stamp()  # before the files are read: what changes meanwhile is met at the next look
        if stamp == self._stamp:
            return
        try:
            fresh = self._open()
        except InvalidRequestError:
            return  # half of a pair so far, or damaged: looked at again
        self._stamp = stamp
        self._renewed += 1
        self._retired.append(self._channel)
        self._channel = fresh
        self._used = self._with_token(fresh)
        if len(self._retired) > MAX_RETIRED:
            self.dropped = True
            task = asyncio.create_task(self._retired.pop(0).close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    def newer_than(self, renewals: int) -> bool:
        """Whether there are other files than at renewal number `renewals`, used already or not."""
        if self._token is not None:
            self._token.is_stale()  # takes the newer one
        return self.renewals != renewals or (self._tls is not None and self._tls.stamp() != self._stamp)

    async def close(self) -> None:
        """Close all of them; their calls are cancelled."""
        self._tls = None
        await asyncio.gather(self._channel.close(), *(old.close() for old in self._retired), *self._closing)
