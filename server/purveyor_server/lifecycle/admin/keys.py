"""Keys that seal: which are in use, sealing everything with a new one while serving, taking an old one away.

Guarantee: a rotation goes through every sealed value in batches, each one command that replaces only what has not changed
meanwhile; it ends when a walk over all of them finds nothing of an older key. Where it is, is in the values themselves: it
may be broken off at any moment, by a crash too, and called again. From its first command on nothing new is sealed with an
older key. A key with which something is sealed is never taken away.
Limit: a value that cannot be opened is counted and stays; its key stays in use. This process opens with retired keys until
it ends, and backups need the keys of their time.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Mapping
from contextlib import asynccontextmanager
from typing import TypeVar

import structlog
from msgspec.structs import replace

from purveyor_server.domain.audit import AuditRecord
from purveyor_server.domain.errors import Precondition, PurveyorError, Reason, Resource, invalid
from purveyor_server.domain.model import SealedSecret
from purveyor_server.lifecycle.admin.acts import BUSY_RETRY, enter, record, tell
from purveyor_server.lifecycle.admin.contract import Act, AdminParts, KeyReport, Rotation
from purveyor_server.lifecycle.contract import Caller
from purveyor_server.lifecycle.door import Action
from purveyor_server.security.keyring import PREFIX, checks_in, prove, renew_chain, vouch
from purveyor_server.security.keytext import KeyFileError
from purveyor_server.security.sealing import HEAD_BYTES, LABEL_RULE, Sealer, SealError, label_in, valid_label
from purveyor_server.store.operating import MetaSwap, Resealed

_log = structlog.get_logger(__name__)
COUNTED = 1000  # rows looked at in one read
BATCH = 100  # values sealed again in one command
TELL_SECONDS = 0.5  # between two words about how far it is
MAX_WALKS = 20
T = TypeVar("T")
UNKNOWN = ""  # the label of what is no sealed value


async def list_keys(parts: AdminParts, caller: Caller) -> tuple[KeyReport, ...]:
    """Every key of the source and every label in the store. Raises WRONG_STATE when the source cannot be read."""
    enter(parts, caller, Action.LIST_KEYS)
    held, counted = await _load(parts), await _count(parts)
    labels = dict.fromkeys((*held, *counted))
    primary = parts.keys.sealer.primary
    return tuple(KeyReport(label, counted[label], label == primary, label in held) for label in labels)


async def rotate_keys(parts: AdminParts, caller: Caller, act: Act) -> AsyncIterator[Rotation]:
    """How far it is, now and then, and its end. Raises WRONG_STATE, OPERATION_IN_PROGRESS."""
    enter(parts, caller, Action.ROTATE_KEYS, act)
    async with _alone(parts):
        keys = await _load(parts)
        candidate = await _candidate(parts, keys)
        if act.validate_only:
            counted = await _count(parts)
            yield Rotation(label=candidate.primary, checked=counted.total(), done=True)
            return
        await _refused_unless(vouch(parts.store, candidate, parts.keys.source))
        parts.keys.sealer.adopt(keys)
        await renew_chain(parts.store, parts.keys.sealer)
        # What was sealed before this line is queued before this command: when it is answered, all of that can be read.
        noted = record(parts, caller, Action.ROTATE_KEYS, act, f"key/{candidate.primary}", part="begin")
        await parts.store.note(noted)
        tell(parts, caller, Action.ROTATE_KEYS, act, f"key/{candidate.primary}")
        so_far = Rotation(label=candidate.primary)
        async for walked in _walks(parts, so_far):
            so_far = walked
            yield so_far
        yield await _finish(parts, caller, act, so_far)


async def retire_key(parts: AdminParts, caller: Caller, label: str, act: Act) -> bool:
    """Whether this program took it out of its source. Raises IN_USE, WRONG_STATE, INVALID_REQUEST."""
    enter(parts, caller, Action.RETIRE_KEY, act)
    if not valid_label(label):
        raise invalid("label", f"must be {LABEL_RULE}")
    async with _alone(parts):
        values = (await _count(parts))[label]
        if label == parts.keys.sealer.primary:
            raise _in_use(label, "it seals what is new; make another the first one and rotate")
        if values:
            raise _in_use(label, f"{values} values are sealed with it; rotate first")
        if act.validate_only:
            return label in await _load(parts)
        checks = checks_in(await parts.store.metas(PREFIX))
        swaps = [MetaSwap(name, value, None) for name, value in checks.items() if _label(value) == label]
        await parts.store.swap_metas(swaps, record(parts, caller, Action.RETIRE_KEY, act, f"key/{label}"))
        removed = await _refused_unless(asyncio.to_thread(parts.keys.source.remove, label))
        tell(parts, caller, Action.RETIRE_KEY, act, f"key/{label}")
        return removed


@asynccontextmanager
async def _alone(parts: AdminParts) -> AsyncIterator[None]:
    """One at a time."""
    if parts.rotating.locked():
        text = "keys are being rotated or retired: wait for its end"
        raise PurveyorError(Reason.OPERATION_IN_PROGRESS, text, metadata={"what": "keys"}, retry_after=BUSY_RETRY)
    async with parts.rotating:
        yield


async def _load(parts: AdminParts) -> dict[str, bytes]:
    keys: dict[str, bytes] = await _refused_unless(asyncio.to_thread(parts.keys.source.load))
    return keys


async def _candidate(parts: AdminParts, keys: Mapping[str, bytes]) -> Sealer:
    """The sealer that these keys make, once they are proven to open the store. Raises WRONG_STATE."""
    source, store = parts.keys.source, parts.store
    try:
        prove(source, keys, store.store_id, await store.metas(PREFIX))
    except KeyFileError as failure:
        raise _wrong(failure.message) from None
    if not parts.keys.sealer.fits(keys):
        raise _wrong(f"{source.name}: a label names another key than it did when this process started")
    return Sealer(keys)


async def _walks(parts: AdminParts, so_far: Rotation) -> AsyncIterator[Rotation]:
    """Walk over every value until a walk finds no old one that can be opened."""
    told = parts.clock.monotonic()
    for _ in range(MAX_WALKS):
        so_far, old, after = replace(so_far, checked=0, unreadable=0), 0, ("", "")
        while page := await parts.store.sealed(after, BATCH):
            changes, unreadable = _resealed(parts, page)
            written = await parts.store.reseal(changes) if changes else 0
            after, old = (page[-1].owner, page[-1].name), old + len(changes)
            so_far = replace(
                so_far,
                checked=so_far.checked + len(page),
                resealed=so_far.resealed + written,
                unreadable=so_far.unreadable + unreadable,
            )
            if (now := parts.clock.monotonic()) - told >= TELL_SECONDS:
                told = now
                yield so_far
        if not old:
            break
    yield so_far


def _resealed(parts: AdminParts, page: tuple[SealedSecret, ...]) -> tuple[list[Resealed], int]:
    """What of a page has to change, and how many of the old values cannot be opened."""
    sealer, changes, unreadable = parts.keys.sealer, [], 0
    for secret in page:
        if sealer.is_current(secret.sealed):
            continue
        try:
            clear = sealer.open(secret.owner, secret.name, secret.sealed)
        except SealError as error:
            unreadable += 1
            _log.error("a sealed value cannot be opened", owner=secret.owner, column=secret.name, error=str(error))
            continue
        changes.append(
            Resealed(secret.owner, secret.name, secret.sealed, sealer.seal(secret.owner, secret.name, clear))
        )
    return changes, unreadable


async def _finish(parts: AdminParts, caller: Caller, act: Act, so_far: Rotation) -> Rotation:
    """Seal the store's own keys again, then forget the check values of keys that seal nothing any more."""
    store, sealer = parts.store, parts.keys.sealer
    values = await store.metas(PREFIX)
    checks = checks_in(values)
    own = {name: value for name, value in values.items() if name not in checks and not sealer.is_current(value)}
    await store.swap_metas(
        [
            MetaSwap(name, value, sealer.seal(store.store_id, name, sealer.open(store.store_id, name, value)))
            for name, value in own.items()
        ]
    )
    counted = await _count(parts)
    over = [
        MetaSwap(name, value, None)
        for name, value in checks.items()
        if (label := _label(value)) != sealer.primary and not counted[label]
    ]
    done = replace(so_far, done=True)
    await store.swap_metas(over, _ended(parts, caller, act, done))
    _log.info("keys rotated", label=done.label, resealed=done.resealed, unreadable=done.unreadable)
    return done


