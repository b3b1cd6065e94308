"""The key file is made once, guarded, and never replaced in silence."""
# ruff: noqa: ASYNC240 - a test may look at a file while it alone runs on its loop

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from purveyor_server.domain.auditchain import ChainKeys
from purveyor_server.security import keyfile
from purveyor_server.security.keyfile import KeyFile
from purveyor_server.security.keyring import Keyring
from purveyor_server.security.keyring import unlock as unlock_with
from purveyor_server.security.keytext import KeyFileError, KeyTrouble


class Meta:
    """The meta part of a store, in memory, with the contract's rule: the first value stays."""

    def __init__(self, store_id: str = "store-1") -> None:
        self.store_id = store_id
        self.values: dict[str, bytes] = {}
        self.trouble = ""

    async def metas(self, prefix: str) -> dict[str, bytes]:
        return {name: value for name, value in self.values.items() if name.startswith(prefix)}

    async def put_meta(self, name: str, value: bytes) -> bytes:
        return self.values.setdefault(name, value)

    async def open_chain(self, keys: ChainKeys, minted: Mapping[str, bytes]) -> str:
        assert keys.newest
        self.values.update(minted)
        return self.trouble


async def unlock(store: Meta, path: Path) -> Keyring:
    return await unlock_with(store, KeyFile(path))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys"


async def refused(store: Meta, path: Path) -> KeyFileError:
    with pytest.raises(KeyFileError) as caught:
        await unlock(store, path)
    return caught.value


async def test_the_first_start_makes_a_private_key(path: Path) -> None:
    await unlock(Meta(), path)

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == ["keys"]


async def test_the_private_mode_does_not_depend_on_the_umask(path: Path) -> None:
    before = os.umask(0)
    try:
        await unlock(Meta(), path)
    finally:
        os.umask(before)

    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_later_starts_find_the_same_keys(path: Path) -> None:
    store = Meta()
    first = await unlock(store, path)
    sealed = first.sealer.seal("uid", "name", b"x")

    again = await unlock(store, path)

    assert (again.digest_key, again.page_key) == (first.digest_key, first.page_key)
    assert first.digest_key != first.page_key
    assert again.sealer.open("uid", "name", sealed) == b"x"


async def test_the_stores_own_keys_are_sealed(path: Path) -> None:
    store = Meta()
    ring = await unlock(store, path)

    assert all(ring.digest_key not in value and ring.page_key not in value for value in store.values.values())
    assert ring.digest_key.hex() not in repr(ring)


async def test_a_lost_key_file_is_never_made_anew(path: Path) -> None:
    store = Meta()
    await unlock(store, path)
    path.unlink()

    failure = await refused(store, path)

    assert failure.trouble is KeyTrouble.LOST
    assert str(path) in failure.message
    assert not path.exists()


async def test_a_crash_before_the_check_value_was_stored_is_no_loss(path: Path) -> None:
    keyfile.make(path)

    await unlock(Meta(), path)


async def test_the_key_of_another_store_is_refused(path: Path) -> None:
    store = Meta()
    await unlock(store, path)
    path.unlink()
    keyfile.make(path)

    assert (await refused(store, path)).trouble is KeyTrouble.MISMATCH


async def test_values_of_another_store_are_refused(path: Path) -> None:
    store, other = Meta(), Meta("store-2")
    await unlock(store, path)
    other.values = store.values

    assert (await refused(other, path)).trouble is KeyTrouble.MISMATCH


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o700 | 0o001])
async def test_a_key_file_open_to_others_is_refused(path: Path, mode: int) -> None:
    store = Meta()
    await unlock(store, path)
    path.chmod(mode)

    failure = await refused(store, path)

    assert failure.trouble is KeyTrouble.UNSAFE
    assert "chmod 600" in failure.message


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
async def test_a_key_file_of_another_user_is_refused(path: Path) -> None:
    store = Meta()
    await unlock(store, path)
    os.chown(path, 12345, -1)

    assert (await refused(store, path)).trouble is KeyTrouble.UNSAFE


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\xff\xfe",
        b"purveyor-keys 2\n",
        b"purveyor-keys 1\n",
        b"purveyor-keys 1\nk1 c2hvcnQ=\n",
        b"purveyor-keys 1\nk1 not-base64!\n",
        b"purveyor-keys 1\nK! " + b"A" * 43 + b"=\n",
        b"purveyor-keys 1\n" + (b"k1 " + b"A" * 43 + b"=\n") * 2,
        b"purveyor-keys 1\n" + b"#" * 70_000,
    ],
)
async def test_a_malformed_key_file_is_refused_and_left_alone(path: Path, text: bytes) -> None:
    path.touch(0o600)
    path.write_bytes(text)

    assert (await refused(Meta(), path)).trouble is KeyTrouble.MALFORMED
    assert path.read_bytes() == text


async def test_a_folder_or_a_pipe_is_no_key_file(path: Path) -> None:
    os.mkfifo(path, 0o600)

    assert (await refused(Meta(), path)).trouble is KeyTrouble.UNSAFE


async def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    failure = await refused(Meta(), tmp_path / "absent" / "keys")

    assert failure.trouble is KeyTrouble.UNREADABLE


def test_making_a_key_never_replaces_a_file(path: Path) -> None:
    path.write_bytes(b"precious")

    with pytest.raises(FileExistsError):
        keyfile.make(path)

    assert path.read_bytes() == b"precious"
    assert [entry.name for entry in path.parent.iterdir()] == ["keys"]


async def test_a_store_that_an_earlier_program_sealed_opens(path: Path) -> None:
    """Its check value has no label in its name, and the format that was sealed with the labelled key itself."""
    keys = keyfile.make(path)
    store = Meta()
    for name, clear in (("key.check", b"check"), ("key.digest", b"d" * 32), ("key.page", b"p" * 32)):
        head = b"\x01\x02k1"
        parts = (head, store.store_id.encode(), name.encode())
        bound = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
        store.values[name] = head + b"n" * 12 + AESGCM(keys["k1"]).encrypt(b"n" * 12, clear, bound)

    ring = await unlock(store, path)

    assert (ring.digest_key, ring.page_key) == (b"d" * 32, b"p" * 32)
    assert sorted(store.values) == ["key.audit.1", "key.check", "key.digest", "key.page"]


async def test_a_chain_of_audit_records_that_does_not_fit_is_known_and_does_not_stop_the_start(path: Path) -> None:
    store = Meta()
    assert (await unlock(store, path)).chain_trouble == ""
    store.trouble = "there is no head"
    assert (await unlock(store, path)).chain_trouble == "there is no head"


async def test_a_label_that_is_lost_is_named_with_its_source(path: Path) -> None:
    store = Meta()
    await unlock(store, path)
    KeyFile(path).add("new")
    await unlock(store, path)
    assert "key.check.new" in store.values
    KeyFile(path).remove("k1")

    failure = await refused(store, path)

    assert failure.trouble is KeyTrouble.LOST
    assert "'k1'" in failure.message
    assert f"{path} has new" in failure.message


async def test_a_label_with_another_key_is_refused_before_anything_is_sealed(path: Path) -> None:
    store = Meta()
    await unlock(store, path)
    KeyFile(path).add("k2")
    await unlock(store, path)
    KeyFile(path).remove("k2")
    KeyFile(path).add("k2")
    before = dict(store.values)

    failure = await refused(store, path)

    assert failure.trouble is KeyTrouble.MISMATCH
    assert "'k2'" in failure.message
    assert store.values == before
