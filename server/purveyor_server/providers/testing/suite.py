"""The contract suite as a pytest class: `class TestMine(ProviderContract)` with a fixture `case`.

Guarantee: one test per topic, judged alone; a topic that the case or provider does not offer is skipped with the reason.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from purveyor_server.providers.testing.case import Case, NotOffered
from purveyor_server.providers.testing.table import PROPERTY
from purveyor_server.providers.testing.topics import TOPICS


class ProviderContract:
    """Subclass it as `Test...` and give a fixture `case` that returns a `Case`."""

    @pytest.fixture
    def case(self) -> Case:
        """Override it."""
        raise NotImplementedError(f"{type(self).__name__} needs a fixture `case` that returns a Case")

    @pytest.mark.parametrize("topic", TOPICS, ids=[name.replace(": ", "_").replace(" ", "_") for name in TOPICS])
    def test_contract(self, topic: str, case: Case, record_property: Callable[[str, object], None]) -> None:
        """Judge one topic."""
        record_property(PROPERTY, [case.name or type(case).__name__, topic])
        try:
            asyncio.run(_judge(topic, case))
        except NotOffered as reason:
            pytest.skip(str(reason))


async def _judge(topic: str, case: Case) -> None:
    await TOPICS[topic](case)
