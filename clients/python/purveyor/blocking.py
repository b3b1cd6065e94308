"""Blocking classes, made from the asyncio ones: coroutines become calls, async iterators iterators, handles blocking handles.

Guarantee: a class made here has every public name of its source, with the same parameters and documentation; a member of a
kind that is not known here is an error at import, never left out in silence. What a call does, repeats and refuses is the
source's own doing.
Limit: type checkers cannot see through this; `sync.pyi` tells them, made by scripts/sync_stub.py from the same rules.
"""

from __future__ import annotations

import asyncio
import inspect
import re
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from purveyor.bridge import Bridge
from purveyor.opened import OpenedClient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping
    from concurrent import futures
    from types import TracebackType

Item = TypeVar("Item")
# What only makes sense in an event loop, or is written by hand below.
ASYNC_ONLY = frozenset({"connection"})
BY_HAND = {"__aenter__": "__enter__", "__aexit__": "__exit__", "close": "close"}
_END = object()


def sync_text(text: str) -> str:
    """An annotation or a docstring of an asyncio class, for its blocking one."""
    text = re.sub(r"\bAsyncGenerator\[(.+), None\]", r"BlockingIterator[\1]", text)
    text = re.sub(r"\bAsyncIterator\[", "BlockingIterator[", text)
    text = re.sub(r"\b(?=(?:Admin)?Client\(|OperationHandle\b)", "Sync", text)
    return re.sub(r"\b(?:async|await) ", "", text)


class BlockingIterator(Iterator[Item], Generic[Item]):
    """Items of an async iterator, each waited for. Several threads may take from one; `close()` ends it, from any thread."""

    def __init__(self, bridge: Bridge, items: AsyncIterator[Item], wrap: Callable[[Any], Any]) -> None:
        self._bridge = bridge
        self._items = items
        self._wrap = wrap
        self._turn = threading.Lock()
        self._alone = asyncio.Lock()  # in the loop: a step that was cancelled ends before the iterator is closed
        self._running: futures.Future[Any] | None = None
        self._closed = threading.Event()

    def __next__(self) -> Item:
        with self._turn:
            found = _END if self._closed.is_set() else self._take()
        if found is _END:
            raise StopIteration
        item: Item = self._wrap(found)
        return item

    def _take(self) -> Any:
        self._running = self._bridge.submit(self._step())
        if self._closed.is_set():  # by another thread, which may have missed the line above
            self._running.cancel()
        try:
            return self._bridge.wait(self._running)
        except Exception:
            if self._closed.is_set():
                return _END
            raise

    async def _step(self) -> Any:
        async with self._alone:
            return await anext(self._items, _END)

    def close(self) -> None:
        """End the iteration and what it holds on the server; a thread that waits for an item gets none."""
        self._closed.set()
        running = self._running
        if running is not None:
            running.cancel()
        if self._bridge.is_open:
            self._bridge.run(self._finish())

    async def _finish(self) -> None:
        async with self._alone:
            close = getattr(self._items, "aclose", None)
            if close is not None:
                await close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *details: object) -> None:
        self.close()


class BlockingObject:
    """A blocking face of `_source`, which lives in the loop behind `_bridge`."""

    _source: Any
    _bridge: Bridge

    def __repr__(self) -> str:
        return repr(self._source).replace(type(self._source).__name__, type(self).__name__)


class BlockingClient(BlockingObject):
    """A client that owns its way into the loop."""

    def __enter__(self) -> Self:
        self._bridge.open()
        try:
            self._bridge.run(self._source.__aenter__())
        except BaseException:
            self._bridge.close(_nothing())
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bridge.close(self._source.__aexit__(kind, error, trace))

    def close(self) -> None:
        """Close the connection; calls in flight are ended here with CLIENT_CLOSED, never on the server."""
        self.__exit__(None, None, None)


async def _nothing() -> None:
    pass


