"""Asks the installed providers whether a catalog's configuration and plan settings suit them, before anything starts.

Guarantee: no backend is talked to; a provider's own words name the bad key, never its value; the data folder is not touched
(it may not be there yet): a provider gets a folder that is removed again.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

import jsonschema_rs

from purveyor_server.config import dev_catalog
from purveyor_server.config.catalog import CatalogFile, load_catalog, parse_catalog
from purveyor_server.domain.errors import invalid
from purveyor_server.domain.model import Json, ProviderRef
from purveyor_server.providers.contract import Provider, ProviderFactory
from purveyor_server.providers.registry import Environment

BUILT_IN = "the built-in catalog"


class ProviderChecks:
    """Makes each configured provider once, unconnected, and asks it."""

    def __init__(self, factories: Mapping[str, ProviderFactory], folder: Path, environ: Mapping[str, str]) -> None:
        self._factories = factories
        self._folder = folder
        self._environ = environ
        self._providers: dict[str, Provider] = {}

    def config(self, ref: ProviderRef) -> None:
        """Raise PurveyorError unless the provider's kind is installed and takes its configuration."""
        factory = self._factories.get(ref.kind)
        if factory is None:
            known = ", ".join(sorted(self._factories)) or "none"
            raise invalid("kind", f"no provider of the kind {ref.kind!r} is installed (installed: {known})")
        environment = Environment(ref.name, self._folder / ref.name, "", self._environ)
        self._providers[ref.name] = factory(ref.config, environment)

    def settings(self, ref: ProviderRef, settings: Mapping[str, Json]) -> None:
        """Raise PurveyorError unless the plan settings fit the provider's own schema."""
        schema = self._providers[ref.name].schemas.settings
        if not schema:
            return
        faults = [
            f"{'.'.join(str(part) for part in error.instance_path) or 'settings'}: {error.message}"
            for error in jsonschema_rs.validator_for(schema).iter_errors(dict(settings))
        ]
        if faults:
            raise invalid("settings", "; ".join(faults))


def read_catalog(
    path: Path | None, factories: Mapping[str, ProviderFactory], environ: Mapping[str, str]
) -> CatalogFile:
    """The catalog at `path` (None: the built-in one), found good by rules and providers; raises ConfigError."""
    with tempfile.TemporaryDirectory() as folder:
        checks = ProviderChecks(factories, Path(folder), environ)
        if path is None:
            return parse_catalog(dev_catalog(), BUILT_IN, checks.config, checks.settings)
        return load_catalog(path, checks.config, checks.settings)
