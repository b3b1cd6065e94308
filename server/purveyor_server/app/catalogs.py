"""The catalog file of a running broker: read, judged, and looked at again.

Guarantee: a file that changed is judged once it has been still for a look; one that cannot be read is as one that did not change.
A failure is logged and the next look comes.
Limit: the file is looked at every second, as those of TLS are; a change that comes and goes between two looks is not seen.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import structlog

from purveyor_server.app.checks import BUILT_IN, ProviderChecks
from purveyor_server.config import dev_catalog
from purveyor_server.config.catalog import CatalogFile, parse_catalog, read_text
from purveyor_server.config.problems import ConfigError, Problem
from purveyor_server.domain.catalogchanges import Contents
from purveyor_server.lifecycle.catalogs import LiveCatalog
from purveyor_server.lifecycle.catalogtext import CatalogTextError, Judged, TextProblem
from purveyor_server.providers.contract import ProviderFactory
from purveyor_server.providers.registry import InstalledFactories

_log = structlog.get_logger(__name__)
POLL_SECONDS = 1.0
Look = tuple[int, ...] | None


class CatalogJudge:
    """Reads a text as a start does; `name` is what it is called in messages."""

    def __init__(
        self, factories: Mapping[str, ProviderFactory], environ: Mapping[str, str], name: str = "catalog"
    ) -> None:
        self._factories, self._environ, self._name = factories, environ, name

    def __call__(self, text: bytes, *, ask_providers: bool = True) -> Judged:
        """Raises CatalogTextError."""
        try:
            if not ask_providers:
                return judged(parse_catalog(text, self._name))
            with tempfile.TemporaryDirectory() as folder:
                checks = ProviderChecks(self._factories, Path(folder), self._environ)
                return judged(parse_catalog(text, self._name, checks.config, checks.settings))
        except ConfigError as failure:
            problems = tuple(TextProblem(p.path, p.message, p.place) for p in failure.problems)
            raise CatalogTextError(problems) from None


def judged(file: CatalogFile) -> Judged:
    """A file that was found good, as the lifecycle takes it."""
    return Judged(Contents(file.services, file.providers, file.inventories), file.text, file.digest)


def first_catalog(judge: CatalogJudge, path: Path | None) -> Judged:
    """The catalog of a start. Raises ConfigError."""
    try:
        return judge(read_file(path))
    except CatalogTextError as failure:
        raise ConfigError([Problem(p.path, p.message, p.place) for p in failure.problems]) from None


def name_of(path: Path | None) -> str:
    """What messages call the file."""
    return BUILT_IN if path is None else str(path)


def read_file(path: Path | None) -> bytes:
    """The text of the file (None: of the built-in catalog). Raises ConfigError."""
    return dev_catalog() if path is None else read_text(path)


def judge_catalog(text: bytes, name: str) -> tuple[list[tuple[str, str, str]], str, int, int]:
    """A text judged without a broker by the providers that are installed here: (key, what is wrong, place) of each problem, SHA-256,
    and how many services and plans it has."""
    try:
        found = CatalogJudge(InstalledFactories(), os.environ, name)(text)
    except CatalogTextError as failure:
        return [(p.path, p.message, p.place) for p in failure.problems], "", 0, 0
    services = found.contents.services
    return [], found.digest, len(services), sum(len(service.plans) for service in services)


class CatalogFileWatch:
    """Looks at the file and has it taken when it changed."""

    def __init__(self, path: Path, live: LiveCatalog) -> None:
        self._path, self._live = path, live
        self._last = self._taken = _look(path)
        self._wake = asyncio.Event()
        self._again = False

    def ask(self) -> None:
        """Look now, and judge once more what was refused (SIGHUP)."""
        self._again = True
        self._wake.set()

    async def run(self) -> None:
        """Look after the file for ever."""
        while True:
            try:
                async with asyncio.timeout(POLL_SECONDS):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()
            try:
                await self.once()
            except Exception:  # noqa: BLE001 - a defect here must not be the end of every later reload
                _log.exception("the catalog file could not be looked after")

    async def once(self) -> None:
        """One look."""
        again, self._again = self._again, False
        seen = await asyncio.to_thread(_look, self._path)
        settled, self._last = seen == self._last, seen
        if not again and (not settled or seen == self._taken):
            return
        self._taken = seen
        try:
            text = await asyncio.to_thread(read_file, self._path)
        except ConfigError as failure:
            _log.error("the catalog file cannot be read, the catalog before goes on", problem=str(failure))
            return
        await self._live.reload(text, again=again)


def _look(path: Path) -> Look:
    try:
        found = os.stat(path)  # noqa: PTH116 - one call in a loop
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino, found.st_dev
