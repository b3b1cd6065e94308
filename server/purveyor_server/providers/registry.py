"""Which providers there are, and one guarded object per configured provider.

Guarantee: a provider is made at its first use and kept until `close`; two plans that name the same provider with the same
configuration share it. Kinds come from entry points of the group `purveyor.providers`.
Limit: an unknown kind or a bad configuration raises `ProviderMissingError`; operations of it are held, never guessed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

import structlog

from purveyor_server.domain.digests import canonical
from purveyor_server.domain.errors import PurveyorError, invalid
from purveyor_server.domain.model import Json, ProviderRef
from purveyor_server.kit.clock import Clock
from purveyor_server.kit.secret import Secret
from purveyor_server.kit.tasks import is_cancelled
from purveyor_server.providers.answers import GarbageError
from purveyor_server.providers.contract import Ability, Owned, PlannedStep, ProviderFactory, Work
from purveyor_server.providers.facade import FacadeSettings, ProviderFacade

_log = structlog.get_logger(__name__)
GROUP = "purveyor.providers"
MAX_SECRET_FILE = 64 * 1024


class ProviderMissingError(Exception):
    """No provider of this kind is installed, or its configuration is refused. The message is for operators."""


class InstalledFactories(Mapping[str, ProviderFactory]):
    """Kinds found by entry point, each loaded when it is first asked for: a start does not pay for what no catalog names.
    A broken one is logged once and is none.
    """

    def __init__(self, points: Iterable[EntryPoint] | None = None) -> None:
        found = entry_points(group=GROUP) if points is None else points
        self._points = {point.name: point for point in found}
        self._loaded: dict[str, ProviderFactory] = {}

    def __getitem__(self, kind: str) -> ProviderFactory:
        if kind not in self._loaded:
            point = self._points[kind]
            try:
                self._loaded[kind] = point.load()
            except Exception as error:
                _log.exception("provider could not be loaded", kind=kind)
                del self._points[kind]
                raise KeyError(kind) from error
        return self._loaded[kind]

    def __iter__(self) -> Iterator[str]:
        return iter(self._points)

    def __len__(self) -> int:
        return len(self._points)


class Environment:
    """What a provider may use of its host."""

    def __init__(self, name: str, folder: Path, store_id: str, environ: Mapping[str, str]) -> None:
        self.name = name
        self.store_id = store_id
        self._folder = folder
        self._environ = environ

    @property
    def data_dir(self) -> str:
        """A folder of the provider's own, 0700."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return str(self._folder)

    def reference(self, value: Json) -> Secret:
        """Resolve `{"file": path}` or `{"env": NAME}`; raises INVALID_REQUEST and never shows the value."""
        match value:
            case {"file": str(path)} if len(value) == 1:
                return self._from_file(Path(path))
            case {"env": str(variable)} if len(value) == 1:
                if variable not in self._environ:
                    raise invalid(f"providers.{self.name}", f"the environment variable {variable} is not set")
                return Secret(self._environ[variable])
        raise invalid(f"providers.{self.name}", "a secret is given by reference: {file: PATH} or {env: NAME}")

    def _from_file(self, path: Path) -> Secret:
        try:
            with path.open(encoding="utf-8") as file:
                return Secret(file.read(MAX_SECRET_FILE).rstrip("\n"))
        except (OSError, UnicodeDecodeError) as error:
            raise invalid(f"providers.{self.name}", f"the secret file {path} cannot be read") from error


class ProviderRegistry:
    """Providers by `ProviderRef`."""

    def __init__(
        self,
        factories: Mapping[str, ProviderFactory],
        data_dir: Path,
        store_id: str,
        clock: Clock,
        *,
        on_close: Callable[[str], None] = lambda _name: None,
        environ: Mapping[str, str] | None = None,
        settings: FacadeSettings | None = None,
        guard: type[ProviderFacade] = ProviderFacade,
    ) -> None:
        self._factories = factories
        self._data_dir = data_dir
        self._store_id = store_id
        self._clock = clock
        self._environ = os.environ if environ is None else environ
        self._settings = settings
        self._guard = guard
        self._facades: dict[bytes, ProviderFacade] = {}
        self.on_close = on_close

    def facade(self, ref: ProviderRef) -> ProviderFacade:
        """The guarded provider of `ref`; raises ProviderMissingError."""
        key = canonical([ref.name, ref.kind, ref.config])
        if key not in self._facades:
            self._facades[key] = self._open(ref)
        return self._facades[key]

    def _open(self, ref: ProviderRef) -> ProviderFacade:
        factory = self._factories.get(ref.kind)
        if factory is None:
            known = ", ".join(sorted(self._factories)) or "none"
            message = f"no provider of the kind {ref.kind!r} is installed (installed: {known})"
            raise ProviderMissingError(message)
        environment = Environment(ref.name, self._data_dir / ref.name, self._store_id, self._environ)
        try:
            return self._guard(ref, factory(ref.config, environment), self._clock, self._closed, self._settings)
        except PurveyorError as error:
            raise ProviderMissingError(error.message) from error
        except BaseException as error:
            if is_cancelled(error):
                raise
            _log.error("provider could not be made", provider=ref.name, kind=ref.kind, exc_info=error)
            what = error.what if isinstance(error, GarbageError) else "could not be made"
            message = f"the provider {ref.name!r} {what} ({type(error).__name__})"
            raise ProviderMissingError(message) from error

    def _closed(self, name: str) -> None:
        self.on_close(name)  # looked up late: the engine is made after the registry

    def contract(self, ref: ProviderRef) -> str:
        """Contract version of the provider of `ref`."""
        return self.facade(ref).contract

    def abilities(self, ref: ProviderRef) -> frozenset[Ability]:
        """Abilities of the provider of `ref`."""
        return self.facade(ref).abilities

    def plan_steps(self, ref: ProviderRef, work: Work) -> tuple[PlannedStep, ...]:
        """The steps that `work` would take as far as they are known before the first, for validate_only."""
        return self.facade(ref).plan(work, {})

    async def adoptable(self, ref: ProviderRef, source: Mapping[str, Json]) -> Owned | None:
        """What of ours owns the thing `source` already, None when it may be adopted. Raises ProviderError."""
        return await self.facade(ref).adoptable(source)

    async def check(self, refs: Iterable[ProviderRef]) -> dict[str, Exception | None]:
        """Ask each provider whether its backend can be worked with; the failure by provider name."""
        found: dict[str, Exception | None] = {}
        for ref in refs:
            try:
                await self.facade(ref).check()
                found[ref.name] = None
            except Exception as error:  # noqa: BLE001 - reported by name to the operator
                found[ref.name] = error
        return found

    async def close(self) -> None:
        """Close every provider; one that fails or hangs is logged and left."""
        for facade in self._facades.values():
            try:
                await facade.close()
            except Exception:  # noqa: BLE001 - one provider does not keep the others from closing
                _log.exception("provider did not close", provider=facade.ref.name)
        self._facades.clear()
