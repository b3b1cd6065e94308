"""Pages: every row once, and a token that serves only the question it was given to."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from purveyor_server.domain.errors import PurveyorError, Reason
from purveyor_server.lifecycle.contract import Listing
from purveyor_server.lifecycle.paging import Question, read_token, write_token
from tests.fakes.broker import Broker, open_broker, provision
from tests.fakes.situations import LOCAL, TENANT

KEY = b"t" * 32
QUESTION = Question("instances", TENANT, "", "", show_deleted=False, store="s1")


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Broker]:
    async with open_broker(tmp_path) as opened:
        yield opened


async def refused(call: Any) -> Reason:
    with pytest.raises(PurveyorError) as error:
        await call
    return error.value.reason


async def test_a_walk_sees_each_row_once_and_ends(lab: Broker) -> None:
    names = [f"i{n}" for n in range(7)]
    for name in names:
        await lab.door.provision(LOCAL, provision(name))
    seen, token, sizes = [], "", []
    while True:
        page = await lab.door.list_instances(LOCAL, Listing(tenant=TENANT, page_size=3, page_token=token))
        seen += [instance.instance_id for instance in page.items]
        sizes.append(len(page.items))
        if not (token := page.next_page_token):
            break
    assert seen == names
    assert sizes == [3, 3, 1]
    exact = await lab.door.list_operations(LOCAL, Listing(tenant=TENANT, page_size=7, full=True))
    assert (len(exact.items), exact.next_page_token) == (7, "")


async def test_a_token_of_another_question_is_refused(lab: Broker) -> None:
    for name in ("a", "b", "c"):
        await lab.door.provision(LOCAL, provision(name))
    page = await lab.door.list_instances(LOCAL, Listing(tenant=TENANT, page_size=1))
    token = page.next_page_token
    for listing in (
        Listing(tenant="others", page_token=token),
        Listing(tenant=TENANT, page_token=token, filter="state = READY"),
        Listing(tenant=TENANT, page_token=token, show_deleted=True),
        Listing(tenant=TENANT, page_token=token[:-1]),
        Listing(tenant=TENANT, page_token="x" * 2000),
        Listing(tenant=TENANT, page_token="ä"),
    ):
        assert await refused(lab.door.list_instances(LOCAL, listing)) is Reason.INVALID_PAGE_TOKEN
    crossed = Listing(tenant=TENANT, page_token=token)
    assert await refused(lab.door.list_operations(LOCAL, crossed)) is Reason.INVALID_PAGE_TOKEN
    assert await refused(lab.door.list_bindings(LOCAL, crossed)) is Reason.INVALID_PAGE_TOKEN


async def test_sizes_and_filters(lab: Broker) -> None:
    await lab.door.provision(LOCAL, provision("a"))
    assert await refused(lab.door.list_instances(LOCAL, Listing(tenant=TENANT, page_size=-1))) is Reason.INVALID_REQUEST
    bad = Listing(tenant=TENANT, filter="colour = red")
    assert await refused(lab.door.list_instances(LOCAL, bad)) is Reason.INVALID_FILTER
    for text, expected in (
        ("state = PROVISIONING AND create_time > 2020-01-01T00:00:00Z", 1),
        ("NOT state = PROVISIONING", 0),
        ("create_time < 2020-01-01T00:00:00Z", 0),
    ):
        page = await lab.door.list_instances(LOCAL, Listing(tenant=TENANT, page_size=10**9, filter=text))
        assert len(page.items) == expected
    missing = Listing(tenant=TENANT, instance_id="nothing")
    assert await refused(lab.door.list_bindings(LOCAL, missing)) is Reason.INSTANCE_NOT_FOUND


@given(st.text(st.characters(codec="utf-8"), max_size=200))
def test_a_token_brings_its_key_back(last: str) -> None:
    assert read_token(KEY, QUESTION, write_token(KEY, QUESTION, last)) == last


@given(st.text(max_size=80) | st.from_regex(r"[A-Za-z0-9_-]{1,80}", fullmatch=True))
def test_nothing_else_is_a_token(token: str) -> None:
    with pytest.raises(PurveyorError) as error:
        read_token(KEY, QUESTION, token)
    assert error.value.reason is Reason.INVALID_PAGE_TOKEN


@given(st.integers(0, 63), st.integers(0, 7))
def test_a_changed_bit_is_found(place: int, bit: int) -> None:
    token = write_token(KEY, QUESTION, "0190aaaa-bbbb-7ccc-8ddd-eeeeeeeeeeee")
    raw = bytearray(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    raw[place % len(raw)] ^= 1 << bit
    changed = base64.urlsafe_b64encode(raw).decode().rstrip("=")
    with pytest.raises(PurveyorError):
        read_token(KEY, QUESTION, changed)
