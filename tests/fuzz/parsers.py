"""Everything that reads text or bytes of strangers: it answers, or refuses by its own error, and takes no altered token.

Guarantee: `faults` gives a sentence for each input that met another exception, or that was taken though it was altered.
Limit: pure functions; what the transport does to bytes before is tried over the wire (`wire`).
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, NamedTuple

import typer
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from purveyor.addresses import resolve
from purveyor.cli import inventories
from purveyor.errors import InvalidRequestError
from purveyor_server.config.catalog import parse_catalog
from purveyor_server.config.catalog_models import MaintenanceEntry
from purveyor_server.config.problems import ConfigError
from purveyor_server.config.values import parse_address, parse_duration, parse_size
from purveyor_server.domain import filters
from purveyor_server.domain.catalogchanges import parse_policy
from purveyor_server.domain.errors import PurveyorError
from purveyor_server.domain.model import EventKind
from purveyor_server.domain.names import check_id, check_request_id, check_tenant
from purveyor_server.domain.semver import precedence
from purveyor_server.lifecycle.paging import Question, read_token, write_token
from purveyor_server.lifecycle.places import Place, Places
from purveyor_server.providers.postgresql.notes import read as read_note
from purveyor_server.security import keytext
from purveyor_server.security.identity.keysets import parse_key_set
from purveyor_server.security.keytext import KeyFileError
from purveyor_server.watch.events import EVERY_KIND, Wanted
from tests.fuzz import credentials
from tests.fuzz.strings import texts

KEY = b"k" * 32
PHASES = (Phase.generate,)  # what is found is told, not made smaller
QUESTION = Question("instances", "acme", "", "", show_deleted=False, store="store")
ORPHANS = Question("orphans", "main", "", "SEEN", show_deleted=False, store="store")
PLACES = Places(KEY, "store", Wanted("acme", EVERY_KIND, ""))


def inventory_file(data: bytes) -> list[str]:
    """The ids in a file of `purveyor inventory sync`: each one line, none empty."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        found = inventories._names(file.name)
    assert all(name and name == name.strip() for name in found)
    return found


class Target(NamedTuple):
    """One reader: what it may raise, and inputs that it takes, to be altered. `exact`: what is altered must be refused."""

    name: str
    read: Callable[[Any], object]
    refusals: tuple[type[Exception], ...]
    genuine: tuple[Any, ...] = ()
    exact: bool = False
    bytes: bool = False


