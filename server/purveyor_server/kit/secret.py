"""A value that must not be shown.

Guarantee: `repr`, `str`, `format`, f-strings, JSON encoders of logging and comparison by `in` never show the value; only
`reveal()` does, so a reader can grep for every place that does.
Limit: the memory of the process holds the clear text.
"""

from __future__ import annotations

import hmac
import secrets
from typing import NoReturn

# 62 symbols x 43 characters is a little over 256 bits; no symbol needs escaping in a URI, a shell or SQL.
_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
DEFAULT_LENGTH = 43


class Secret:
    """A secret text. Pickling is refused; equality takes constant time."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    @classmethod
    def mint(cls, length: int = DEFAULT_LENGTH) -> Secret:
        """A fresh random secret of `length` letters and digits (43 hold 256 bits)."""
        return cls("".join(secrets.choice(_ALPHABET) for _ in range(length)))

    def reveal(self) -> str:
        """The clear text. Every call site is a place to review."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(***)"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return repr(self)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self._value.encode(), other._value.encode())

    def __hash__(self) -> int:
        return hash((Secret, self._value))

    def __reduce__(self) -> NoReturn:
        message = "a Secret is not pickled"
        raise TypeError(message)
