"""Fetching a small document from an allow-listed host.

Guarantee: only hosts of the list are asked, over HTTPS (plain HTTP for loopback alone); a redirect is followed only to the
same scheme, host and port; the whole takes at most `seconds`, the document at most `limit` bytes as they come over the
wire: compressed ones are refused. No proxy and no credential of the environment is used.
Limit: where a listed name leads is the business of DNS.
"""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urljoin, urlsplit

import httpx

MAX_REDIRECTS = 3
MAX_URL = 2048
_LOCAL_NAMES = frozenset({"localhost"})


class FetchError(Exception):
    """A document could not be fetched; the message says why and shows none of it."""


class Origin(NamedTuple):
    """Who is asked."""

    scheme: str
    host: str
    port: int


class Fetcher:
    """Fetches from `hosts` (names, in lower case); `ca`: a file with the authorities of their certificates."""

    def __init__(
        self,
        hosts: frozenset[str],
        *,
        ca: Path | None = None,
        limit: int = 1024 * 1024,
        seconds: float = 5.0,
        transport: Callable[[], httpx.AsyncBaseTransport] | None = None,
    ) -> None:
        self._hosts = hosts
        self._ca = ca
        self._limit = limit
        self._seconds = seconds
        self._transport = transport

    async def fetch(self, url: str) -> bytes:
        """The document. Raises FetchError."""
        try:
            async with asyncio.timeout(self._seconds), self._client() as client:
                return await self._follow(client, url)
        except TimeoutError:
            raise FetchError(f"took longer than {self._seconds:g} s") from None
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ssl.SSLError) as failure:
            raise FetchError(f"could not be fetched ({type(failure).__name__})") from failure

    def _client(self) -> httpx.AsyncClient:
        verify: ssl.SSLContext | bool = ssl.create_default_context(cafile=self._ca) if self._ca is not None else True
        return httpx.AsyncClient(
            verify=verify,
            trust_env=False,
            follow_redirects=False,
            timeout=self._seconds,
            transport=self._transport() if self._transport is not None else None,
            headers={"accept": "application/json", "accept-encoding": "identity"},
        )

    async def _follow(self, client: httpx.AsyncClient, url: str) -> bytes:
        first = check_url(url, self._hosts)
        for _ in range(MAX_REDIRECTS + 1):
            async with client.stream("GET", url) as answer:
                if not answer.is_redirect:
                    return await self._read(answer)
                url = urljoin(url, answer.headers.get("location", ""))
            if check_url(url, self._hosts) != first:
                raise FetchError("redirects to another host")
        raise FetchError(f"redirects more than {MAX_REDIRECTS} times")

    async def _read(self, answer: httpx.Response) -> bytes:
        if answer.status_code != httpx.codes.OK:
            raise FetchError(f"answered with status {answer.status_code}")
        if answer.headers.get("content-encoding", "identity") != "identity":
            raise FetchError("is compressed")
        found = bytearray()
        async for chunk in answer.aiter_raw():
            found += chunk
            if len(found) > self._limit:
                raise FetchError(f"is larger than {self._limit} bytes")
        return bytes(found)


def check_url(url: str, hosts: frozenset[str]) -> Origin:
    """Who is asked for a document at `url`. Raises FetchError unless that is allowed."""
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").lower(), parts.port
    except ValueError:
        raise FetchError("is no URL") from None
    if len(url) > MAX_URL or not url.isprintable() or parts.username is not None or parts.password is not None:
        raise FetchError("is no URL that can be used")
    if host not in hosts:
        raise FetchError("is of a host that is not in the list of hosts")
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(host)):
        raise FetchError("must begin with https://")
    return Origin(parts.scheme, host, port or (443 if parts.scheme == "https" else 80))


def is_loopback(host: str) -> bool:
    """Whether this is our own machine."""
    if host in _LOCAL_NAMES:
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