TARGETS = (
    Target("filter", lambda text: filters.parse(text, filters.INSTANCES), (PurveyorError,), ('state = "READY" AND plan_id != "a"',)),
    Target(
        "page token",
        lambda text: read_token(KEY, QUESTION, text),
        (PurveyorError,),
        (write_token(KEY, QUESTION, "01a212d3-51e0-7fc9-b8d4-fb22a67dd6a1"),),
        exact=True,
    ),
    Target("filter of bindings", lambda text: filters.parse(text, filters.BINDINGS), (PurveyorError,), ('state = "ACTIVE"',)),
    Target("filter of operations", lambda text: filters.parse(text, filters.OPERATIONS), (PurveyorError,), ('verb = "RENEW" AND state != "FAILED"',)),
    Target(
        "page token of orphans",
        lambda text: read_token(KEY, ORPHANS, text),
        (PurveyorError,),
        (write_token(KEY, ORPHANS, "00000000000000000012"),),
        exact=True,
    ),
    Target("policy for a plan in use", parse_policy, (PurveyorError,), ("s1/small=keep", "s1/small=migrate:big")),
    Target("maintenance version", lambda text: precedence(MaintenanceEntry(version=text).version), (ValueError,), ("1.2.0", "1.0.0-rc.1+build.5")),
    Target("note of a thing", read_note, (), ('purveyor:s:u:1 {"name": "crm", "limit": 17}',)),
    Target("file of an inventory", inventory_file, (typer.BadParameter,), (b"orders\ncrm\n",), bytes=True),
    Target(
        "resume token",
        PLACES.read,
        (PurveyorError,),
        (PLACES.write(Place(12)), PLACES.write(Place(7, EventKind.BINDING, "uid"))),
        exact=True,
    ),
    Target("bearer token", credentials.bearer, credentials.REFUSED, credentials.GENUINE, exact=True),
    Target("claim", credentials.claim, credentials.REFUSED, ('["a", "b"]', '{"b": "c"}')),
    Target("key set", parse_key_set, credentials.KEY_ERRORS, (credentials.KEYS,), bytes=True),
    Target("address of keys", credentials.url, credentials.URL_ERRORS, credentials.GENUINE_URLS),
    Target("name in a certificate", credentials.certificate, credentials.REFUSED, ("ann",)),
    Target("tenant", check_tenant, (PurveyorError,), ("acme",)),
    Target("id", lambda text: check_id(text, "instance_id"), (PurveyorError,), ("orders",)),
    Target("request id", check_request_id, (PurveyorError,), ("r-1",)),
    Target("duration", parse_duration, (ValueError,), ("30s",)),
    Target("size", parse_size, (ValueError,), ("64MiB",)),
    Target("listener", parse_address, (ValueError,), ("unix:/run/x.sock", "127.0.0.1:80", "[::1]:80")),
    Target("client address", resolve, (InvalidRequestError,), ("unix:/run/x.sock", "localhost:7000")),
    Target("catalog", lambda data: parse_catalog(data, "c"), (ConfigError,), (b"providers: {a: {kind: x}}\nservices: []\n",), bytes=True),
    Target("key file", lambda data: keytext.parse("keys", data), (KeyFileError,), (b"purveyor-keys 1\nk1 " + b"A" * 43 + b"=\n",), bytes=True),
)  # fmt: skip


def inputs(target: Target) -> st.SearchStrategy[Any]:
    """Strange texts, genuine ones, and genuine ones altered by a few characters."""
    strange: st.SearchStrategy[Any] = st.binary(max_size=400) if target.bytes else texts()
    if not target.genuine:
        return strange
    return st.one_of(
        strange, st.sampled_from(target.genuine), altered(st.sampled_from(target.genuine), binary=target.bytes)
    )


def altered(genuine: st.SearchStrategy[Any], *, binary: bool) -> st.SearchStrategy[Any]:
    """`genuine` with a part cut out, put in or put elsewhere."""
    parts: st.SearchStrategy[Any] = (
        st.binary(max_size=4) if binary else st.text(st.characters(max_codepoint=255), max_size=4)
    )

    @st.composite
    def build(draw: st.DrawFn) -> Any:
        text = draw(genuine)
        at, upto = sorted((draw(st.integers(0, len(text))), draw(st.integers(0, len(text)))))
        return text[:at] + draw(parts) + text[min(upto, at + 4) :]

    return build()


def fault(target: Target, given_: Any) -> str:
    """What is wrong with how `target` takes `given_`; "" when nothing is."""
    try:
        target.read(given_)
    except target.refusals:
        return ""
    except Exception as error:  # noqa: BLE001 - any other one is what is looked for
        return f"{target.name}: {type(error).__name__} for {given_!r:.200}"
    if target.exact and given_ not in target.genuine:
        return f"{target.name}: took {given_!r:.200}"
    return ""


def faults(target: Target, tries: int, start: int) -> list[str]:
    """Try `tries` inputs; the sentences of the faulty ones."""
    found: list[str] = []

    @seed(start)
    @settings(max_examples=tries, database=None, deadline=None, suppress_health_check=list(HealthCheck), phases=PHASES)
    @given(inputs(target))
    def attempt(given_: Any) -> None:
        if wrong := fault(target, given_):
            found.append(wrong)

    attempt()
    return found


PLANTED = (
    Target("a reader that falls over a quote", lambda text: {"a": 1}[text] if "'" in text else 0, (ValueError,)),
    Target("a token that is not looked at", lambda _text: datetime.now(UTC), (PurveyorError,), ("abcdef",), exact=True),
)  # fmt: skip
