"""The keys that a store works with, and the proof that they are its own.

Guarantee: for each label that seals something in the store there is a check value in it; keys that are lost, wrong or of
another store stop the start with a message that names label and source, before anything is read or sealed with them. A key
is made only for a store that has none yet.

In the store's meta values: `key.check` and `key.check.<label>` (the check values), `key.digest` and `key.page` (the store's
own keys, minted once, sealed as everything else), `key.audit.<number>` (the keys of the chain of audit records: the one
with the greatest number chains, the others verify; a rotation of the sealing key mints a new one).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

import msgspec
import structlog

from purveyor_server.domain.auditchain import ChainKeys
from purveyor_server.security.keytext import KeyFileError, KeyTrouble, fresh_key
from purveyor_server.security.sealing import Sealer, SealError, label_of

if TYPE_CHECKING:
    from purveyor_server.security.keysource import KeySource

_log = structlog.get_logger(__name__)
PREFIX = "key."
CHECK, DIGEST, PAGE, AUDIT = "key.check", "key.digest", "key.page", "key.audit."
_CHECK_TEXT = b"purveyor: this store is sealed with this key"


class MetaStore(Protocol):
    """What unlocking needs of a store (see `store.contract`)."""

    store_id: str

    async def metas(self, prefix: str) -> dict[str, bytes]:
        """Values of the store itself, by name."""
        ...

    async def put_meta(self, name: str, value: bytes) -> bytes:
        """Keep `value` unless there is one already; returns the one that is kept."""
        ...

    async def open_chain(self, keys: ChainKeys, minted: Mapping[str, bytes]) -> str:
        """From now on chain audit records with these keys, keeping `minted`; what is wrong with the chain's end."""
        ...


class Keyring(msgspec.Struct, frozen=True):
    """What an unlocked store works with. `digest_key` never changes; `page_key` makes page tokens tamper-proof."""

    sealer: Sealer
    digest_key: bytes
    page_key: bytes
    source: KeySource
    older: tuple[str, ...] = ()  # labels that seal something in the store besides the one that seals now
    chain_trouble: str = ""  # why the chain of audit records did not fit at this start

    def __repr__(self) -> str:
        return f"Keyring({self.sealer!r})"


async def unlock(store: MetaStore, source: KeySource) -> Keyring:
    """Open the store's keys with those of the source, making both at the first start; raises KeyFileError."""
    values = await store.metas(PREFIX)
    keys = await asyncio.to_thread(source.load if checks_in(values) else source.first)
    prove(source, keys, store.store_id, values)
    sealer = Sealer(keys)
    await vouch(store, sealer, source)
    trouble = await _open_chain(store, sealer, source)
    older = sorted({label_of(value) for value in checks_in(values).values()} - {sealer.primary})
    digest_key, page_key = await _kept(store, sealer, DIGEST), await _kept(store, sealer, PAGE)
    return Keyring(sealer, digest_key, page_key, source, tuple(older), trouble)


def checks_in(values: Mapping[str, bytes]) -> dict[str, bytes]:
    """The check values among meta values, by name."""
    return {name: value for name, value in values.items() if name == CHECK or name.startswith(f"{CHECK}.")}


def prove(source: KeySource, keys: Mapping[str, bytes], store_id: str, values: Mapping[str, bytes]) -> None:
    """Raise KeyFileError unless the keys open the store with these meta values; without check values any keys do."""
    for name, value in checks_in(values).items():
        label = label_of(value)
        if label not in keys:
            raise KeyFileError(
                KeyTrouble.LOST,
                f"the key {label!r} is missing, and this store holds what is sealed with it: {source.name} has"
                f" {', '.join(keys) or 'no keys'}; put the key back from its copy (without it no stored credential can be"
                " read; a new key is never made for an existing store)",
            )
        _open(source, Sealer({label: keys[label]}), store_id, name, value)


async def vouch(store: MetaStore, sealer: Sealer, source: KeySource) -> None:
    """Keep a check value of the key that seals: it stands before anything that it seals. Raises KeyFileError."""
    label = sealer.primary
    if any(label_of(value) == label for value in checks_in(await store.metas(PREFIX)).values()):
        return
    name = f"{CHECK}.{label}"
    kept = await store.put_meta(name, sealer.seal(store.store_id, name, _CHECK_TEXT))
    _open(source, sealer, store.store_id, name, kept)


def _open(source: KeySource, sealer: Sealer, store_id: str, name: str, value: bytes) -> None:
    try:
        sealer.open(store_id, name, value)
    except SealError:
        raise KeyFileError(
            KeyTrouble.MISMATCH,
            f"the key {label_of(value)!r} of {source.name} is not the one that this store is sealed with;"
            " put back the key that was made with it",
        ) from None


async def _kept(store: MetaStore, sealer: Sealer, name: str) -> bytes:
    """The store's own key `name`: minted once, sealed, never changed."""
    sealed = (await store.metas(name)).get(name)
    if sealed is None:
        sealed = await store.put_meta(name, sealer.seal(store.store_id, name, fresh_key()))
    try:
        return sealer.open(store.store_id, name, sealed)
    except SealError as failure:
        raise KeyFileError(KeyTrouble.MISMATCH, f"the stored {name} cannot be opened: {failure}") from None


async def _open_chain(store: MetaStore, sealer: Sealer, source: KeySource) -> str:
    """Let the store chain its audit records; a chain that does not fit is logged, and recorded by the store. Returns why."""
    values = await store.metas(AUDIT)
    minted = {} if values else _minted(store, sealer, 1)
    try:
        keys = chain_keys(store.store_id, sealer, {**values, **minted})
    except SealError as failure:
        raise KeyFileError(
            KeyTrouble.MISMATCH, f"the stored keys of audit records cannot be opened with {source.name}: {failure}"
        ) from None
    why = await store.open_chain(keys, minted)
    if why:
        _log.error("the chain of audit records is broken: verify it", why=why)
    return why


async def renew_chain(store: MetaStore, sealer: Sealer) -> None:
    """Mint a new key for the chain unless the present one is sealed with the newest sealing key. Raises SealError."""
    values = await store.metas(AUDIT)
    keys = chain_keys(store.store_id, sealer, values)
    if not sealer.is_current(values[AUDIT + keys.primary]):
        minted = _minted(store, sealer, int(keys.primary) + 1)
        await store.open_chain(chain_keys(store.store_id, sealer, {**values, **minted}), minted)


def _minted(store: MetaStore, sealer: Sealer, number: int) -> dict[str, bytes]:
    name = f"{AUDIT}{number}"
    return {name: sealer.seal(store.store_id, name, fresh_key())}


def chain_keys(store_id: str, sealer: Sealer, values: Mapping[str, bytes]) -> ChainKeys:
    """The keys of audit records among meta values, by number. Raises SealError."""
    found = {
        name.removeprefix(AUDIT): sealer.open(store_id, name, value)
        for name, value in values.items()
        if name.startswith(AUDIT)
    }
    return ChainKeys(max(found, key=int, default=""), found)
