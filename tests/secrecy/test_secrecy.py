"""The short form of `make verify-secrets`: the same life without PostgreSQL, whose own test is in tests/acceptance."""

from __future__ import annotations

import pytest

from tests.secrecy.places import forms, search
from tests.secrecy.suite import Options, Suite


@pytest.mark.crash
@pytest.mark.slow
async def test_nothing_of_a_whole_life_is_in_clear() -> None:
    suite = Suite(Options(postgresql=False, bindings=3, filler=1_000), print)

    await suite.run()

    print(suite.summary)
    assert suite.missing == []
    assert suite.leaks == []
    assert suite.clean


def test_a_secret_is_found_inside_of_a_longer_value_in_base64() -> None:
    import base64  # noqa: PLC0415 - of this test alone

    for before in (b"", b"a", b"ab", b"abc", b"user:"):
        held = base64.b64encode(before + b"s3cret-value" + b"!")
        assert search({"p": held}, {"s": b"s3cret-value"}), before
        assert not search({"p": base64.b64encode(before + b"other-value")}, {"s": b"s3cret-value"})


def test_bytes_that_are_no_text_are_looked_for_as_bytes() -> None:
    found = forms(b"\xff\xfe" * 16)

    assert "raw" in found
    assert "utf-16-le" not in found
