"""Strings that break what is put together without care, alone, inside of each other and inside of ordinary text."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

NASTY = (
    "'; DROP DATABASE canary; --",
    '"; DROP ROLE canary; --',
    "$$; DELETE FROM canary; $$",
    "$purveyor$; DELETE FROM canary; $purveyor$",
    "1); DELETE FROM canary WHERE (1=1",
    "\\'; DELETE FROM canary; --",
    "' OR '1'='1",
    "$(touch canary)",
    "`touch canary`",
    "; touch canary #",
    "| touch canary",
    "&& touch canary",
    "../../../../etc/passwd",
    "..%2f..%2fetc%2fpasswd",
    "/etc/passwd",
    "C:\\windows\\system32",
    "~root",
    "file:///etc/passwd",
    "a\r\nset-cookie: x=1\r\n\r\n",
    "a\x00b",
    "\x1b[31mred\x1b[0m",
    "\u202egnp.exe",
    "\ufeff",
    "%s%s%s%n",
    "{0.__class__.__mro__}",
    "${jndi:ldap://localhost/a}",
    "{{7*7}}",
    "<script>alert(1)</script>",
    "\U0001d4d0" * 40,
    "ß" * 300,
    "x" * 5000,
    "null",
    "-1",
    "1e309",
    "NaN",
    "",
    " ",
    ".",
    "..",
    "pg_catalog",
    "public",
    "template1",
    "purveyor_admin",
)
ORDINARY = st.sampled_from(("orders", "a", "db-1", "citext", "hstore", "acme"))


def texts(longest: int = 6000) -> st.SearchStrategy[str]:
    """Text that can be sent (no half surrogates), at most `longest` characters."""
    anything = st.text(st.characters(codec="utf-8"), max_size=80)
    nasty = st.sampled_from(NASTY)
    return st.one_of(
        nasty, anything, st.builds(str.__add__, ORDINARY, nasty), st.builds(str.__add__, nasty, anything)
    ).map(lambda text: text[:longest])


def values() -> st.SearchStrategy[Any]:
    """JSON values full of such texts."""
    leaves = st.one_of(st.none(), st.booleans(), st.integers(-(2**53), 2**53), st.floats(allow_nan=False), texts(300))
    return st.recursive(
        leaves,
        lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(texts(60), inner, max_size=4)),
        max_leaves=8,
    )
