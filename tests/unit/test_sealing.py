"""A sealed value opens at its own row and column, whole, with its own key, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import find, given
from hypothesis import strategies as st

from purveyor_server.security.sealing import Sealer, SealError, label_of

KEY = bytes(range(32))
SEALER = Sealer({"k1": KEY})
texts = st.text(max_size=40)
clears = st.binary(max_size=200)


def opens(sealer: Sealer, owner: str, name: str, sealed: bytes) -> bool:
    try:
        sealer.open(owner, name, sealed)
    except SealError:
        return False
    return True


@given(texts, texts, clears)
def test_opens_where_it_was_sealed(owner: str, name: str, clear: bytes) -> None:
    assert SEALER.open(owner, name, SEALER.seal(owner, name, clear)) == clear


@given(st.tuples(texts, texts), st.tuples(texts, texts), clears)
def test_opens_nowhere_else(home: tuple[str, str], away: tuple[str, str], clear: bytes) -> None:
    assert opens(SEALER, *away, SEALER.seal(*home, clear)) == (home == away)


@given(st.data(), clears)
def test_any_flipped_bit_is_found(data: st.DataObject, clear: bytes) -> None:
    sealed = bytearray(SEALER.seal("uid", "credentials", clear))
    bit = data.draw(st.integers(0, len(sealed) * 8 - 1))
    sealed[bit // 8] ^= 1 << (bit % 8)

    assert not opens(SEALER, "uid", "credentials", bytes(sealed))


def test_every_bit_of_one_value() -> None:
    sealed = SEALER.seal("uid", "credentials", b"s3cret")
    flipped = (
        sealed[:byte] + bytes((sealed[byte] ^ 1 << bit,)) + sealed[byte + 1 :]
        for byte in range(len(sealed))
        for bit in range(8)
    )

    assert not any(opens(SEALER, "uid", "credentials", value) for value in flipped)


@given(st.integers(0, 60), clears)
def test_a_cut_value_is_refused(length: int, clear: bytes) -> None:
    sealed = SEALER.seal("uid", "name", clear)

    assert not opens(SEALER, "uid", "name", sealed[: min(length, len(sealed) - 1)])


class Unbound(Sealer):
    """The planted fault: binds to nothing."""

    def seal(self, owner: str, name: str, clear: bytes) -> bytes:
        return super().seal("", "", clear)

    def open(self, owner: str, name: str, sealed: bytes) -> bytes:
        return super().open("", "", sealed)


class Joined(Sealer):
    """The planted fault: binds to owner and name run together, so ("a", "bc") opens as ("ab", "c")."""

    def seal(self, owner: str, name: str, clear: bytes) -> bytes:
        return super().seal(owner + name, "", clear)

    def open(self, owner: str, name: str, sealed: bytes) -> bytes:
        return super().open(owner + name, "", sealed)


@pytest.mark.parametrize("faulty", [Unbound, Joined])
def test_the_property_finds_a_sealer_that_does_not_bind(faulty: Callable[[dict[str, bytes]], Sealer]) -> None:
    sealer = faulty({"k1": KEY})

    def breaks(case: tuple[tuple[str, str], tuple[str, str]]) -> bool:
        home, away = case
        return home != away and opens(sealer, *away, sealer.seal(*home, b"x"))

    assert find(st.tuples(st.tuples(texts, texts), st.tuples(texts, texts)), breaks)


def test_the_same_text_never_seals_to_the_same_bytes() -> None:
    assert len({SEALER.seal("uid", "name", b"x") for _ in range(100)}) == 100


def test_an_older_key_opens_while_the_first_one_seals() -> None:
    older = SEALER.seal("uid", "name", b"x")
    rotated = Sealer({"k2": bytes(32), "k1": KEY})

    assert rotated.open("uid", "name", older) == b"x"
    assert label_of(rotated.seal("uid", "name", b"x")) == "k2"


def test_an_unknown_label_is_named() -> None:
    sealed = Sealer({"k9": KEY}).seal("uid", "name", b"x")

    with pytest.raises(SealError, match="'k9'"):
        SEALER.open("uid", "name", sealed)


def test_nothing_of_the_clear_text_or_key_is_shown() -> None:
    sealed = SEALER.seal("uid", "name", b"hunter2")
    with pytest.raises(SealError) as caught:
        SEALER.open("other", "name", sealed)

    assert caught.value.__cause__ is None
    assert "hunter2" not in str(caught.value) + repr(SEALER)
    assert b"hunter2" not in sealed


@pytest.mark.parametrize("keys", [{}, {"k1": b"short"}, {"K 1": KEY}])
def test_bad_keys_are_refused(keys: dict[str, bytes]) -> None:
    with pytest.raises(ValueError, match="key"):
        Sealer(keys)


# Sealed by the program that knew version 1 alone: key 00..1f, label k1, row "uid", column "credentials".
VERSION_1 = bytes.fromhex("01026b31d139552f7ed863222706275a1b6348fb4ca327dd651a8a252b0c994d1adb0b2d5473")


def test_what_an_earlier_program_sealed_still_opens() -> None:
    assert SEALER.open("uid", "credentials", VERSION_1) == b"s3cret"
    assert not opens(SEALER, "uid2", "credentials", VERSION_1)
    assert not opens(SEALER, "uid", "credentials", bytes((2,)) + VERSION_1[1:])
    assert label_of(VERSION_1) == "k1"
    assert not SEALER.is_current(VERSION_1)


def test_rows_have_keys_of_their_own() -> None:
    """What is sealed for one row does not open with the labelled key itself, nor with another row's."""
    sealed = SEALER.seal("uid", "credentials", b"s3cret")
    head = sealed[:4]

    assert SEALER.is_current(sealed)
    assert head == b"\x02\x02k1"
    assert not opens(SEALER, "uid", "credentials", bytes((1,)) + sealed[1:])
    assert not opens(SEALER, "other", "credentials", sealed)


def test_adopted_keys_seal_and_the_earlier_ones_open() -> None:
    sealer = Sealer({"k1": KEY})
    old = sealer.seal("uid", "name", b"x")

    sealer.adopt({"k2": bytes(32)})

    assert sealer.primary == "k2"
    assert label_of(sealer.seal("uid", "name", b"y")) == "k2"
    assert sealer.open("uid", "name", old) == b"x"
    assert not sealer.is_current(old)


def test_a_label_that_names_another_key_is_not_adopted() -> None:
    sealer = Sealer({"k1": KEY})

    with pytest.raises(ValueError, match="another key"):
        sealer.adopt({"k2": KEY, "k1": bytes(32)})

    assert sealer.primary == "k1"
