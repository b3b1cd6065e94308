"""An issuer's keys, from a file or a URL, kept fresh.

Guarantee: keys are read again every `refresh` seconds (a file: when it changed), and at once for a key id that is not
known, at most once per `pause` seconds whoever asks how often; a reading that fails keeps the keys that were there, for
`stale` seconds, with one log line per trouble and a number for metrics.
Limit: after `stale` seconds without a good reading no token of the issuer is believed: IDENTITY_UNAVAILABLE. A key that its
issuer takes away is believed until the next reading.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import msgspec
import structlog

from purveyor_server.domain.errors import PurveyorError, Reason
from purveyor_server.kit.clock import Clock
from purveyor_server.security.identity.fetching import Fetcher, FetchError
from purveyor_server.security.identity.keysets import KeySet, KeySetError, VerifyingKey, parse_key_set

MAX_BYTES = 1024 * 1024
_log = structlog.get_logger(__name__)


class Source(Protocol):
    """Where the text of a key set is."""

    async def read(self, *, force: bool) -> bytes | None:
        """The text; None when it is the same as before, which only a reading without `force` says. Raises FetchError."""
        ...


class FileSource:
    """A file; it is read when its time or size changed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None

    async def read(self, *, force: bool) -> bytes | None:
        return await asyncio.to_thread(self._read, force)

    def _read(self, force: bool) -> bytes | None:  # noqa: FBT001 - private
        try:
            looks = self._path.stat()
            seen = (looks.st_mtime_ns, looks.st_size, looks.st_ino)
            if seen == self._seen and not force:
                return None
            with self._path.open("rb") as file:
                text = file.read(MAX_BYTES + 1)
        except OSError as failure:
            raise FetchError(f"cannot be read ({failure.strerror})") from None
        if len(text) > MAX_BYTES:
            raise FetchError(f"is larger than {MAX_BYTES} bytes")
        self._seen = seen
        return text


class UrlSource:
    """A URL of an allow-listed host."""

    def __init__(self, url: str, fetcher: Fetcher) -> None:
        self._url = url
        self._fetcher = fetcher

    async def read(self, *, force: bool) -> bytes | None:  # noqa: ARG002 - it is always read
        return await self._fetcher.fetch(self._url)


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """In seconds. `look`: between two readings; `retry`: after a failed one; `pause`: between two for unknown key ids."""

    look: float = 300.0
    retry: float = 30.0
    pause: float = 10.0
    stale: float = 24 * 3600.0


class Jwks:
    """The keys of one issuer. `on_change` is called when there are other ones."""

    def __init__(self, name: str, source: Source, clock: Clock, pace: Pace | None = None) -> None:
        self.name = name
        self._source = source
        self._clock = clock
        self._pace = pace or Pace()
        self._keys: KeySet | None = None
        self._text = b""
        self._good_at = self._tried_at = float("-inf")
        self._reading: asyncio.Task[None] | None = None
        self.on_change: Callable[[], None] = lambda: None
        self.trouble = ""
        self.failures = 0

    @property
    def age(self) -> float:
        """Seconds since the last good reading; infinite before it."""
        return self._clock.monotonic() - self._good_at

    @property
    def keys(self) -> int:
        """How many keys there are."""
        return len(self._keys) if self._keys is not None else 0

    async def find(self, key_id: str, algorithm: str) -> VerifyingKey | None:
        """A key, after another look when it is new. Raises IDENTITY_UNAVAILABLE when there are no keys to go by."""
        found = self._known(key_id, algorithm)
        if found is None and self._clock.monotonic() - self._tried_at >= self._pace.pause:
            await self.refresh(force=True)
            found = self._known(key_id, algorithm)
        if self._keys is None or self.age > self._pace.stale:
            text = "the keys of the token's issuer cannot be had"
            raise PurveyorError(Reason.IDENTITY_UNAVAILABLE, text, metadata={"issuer": self.name})
        return found

    def _known(self, key_id: str, algorithm: str) -> VerifyingKey | None:
        return self._keys.find(key_id, algorithm) if self._keys is not None else None

    async def refresh(self, *, force: bool = False) -> None:
        """Read once, whoever asks meanwhile; never raises for a reading that fails."""
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._refresh(force), name=f"keys of {self.name}")
        await asyncio.shield(self._reading)

    async def _refresh(self, force: bool) -> None:  # noqa: FBT001 - private
        self._tried_at = self._clock.monotonic()
        try:
            text = await self._source.read(force=force)
            if text is not None and text != self._text:
                await self._take(text)
        except (FetchError, KeySetError) as failure:
            self._refuse(str(failure))
            return
        self.trouble, self._good_at = "", self._clock.monotonic()

    async def _take(self, text: bytes) -> None:
        self._keys = await asyncio.to_thread(parse_key_set, text)
        self._text = text
        _log.info("keys of an issuer taken", issuer=self.name, keys=len(self._keys))
        self.on_change()

    def _refuse(self, trouble: str) -> None:
        self.failures += 1
        if trouble != self.trouble:
            self.trouble = trouble
            _log.error("keys of an issuer cannot be read, the old ones go on", issuer=self.name, why=trouble)

    async def run(self) -> None:
        """Read for ever."""
        while True:
            await asyncio.sleep(self._pace.retry if self.trouble else self._pace.look)
            await self.refresh()

    async def close(self) -> None:
        """End a reading that is under way."""
        reading = self._reading
        if reading is not None and not reading.done():
            reading.cancel()
            await asyncio.wait([reading])
