"""Quoting for statements that take no parameters (DDL).

Guarantee: `ident` and `literal` give text that the server reads as one identifier or one string, whatever is in it.
Limit: `literal` relies on standard_conforming_strings, which every session of ours switches on.
"""

from __future__ import annotations


def ident(name: str) -> str:
    """`name` as a quoted identifier."""
    return '"' + _checked(name).replace('"', '""') + '"'


def literal(text: str) -> str:
    """`text` as a quoted string."""
    return "'" + _checked(text).replace("'", "''") + "'"


def _checked(text: str) -> str:
    if "\x00" in text:
        message = "PostgreSQL text holds no NUL"
        raise ValueError(message)
    return text