def mirror(source: type, base: type[BlockingObject], wrapped: Mapping[type, type[BlockingObject]]) -> Any:
    """The blocking class of `source`; answers of a class in `wrapped` become its blocking one. Raises TypeError."""
    members: dict[str, Any] = {"__doc__": sync_text(source.__doc__ or ""), "__module__": "purveyor.sync"}
    for name, member in _own(source).items():
        if name in ASYNC_ONLY or name in BY_HAND:
            continue
        if name == "__aiter__":
            members["__iter__"] = _iterator(member, wrapped, "__iter__")
        elif name == "__init__" and base is BlockingClient:
            members[name] = _constructor(source, member)
        elif not name.startswith("_"):
            members[name] = _member(name, member, wrapped)
    for name in inspect.get_annotations(source):
        members.setdefault(name, _attribute(name))
    return type(f"Sync{source.__name__}", (base,), members)


def _own(source: type) -> dict[str, Any]:
    """The members of a class and of the parts that it is put together from; the common base of clients is not one."""
    parts = [kind for kind in source.__mro__ if kind is source or issubclass(kind, OpenedClient)]
    found: dict[str, Any] = {}
    for kind in parts:
        if kind is not OpenedClient:
            found = {**vars(kind), **found}
    return found


def adopt(kind: type[BlockingObject], source: Any, bridge: Bridge) -> Any:
    """A blocking face of something that a call answered."""
    made = kind.__new__(kind)
    made._source, made._bridge = source, bridge  # noqa: SLF001 - these are its constructor
    return made


def _wrapper(bridge: Bridge, wrapped: Mapping[type, type[BlockingObject]]) -> Callable[[Any], Any]:
    def wrap(value: Any) -> Any:
        kind = wrapped.get(type(value))
        return value if kind is None else adopt(kind, value, bridge)

    return wrap


def _member(name: str, member: Any, wrapped: Mapping[type, type[BlockingObject]]) -> Any:
    if inspect.iscoroutinefunction(member):
        return _call(member, wrapped)
    if inspect.isasyncgenfunction(member):
        return _iterator(member, wrapped, name)
    if isinstance(member, property):
        return _attribute(name, member.__doc__)
    raise TypeError(f"{name}: there is no rule for a blocking {type(member).__name__}")


def _attribute(name: str, doc: str | None = None) -> property:
    def read(self: BlockingObject) -> Any:
        return getattr(self._source, name)

    return property(read, doc=sync_text(doc or ""))


def _constructor(source: type, member: Any) -> Any:
    def construct(self: BlockingObject, *arguments: Any, **named: Any) -> None:
        self._source = source(*arguments, **named)
        self._bridge = Bridge(self._source.address)

    return _named(construct, member, "__init__")


def _call(member: Any, wrapped: Mapping[type, type[BlockingObject]]) -> Any:
    def call(self: BlockingObject, *arguments: Any, **named: Any) -> Any:
        found = self._bridge.run(member(self._source, *arguments, **named))
        return _wrapper(self._bridge, wrapped)(found)

    return _named(call, member, member.__name__)


def _iterator(member: Any, wrapped: Mapping[type, type[BlockingObject]], name: str) -> Any:
    def iterate(self: BlockingObject, *arguments: Any, **named: Any) -> BlockingIterator[Any]:
        items = member(self._source, *arguments, **named)
        return BlockingIterator(self._bridge, items, _wrapper(self._bridge, wrapped))

    return _named(iterate, member, name)


def _named(made: Any, member: Any, name: str) -> Any:
    """Give a made function the signature and documentation of its source."""
    found = inspect.signature(member)
    returned = found.return_annotation
    answer = sync_text(returned) if isinstance(returned, str) else returned
    made.__signature__ = found.replace(return_annotation=answer)
    made.__doc__ = sync_text(member.__doc__ or "")
    made.__name__ = made.__qualname__ = name
    return made
