"""The catalog file: read, judged as a whole, turned into the domain's values.

Guarantee: a catalog is taken only when nothing in it is wrong; otherwise `ConfigError` names every problem with file, line
and key path, so that one pass of editing is enough. Ids and names are unique, references hold, schemas compile, defaults
fit their schemas, secrets are references.
Limit: a text that is no YAML is refused at its first syntax error. Whether a backend answers is not asked here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

import msgspec
from pydantic import BaseModel, ValidationError

from purveyor_server.config import catalog_rules
from purveyor_server.config.catalog_models import FileEntry, PlanEntry, ProviderEntry, ServiceEntry
from purveyor_server.config.problems import ConfigError, Problem, found
from purveyor_server.config.problems import Path as KeyPath
from purveyor_server.config.yaml_tree import MAX_BYTES, Tree
from purveyor_server.domain.catalog import Service
from purveyor_server.domain.errors import PurveyorError
from purveyor_server.domain.model import Json, ProviderRef
from purveyor_server.domain.policies import InventoryPolicy

M = TypeVar("M", bound=BaseModel)
Check = Callable[[ProviderRef], None]


class SettingsCheck(Protocol):
    """Asks a provider whether it can make a plan with these settings; raises PurveyorError."""

    def __call__(self, ref: ProviderRef, settings: Mapping[str, Json]) -> None:
        """Raise PurveyorError that says which setting is wrong."""
        ...


class CatalogFile(msgspec.Struct, frozen=True):
    """A catalog that was found good: its services, its providers by name with their policies, its text and the SHA-256 (hex) of
    that."""

    services: tuple[Service, ...]
    providers: dict[str, ProviderRef]
    inventories: dict[str, InventoryPolicy]
    text: str
    digest: str


def load_catalog(path: Path, check: Check | None = None, check_settings: SettingsCheck | None = None) -> CatalogFile:
    """Read and judge the catalog file at `path`; raises ConfigError with every problem."""
    return parse_catalog(read_text(path), str(path), check, check_settings)


def read_text(path: Path) -> bytes:
    """The text of the file, as far as it may be read; raises ConfigError."""
    try:
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except OSError as failure:
        raise ConfigError([Problem("catalog", f"{path}: {failure.strerror}")]) from None


def parse_catalog(
    text: bytes, name: str, check: Check | None = None, check_settings: SettingsCheck | None = None
) -> CatalogFile:
    """Judge the text of a catalog that is called `name` in messages; raises ConfigError with every problem."""
    reader = _Reader(Tree(text, name), check, check_settings)
    services = reader.services()
    if reader.tree.problems:
        raise ConfigError(sorted(reader.tree.problems, key=lambda problem: _line(problem.place)))
    digest = hashlib.sha256(text).hexdigest()
    return CatalogFile(services, reader.refs, reader.inventories, text.decode("utf-8-sig"), digest)


def _line(place: str) -> int:
    number = place.rpartition(":")[2]
    return int(number) if number.isdigit() else 0


class _Reader:
    """One pass over a tree: each entry by itself, then the rules between entries."""

    def __init__(self, tree: Tree, check: Check | None, check_settings: SettingsCheck | None) -> None:
        self.tree = tree
        self.refs: dict[str, ProviderRef] = {}
        self.inventories: dict[str, InventoryPolicy] = {}
        self._check = check
        self._check_settings = check_settings
        self._sound: set[str] = set()

    def services(self) -> tuple[Service, ...]:
        raw = self.tree.value
        self._model(FileEntry, raw, ())
        if not isinstance(raw, dict):
            return ()
        self._providers(raw.get("providers"))
        listed = raw.get("services")
        entries = listed if isinstance(listed, list) else []
        catalog_rules.check_unique(self.tree, entries)
        services = [self._service(entry, ("services", index)) for index, entry in enumerate(entries)]
        return tuple(service for service in services if service is not None)

    def _providers(self, raw: Any) -> None:
        for name, value in raw.items() if isinstance(raw, dict) else ():
            path: KeyPath = ("providers", name)
            entry = self._model(ProviderEntry, value, path)
            # Known even when it is bad, so that its plans are not blamed for a missing reference.
            self.refs[name] = ProviderRef(name, entry.kind if entry else "", entry.config if entry else {})
            if entry is not None:
                self.inventories[name] = catalog_rules.to_inventory(entry.inventory)
            if entry is None or not catalog_rules.check_secrets(self.tree, entry.config, (*path, "config")):
                continue
            if self._check is None or self._asked(path, partial(self._check, self.refs[name])):
                self._sound.add(name)

    def _service(self, raw: Any, path: KeyPath) -> Service | None:
        entry = self._model(ServiceEntry, raw, path)
        listed = raw.get("plans") if isinstance(raw, dict) else None
        catalog_rules.check_transitions(self.tree, raw, path)
        plans: list[PlanEntry] = []
        for index, plan in enumerate(listed if isinstance(listed, list) else []):
            place = (*path, "plans", index)
            self._provider_of(plan, place)
            sound = self._model(PlanEntry, plan, place)
            catalog_rules.check_plan(self.tree, sound or _remains(plan), entry, place)
            if sound is not None and sound.provider in self.refs:
                plans.append(sound)
        return catalog_rules.to_service(entry, plans, self.refs) if entry is not None else None

    def _provider_of(self, plan: Any, path: KeyPath) -> None:
        name, settings = (plan.get("provider"), plan.get("settings", {})) if isinstance(plan, dict) else (None, {})
        if isinstance(name, str) and name not in self.refs:
            known = ", ".join(sorted(self.refs)) or "none"
            self.tree.add((*path, "provider"), f"there is no provider of this name (known: {known})")
        elif name in self._sound and self._check_settings is not None and isinstance(settings, dict):
            self._asked((*path, "settings"), partial(self._check_settings, self.refs[name], settings))

    def _asked(self, path: KeyPath, question: Callable[[], None]) -> bool:
        try:
            question()
        except PurveyorError as refusal:
            self.tree.add(path, refusal.message)
            return False
        return True

    def _model(self, model: type[M], raw: Any, path: KeyPath) -> M | None:
        try:
            return model.model_validate(raw)
        except ValidationError as failure:
            for location, message in found(failure, model):
                self.tree.add((*path, *location), message)
            return None


def _remains(raw: Any) -> PlanEntry:
    """What is sound in a plan that was refused, so that the rules find their breaches in the same pass."""
    kept = dict(raw) if isinstance(raw, dict) else {}
    try:
        return PlanEntry.model_validate(kept)
    except ValidationError as failure:
        bad = {error["loc"][0] for error in failure.errors()}
    sound = {key: value for key, value in kept.items() if key not in bad}
    return PlanEntry.model_validate({"id": "-", "name": "-", "description": "-", "provider": "-"} | sound)