def _ended(parts: AdminParts, caller: Caller, act: Act, done: Rotation) -> AuditRecord:
    details = {"part": "end", "resealed": done.resealed, "unreadable": done.unreadable}
    return record(parts, caller, Action.ROTATE_KEYS, act, f"key/{done.label}", "", **details)


async def _count(parts: AdminParts) -> Counter[str]:
    """How many values are sealed with which key, the store's own keys included."""
    values = await parts.store.metas(PREFIX)
    checks = checks_in(values)
    counted = Counter(_label(value) for name, value in values.items() if name not in checks)
    after = ("", "")
    while page := await parts.store.sealed(after, COUNTED, HEAD_BYTES):
        counted.update(_label(secret.sealed) for secret in page)
        after = (page[-1].owner, page[-1].name)
    return counted


def _label(head: bytes) -> str:
    try:
        return label_in(head)
    except SealError:
        return UNKNOWN


async def _refused_unless(reading: Awaitable[T]) -> T:
    """The answer of the keys' source; its refusal is WRONG_STATE."""
    try:
        return await reading
    except KeyFileError as failure:
        raise _wrong(failure.message) from None


def _wrong(text: str) -> PurveyorError:
    return PurveyorError(
        Reason.WRONG_STATE,
        text,
        metadata={"what": "keys"},
        resource=Resource("keys", "keys"),
        preconditions=(Precondition("KEYS", "keys", text),),
    )


def _in_use(label: str, why: str) -> PurveyorError:
    text = f"the key {label!r} cannot be retired: {why}"
    return PurveyorError(
        Reason.IN_USE,
        text,
        metadata={"key": label},
        resource=Resource("key", label),
        preconditions=(Precondition("UNUSED", f"key/{label}", text),),
    )
