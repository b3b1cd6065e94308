"""Identity put together from the settings: what judges callers, and what keeps it fresh.

Guarantee: every bad file of keys or bindings is named before anything starts; one that goes bad later leaves what was good
in use, with one log line. A URL that does not answer does not stop the start: the issuer's tokens are refused until it does.
"""

from __future__ import annotations

import asyncio
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
from pydantic import ValidationError

from purveyor_server.config.identity import BindingFile, BindingSettings, IdentitySettings, IssuerSettings
from purveyor_server.config.problems import ConfigError, Problem, dotted, found
from purveyor_server.config.settings import Settings
from purveyor_server.kit.clock import Clock
from purveyor_server.kit.tasks import TaskGroup
from purveyor_server.security.identity.authenticator import Authenticator
from purveyor_server.security.identity.grants import Binding
from purveyor_server.security.identity.static import StaticTokens, TokenStore
from purveyor_server.security.identity.webtokens import WebTokens

if TYPE_CHECKING:
    from purveyor_server.monitor.identity import IdentityFacts
    from purveyor_server.security.identity.jwks import Jwks

NOTE_SECONDS = 60.0
FILE_SECONDS = 5.0
MAX_BYTES = 1024 * 1024
_log = structlog.get_logger(__name__)


class Identity:
    """What judges callers, and the tasks behind it."""

    def __init__(self, settings: IdentitySettings, store: TokenStore, clock: Clock) -> None:
        self._settings = settings
        self._tokens = StaticTokens(store)
        self._fixed = tuple(binding.value() for binding in settings.bindings)
        self._file_text = b""
        self._trouble = ""
        read = _read_bindings(settings.bindings_file) if settings.bindings_file is not None else b""
        bindings = (*self._fixed, *self._taken(read))
        self.keys = tuple(_jwks(issuer, clock) for issuer in settings.issuers)
        judges = [WebTokens(issuer.value(), keys) for issuer, keys in zip(settings.issuers, self.keys, strict=True)]
        self.judge = Authenticator(
            clock,
            tokens=self._tokens,
            issuers=judges,
            rules=[rule.value() for rule in settings.certificates],
            bindings=bindings,
            local=settings.local == "all",
        )
        for keys in self.keys:
            keys.on_change = self.judge.forget

    def start(self, tasks: TaskGroup) -> None:
        """Keep keys, bindings and notes of uses fresh."""
        for keys in self.keys:
            tasks.start(f"keys {keys.name}", _keep(keys))
        tasks.start("token uses", self._note())
        if self._settings.bindings_file is not None:
            tasks.start("bindings", self._follow(self._settings.bindings_file))

    async def close(self) -> None:
        """Write down what was not noted yet."""
        for keys in self.keys:
            await keys.close()
        await self._tokens.note()

    def facts(self) -> IdentityFacts:
        """What metrics tell of it."""
        from purveyor_server.monitor.identity import IdentityFacts, IssuerFacts  # noqa: PLC0415 - only with metrics

        issuers = [IssuerFacts(keys.name, keys.keys, keys.age, keys.failures) for keys in self.keys]
        return IdentityFacts(issuers, sorted(self.judge.refused.items()))

    async def _note(self) -> None:
        while True:
            await asyncio.sleep(NOTE_SECONDS)
            await self._tokens.note()

    async def _follow(self, path: Path) -> None:
        while True:
            await asyncio.sleep(FILE_SECONDS)
            await self.reread(path)

    async def reread(self, path: Path) -> None:
        """Take the file of bindings again when it says something else."""
        try:
            text = await asyncio.to_thread(_read_bindings, path)
            if text != self._file_text:
                bindings = self._taken(text)
                self.judge.bind((*self._fixed, *bindings))
                _log.info("bindings taken", bindings=len(bindings))
            self._trouble = ""
        except ConfigError as failure:
            if str(failure) != self._trouble:
                self._trouble = str(failure)
                _log.error("bindings cannot be used, the old ones go on", path=str(path), why=str(failure))

    def _taken(self, text: bytes) -> tuple[Binding, ...]:
        bindings = tuple(binding.value() for binding in _parsed(text))
        self._file_text = text
        return bindings


async def _keep(keys: Jwks) -> None:
    await keys.refresh(force=True)
    await keys.run()


def warn_of_loopback(settings: Settings) -> None:
    """Say so when every user of the machine may do everything."""
    plain = [*settings.listen.addresses, *settings.admin.addresses]
    open_to_all = [address.text for address in plain if address.socket is None]
    if settings.identity.local == "all" and open_to_all:
        _log.warning("every user of this machine has every role by these addresses", addresses=open_to_all)


def check_identity(settings: Settings) -> None:
    """Read every file that identity names. Raises ConfigError that names all that is wrong."""
    problems = list(_problems(settings.identity))
    if problems:
        raise ConfigError(problems)


def _problems(identity: IdentitySettings) -> Iterator[Problem]:
    if identity.bindings_file is not None:
        try:
            _parsed(_read_bindings(identity.bindings_file))
        except ConfigError as failure:
            yield from failure.problems
    for number, issuer in enumerate(identity.issuers):
        if issuer.keys_file is None:
            continue
        from purveyor_server.security.identity.keysets import KeySetError, parse_key_set  # noqa: PLC0415 - only where used

        try:
            parse_key_set(_read(issuer.keys_file, f"identity.issuers[{number}].keys_file"))
        except KeySetError as failure:
            yield Problem(f"identity.issuers[{number}].keys_file", f"{issuer.keys_file}: {failure}")
        except ConfigError as failure:
            yield from failure.problems


def _read_bindings(path: Path) -> bytes:
    return _read(path, "identity.bindings_file")


def _read(path: Path, setting: str) -> bytes:
    try:
        with path.open("rb") as file:
            text = file.read(MAX_BYTES + 1)
    except OSError as failure:
        raise ConfigError([Problem(setting, f"{path}: {failure.strerror}")]) from None
    if len(text) > MAX_BYTES:
        raise ConfigError([Problem(setting, f"{path}: is larger than {MAX_BYTES} bytes")])
    return text


def _parsed(text: bytes) -> tuple[BindingSettings, ...]:
    """The bindings of a file. Raises ConfigError."""
    setting = "identity.bindings_file"
    try:
        return BindingFile.model_validate(tomllib.loads(text.decode("utf-8"))).bindings
    except ValidationError as failure:
        problems = [Problem(f"{setting}: {dotted(where)}", what) for where, what in found(failure, BindingFile)]
        raise ConfigError(problems) from None
    except ValueError as failure:
        raise ConfigError([Problem(setting, f"is not TOML: {failure}")]) from None


def _jwks(issuer: IssuerSettings, clock: Clock) -> Jwks:
    # Only here: a broker without issuers need not load an HTTP client.
    from purveyor_server.security.identity.fetching import Fetcher  # noqa: PLC0415 - see above
    from purveyor_server.security.identity.jwks import FileSource, Jwks, Pace, UrlSource  # noqa: PLC0415 - see above

    stale = issuer.keys_stale.total_seconds()
    if issuer.keys_url is None:
        assert issuer.keys_file is not None, "one of both, by the settings"
        return Jwks(
            issuer.name, FileSource(issuer.keys_file), clock, Pace(look=FILE_SECONDS, retry=FILE_SECONDS, stale=stale)
        )
    hosts = frozenset(host.lower() for host in issuer.keys_hosts)
    source = UrlSource(issuer.keys_url, Fetcher(hosts, ca=issuer.keys_ca))
    return Jwks(issuer.name, source, clock, Pace(look=issuer.keys_refresh.total_seconds(), stale=stale))
