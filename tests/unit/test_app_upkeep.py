"""Background work: what fails is named once and tried again; nothing of it stops the broker."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs
from structlog.typing import EventDict

from purveyor_server.app import upkeep
from purveyor_server.app.folders import note_endpoint, prepare_data_dir
from purveyor_server.app.refusals import Exit, StartRefusedError
from purveyor_server.domain.errors import PurveyorError, Reason
from purveyor_server.domain.model import ProviderRef
from purveyor_server.kit.backoff import Backoff
from purveyor_server.kit.signals import Signals
from purveyor_server.providers.contract import Permanent, RightsMissing, Unreachable
from purveyor_server.providers.inspection import Inspector
from purveyor_server.store.contract import Retention

POLICY = Retention(timedelta(days=30), timedelta(days=30), timedelta(days=7), 10)
REF = ProviderRef("main", "scripted")


class Answers:
    """A registry whose backends answer as scripted, the last answer again and again."""

    def __init__(self, *answers: Exception | None) -> None:
        self._answers = list(answers)

    async def check(self, refs: Iterable[ProviderRef]) -> dict[str, Exception | None]:
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        return {ref.name: answer for ref in refs}


async def said(monkeypatch: pytest.MonkeyPatch, *answers: Exception | None) -> list[EventDict]:
    monkeypatch.setattr(upkeep, "CHECK_AGAIN", Backoff(first=0.0, ceiling=0.0))
    answering: Any = Answers(*answers)
    with capture_logs() as lines:
        await asyncio.wait_for(upkeep.watch_until_ready(answering, REF, Inspector(answering)), 10)
    return list(lines)


async def test_missing_rights_are_named_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    failure = RightsMissing("the account may not create roles", "ALTER ROLE broker CREATEROLE")

    first, last = await said(monkeypatch, failure, None)

    assert (first["event"], first["log_level"]) == ("provider lacks rights in its backend", "error")
    assert (first["provider"], first["problem"]) == ("main", "the account may not create roles")
    assert first["detail"] == "ALTER ROLE broker CREATEROLE"
    assert last["event"] == "provider is ready"


async def test_the_same_answer_is_said_once_and_another_one_again(monkeypatch: pytest.MonkeyPatch) -> None:
    silent = Unreachable("no answer")

    lines = await said(monkeypatch, silent, silent, silent, Permanent("wrong version"), TimeoutError(), None)

    assert [line["event"] for line in lines] == [
        "provider does not reach its backend",
        "provider cannot be used",
        "provider does not reach its backend",
        "provider is ready",
    ]


class Rows:
    """A store in which rows can be forgotten, a page at a time; refuses once before that."""

    def __init__(self, *pages: int | PurveyorError) -> None:
        self._pages = list(pages)
        self.signals = Signals()

    async def retain(self, policy: Retention) -> int:
        page = self._pages.pop(0) if self._pages else 0
        if isinstance(page, PurveyorError):
            self.signals.emit("refused")
            raise page
        self.signals.emit("asked")
        return page


async def test_retention_takes_page_after_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep, "PAUSE", 0.0)

    assert await upkeep.retain_all(Rows(3, 2, 1), POLICY) == 6  # type: ignore[arg-type] # retention asks for nothing else


async def test_retention_goes_on_after_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep, "PAUSE", 0.0)
    rows = Rows(PurveyorError(Reason.STORE_UNAVAILABLE, "not now"), 3)

    with capture_logs() as lines:
        task = asyncio.create_task(upkeep.keep_retention(rows, POLICY, timedelta(0)))  # type: ignore[arg-type] # as above
        await rows.signals.wait("asked", 3)
        task.cancel()
        await asyncio.wait([task])

    assert (rows.signals.count("refused"), task.cancelled()) == (1, True)
    assert [line["event"] for line in lines][:2] == ["retention failed", "retention removed rows"]


def test_the_note_of_addresses_is_whole(tmp_path: Path) -> None:
    note_endpoint(tmp_path, ["unix:/a", "127.0.0.1:1"])
    path = note_endpoint(tmp_path, ["unix:/b"])

    assert path.read_text() == "unix:/b\n"
    assert [entry.name for entry in tmp_path.iterdir()] == ["endpoint"]


def test_a_data_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(StartRefusedError, match=os.strerror(errno.ENOTDIR)) as caught:
        prepare_data_dir(tmp_path / "file" / "data")

    assert caught.value.code is Exit.STORE
