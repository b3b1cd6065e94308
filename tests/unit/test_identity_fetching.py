"""Fetching keys: whom, how much, for how long; from a real HTTP server on loopback."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from purveyor_server.kit.clock import ManualClock
from purveyor_server.security.identity.fetching import Fetcher, FetchError, check_url
from purveyor_server.security.identity.jwks import Jwks, Pace, UrlSource

HOSTS = frozenset({"127.0.0.1"})
LIMIT, SECONDS = 1000, 0.5
Answer = Callable[[str], bytes]


def answer(status: str, body: bytes = b"", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"content-length: {len(body)}", "connection: close", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


class Server:
    """Answers by path; what it was asked is in `asked`."""

    def __init__(self) -> None:
        self.answers: dict[str, bytes | None] = {}
        self.asked: list[str] = []
        self.headers: list[str] = []
        self.port = 0

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        path = head.split(" ")[1]
        self.asked.append(path)
        self.headers.append(head.lower())
        given = self.answers.get(path, answer("404 Not Found"))
        if given is None:
            await reader.read()  # says nothing until the client goes away
        else:
            writer.write(given)
        writer.close()


@asynccontextmanager
async def running() -> AsyncIterator[Server]:
    made = Server()
    listening = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.port = listening.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        listening.close()
        await listening.wait_closed()


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with running() as made:
        yield made


@pytest.fixture
def fetcher() -> Fetcher:
    return Fetcher(HOSTS, limit=LIMIT, seconds=SECONDS)


async def why(fetcher: Fetcher, url: str) -> str:
    with pytest.raises(FetchError) as refused:
        await fetcher.fetch(url)
    return str(refused.value)


async def test_a_document_is_fetched_and_a_redirect_on_the_same_host_followed(server: Server, fetcher: Fetcher) -> None:
    server.answers = {"/a": answer("302 Found", b"", "location: /b"), "/b": answer("200 OK", b"{}")}

    assert await fetcher.fetch(server.url("/a")) == b"{}"
    assert server.asked == ["/a", "/b"]
    assert "accept-encoding: identity" in server.headers[0]
    assert "authorization" not in server.headers[0]


async def test_redirects_elsewhere_are_not_followed(server: Server, fetcher: Fetcher) -> None:
    async with running() as other:
        places = {
            "/port": other.url("/x"),
            "/host": "http://127.0.0.2/x",
            "/scheme": f"https://127.0.0.1:{server.port}/x",
            "/metadata": "http://169.254.169.254/latest",
            "/file": "file:///etc/passwd",
        }
        server.answers = {path: answer("302 Found", b"", f"location: {place}") for path, place in places.items()}
        for path in places:
            assert "host" in await why(fetcher, server.url(path)) or path == "/file", path
        server.answers["/loop"] = answer("302 Found", b"", "location: /loop")
        assert await why(fetcher, server.url("/loop")) == "redirects more than 3 times"
        assert other.asked == []


async def test_what_is_too_large_too_slow_or_not_ok(server: Server, fetcher: Fetcher) -> None:
    server.answers = {
        "/large": answer("200 OK", b"x" * (LIMIT + 1)),
        "/whole": answer("200 OK", b"x" * LIMIT),
        "/slow": None,
        "/zip": answer("200 OK", gzip.compress(b"x" * 100_000), "content-encoding: gzip"),
        "/broken": b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nx",
        "/nonsense": b"hello\r\n\r\n",
    }
    assert len(await fetcher.fetch(server.url("/whole"))) == LIMIT
    assert await why(fetcher, server.url("/large")) == f"is larger than {LIMIT} bytes"
    assert await why(fetcher, server.url("/slow")) == f"took longer than {SECONDS:g} s"
    assert await why(fetcher, server.url("/zip")) == "is compressed"
    assert "could not be fetched" in await why(fetcher, server.url("/broken"))
    assert "could not be fetched" in await why(fetcher, server.url("/nonsense"))
    assert await why(fetcher, server.url("/missing")) == "answered with status 404"


async def test_proxies_of_the_environment_are_not_used(
    server: Server, fetcher: Fetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.answers = {"/a": answer("200 OK", b"{}")}
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")

    assert await fetcher.fetch(server.url("/a")) == b"{}"


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.example.org/keys",
        "http://id.example.org/keys",
        "https://id.example.org@evil.example.org/keys",
        "https://user:pass@id.example.org/keys",
        "https://id.example.org.evil.org/keys",
        "ftp://id.example.org/keys",
        "file:///etc/passwd",
        "https://id.example.org:99999/keys",
        "https://id.example.org/a\nb",
        "https:///keys",
        "//id.example.org",
        "",
        "https://id.example.org/" + "a" * 3000,
    ],
)
def test_addresses_that_are_not_asked(url: str) -> None:
    with pytest.raises(FetchError):
        check_url(url, frozenset({"id.example.org"}))


async def test_an_issuer_whose_address_fails_is_asked_now_and_then(server: Server, fetcher: Fetcher) -> None:
    clock = ManualClock()
    keys = Jwks("main", UrlSource(server.url("/keys"), fetcher), clock, Pace(pause=10.0))

    for seconds in (0, 1, 9, 1):
        clock.advance(seconds)
        with pytest.raises(Exception, match="cannot be had"):
            await keys.find("k1", "ES256")

    assert len(server.asked) == 2
    assert (keys.failures, keys.trouble) == (2, "answered with status 404")


async def test_many_who_ask_at_once_are_one_reading(server: Server, fetcher: Fetcher) -> None:
    keys = Jwks("main", UrlSource(server.url("/keys"), fetcher), ManualClock(), Pace(pause=0.0))

    await asyncio.gather(*(keys.refresh(force=True) for _ in range(50)))

    assert len(server.asked) == 1
