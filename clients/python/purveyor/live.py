"""Credentials that are alive: those of a binding, then of whoever takes its place.

Guarantee: `follow_credentials` tells the credentials of the newest working binding of a chain of rotations, and again whenever
another one takes its place, its credentials change or its end moves; over broken connections and restarts of the broker,
however long they take. A binding is left only for a successor that works already, so what was told last can be used for as
long as the broker lets predecessors overlap.
Limit: while the broker is away nothing is heard, and what was told last stays what it is. Once the chain has ended (unbound,
expired, instance gone) the broker's refusal is raised.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, NamedTuple, Protocol, cast

from purveyor import decode
from purveyor.connection import is_passing
from purveyor.errors import (
    DeadlineExceededError,
    EventsLostError,
    FailedPreconditionError,
    NotFoundError,
    PurveyorError,
    ResourceExhaustedError,
)
from purveyor.opened import OpenedClient
from purveyor.values import Binding, BindingState, EventKind, EventType

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from purveyor.credentials import Credentials
    from purveyor.values import ActiveBinding, Event

LONGEST_CHAIN = 1000  # successors that are followed in one go
FIRST_REST_SECONDS, LONGEST_REST_SECONDS = 0.5, 30.0  # between two attempts to reach a broker that is away
ROUNDS = 4  # times that a chain is walked anew when it moves meanwhile


class Reads(Protocol):
    """What is asked of a client."""

    def events(
        self, start: str, *, kinds: tuple[EventKind | str, ...], instance_id: str
    ) -> AsyncGenerator[Event, None]:
        """The changes of an instance's bindings."""
        ...

    async def binding(self, instance_id: str, binding_id: str, *, show_deleted: bool) -> Binding:
        """One binding, a tombstone too."""
        ...

    async def credentials(self, instance_id: str, binding_id: str) -> Credentials:
        """Its credentials."""
        ...


def _nobody(_failure: PurveyorError) -> None:
    """Nobody wants to know."""


async def follow_credentials(
    client: Reads, instance_id: str, binding_id: str, missed: Callable[[PurveyorError], None] = _nobody
) -> AsyncGenerator[ActiveBinding, None]:
    """The credentials as they are, and again when they are others; see the module. `missed` is told each failure that is outlived.

    A binding that is still being made is waited for. Raises NotFoundError, FailedPreconditionError once there are none any more,
    and every failure that waiting does not mend.
    """
    chain = _Chain(client, instance_id, binding_id)
    rest = FIRST_REST_SECONDS
    while True:
        try:
            changes = client.events("snapshot", kinds=(EventKind.BINDING,), instance_id=instance_id)
            async with aclosing(changes):
                async for event in changes:
                    if not chain.concerned_by(event):
                        continue
                    found = await chain.look()
                    rest = FIRST_REST_SECONDS
                    if found is not None:
                        yield found
        except PurveyorError as failure:
            if not mends_itself(failure):
                raise
            missed(failure)
            await asyncio.sleep(max(rest, failure.retry_after or 0.0))
            rest = min(rest * 2, LONGEST_REST_SECONDS)


class LiveCalls(OpenedClient):
    """What a consumer does to always have credentials that work (part of `Client`)."""

    async def live_credentials(self, instance_id: str, binding_id: str) -> AsyncGenerator[ActiveBinding, None]:
        """The binding with its credentials, and again whenever its successor takes its place, they are others or their end moves.

        Over absences of the broker, however long; what was told last is usable meanwhile. Raises NotFoundError,
        FailedPreconditionError once the chain of successors has ended. `CredentialSource` holds the newest of them.
        """
        async with aclosing(follow_credentials(cast("Reads", self), instance_id, binding_id)) as found:
            async for live in found:
                yield live


def mends_itself(failure: PurveyorError) -> bool:
    """Whether waiting is all that has to be done about it."""
    return is_passing(failure) or isinstance(failure, DeadlineExceededError | ResourceExhaustedError | EventsLostError)


class _Told(NamedTuple):
    """What was told last, as far as it matters whether it changed."""

    binding: Binding
    credentials: Credentials


class _Chain:
    """A binding, whoever took its place, and whoever took that one's."""

    def __init__(self, client: Reads, instance_id: str, binding_id: str) -> None:
        self._client = client
        self._instance_id = instance_id
        self._start = binding_id
        self._members = {binding_id}
        self._told: _Told | None = None

    def concerned_by(self, event: Event) -> bool:
        """Whether to look again. Nothing is, before the end of a snapshot: it says what is there, in any order."""
        if event.type == EventType.SYNCED:
            return True
        record = event.record
        before = record.predecessor_binding_id if isinstance(record, Binding) else ""
        return event.type != EventType.PRESENT and not self._members.isdisjoint({event.binding_id, before})

    async def look(self) -> ActiveBinding | None:
        """The newest working binding with its credentials; None when it was told already or is still being made."""
        for _ in range(ROUNDS):
            found = await self._newest()
            if found is None or self._is_told(found):
                return None
            try:
                secret = await self._client.credentials(self._instance_id, found.binding_id)
            except (FailedPreconditionError, NotFoundError):
                continue  # it went between the two calls: somebody has taken its place, or the chain has ended
            return self._tell(found, secret)
        return None  # its changes are events, which bring us here again

    def _is_told(self, found: Binding) -> bool:
        return self._told is not None and (self._told.binding.uid, self._told.binding.etag) == (found.uid, found.etag)

    def _tell(self, found: Binding, secret: Credentials) -> ActiveBinding | None:
        told, self._told = self._told, _Told(found, secret)
        # One back: should the newest be taken away, its predecessor may work still.
        self._start = found.predecessor_binding_id or found.binding_id
        if told is not None and told.credentials == secret:
            before = told.binding
            if (before.uid, before.expire_time) == (found.uid, found.expire_time):
                return None
        return decode.active(found, secret)

    async def _newest(self) -> Binding | None:
        """The last ACTIVE binding of the chain; None while none works and one is being made. Raises FailedPreconditionError."""
        newest, pending = None, False
        last = found = await self._first()
        for _ in range(LONGEST_CHAIN):
            self._members.add(found.binding_id)
            newest = found if found.state == BindingState.ACTIVE else newest
            pending = pending or found.state == BindingState.BINDING
            last = found
            if not found.successor_binding_id:
                break
            found = await self._binding(found.successor_binding_id)
        if newest is None and not pending:
            raise _ended(last)
        return newest

    async def _first(self) -> Binding:
        try:
            return await self._binding(self._start)
        except NotFoundError:
            if self._told is None or self._start == self._told.binding.binding_id:
                raise
            self._start = self._told.binding.binding_id  # the one before is no longer on record
            return await self._binding(self._start)

    async def _binding(self, name: str) -> Binding:
        return await self._client.binding(self._instance_id, name, show_deleted=True)


def _ended(last: Binding) -> FailedPreconditionError:
    return FailedPreconditionError(
        f"the binding {last.binding_id!r} of {last.instance_id!r} is {last.state}, and nothing has taken its place",
        reason="CREDENTIALS_NOT_AVAILABLE",
        metadata={"binding_id": last.binding_id, "state": last.state},
    )
