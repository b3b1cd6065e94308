"""Where settings come from: a TOML file, then the environment over it.

Guarantee: every bad value of both is named in one `ConfigError`, by its path (`engine.running`) and, when it came from the
environment, by its variable.
Environment: `PURVEYOR_DATA_DIR`, `PURVEYOR_CATALOG`, `PURVEYOR_KEY_FILE`, and `PURVEYOR_<SECTION>__<KEY>`; lists are
separated by commas. Other variables that begin with `PURVEYOR_` belong to the client or to tests and are left alone.
Relative paths count from the folder of the file that names them, those of the environment from the working folder.
"""

from __future__ import annotations

import os
import tempfile
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from purveyor_server.config.problems import ConfigError, Problem, dotted, found
from purveyor_server.config.problems import Path as KeyPath
from purveyor_server.config.settings import Settings

PREFIX = "PURVEYOR_"
MAX_BYTES = 1024 * 1024
_PATHS = ("data_dir", "catalog", "key_file")
# Paths in the tables of listeners, of identity, of issuers.
_INNER_PATHS = ("certificate", "key", "client_ca", "crl", "bindings_file", "keys_file", "keys_ca")
_MISSING_CATALOG = "is required: the path of a catalog file (`purveyor serve --dev` brings one of its own)"


def load(
    path: Path | None, environ: Mapping[str, str] | None = None, *, dev: bool = False, data_dir: Path | None = None
) -> Settings:
    """The settings of the file at `path` (None: none), the environment, and `data_dir` above both; raises ConfigError.

    With `dev` nothing has to be configured: the defaults are those of a developer's own machine.
    """
    environment = os.environ if environ is None else environ
    variables = dict(_variables(environment))
    values = _from_file(path) if path is not None else {}
    origins = {place: _named(place) for place in variables}
    origins |= {place[:1]: _named(place) for place in variables if place[0] not in values}
    for place, text in variables.items():
        _put(values, place, text)
    if data_dir is not None:
        values["data_dir"] = str(data_dir)
    _default(values, environment, dev=dev)
    return _validated(values, origins, dev=dev)


def _validated(values: dict[str, Any], origins: Mapping[KeyPath, str], *, dev: bool) -> Settings:
    problems: list[Problem] = []
    settings: Settings | None = None
    try:
        settings = Settings.model_validate(values)
    except ValidationError as failure:
        for location, message in found(failure, Settings):
            problems.append(Problem(dotted(location), message, _origin(location, origins)))
    if not dev and "catalog" not in values:
        problems.append(Problem("catalog", _MISSING_CATALOG))
    if settings is None or problems:
        raise ConfigError(problems)
    return settings


def _variables(environ: Mapping[str, str]) -> Iterator[tuple[KeyPath, str]]:
    for name, text in sorted(environ.items()):
        key = name.removeprefix(PREFIX).lower()
        if name.startswith(PREFIX) and (key in _PATHS or "__" in key):
            yield tuple(key.split("__")), text


def _named(place: KeyPath) -> str:
    return PREFIX + "__".join(str(part) for part in place).upper()


def _origin(location: KeyPath, origins: Mapping[KeyPath, str]) -> str:
    """The environment variable that set the value at `location`, if one did."""
    return next((origins[location[:end]] for end in range(len(location), 0, -1) if location[:end] in origins), "")


def _put(values: dict[str, Any], place: KeyPath, text: str) -> None:
    *sections, key = place
    here = values
    for section in sections:
        inner = here.setdefault(str(section), {})
        if not isinstance(inner, dict):
            # The file has something else there; the model will say so.
            return
        here = inner
    here[str(key)] = text


def _from_file(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            text = file.read(MAX_BYTES + 1)
    except OSError as failure:
        raise ConfigError([Problem("", str(failure.strerror), str(path))]) from None
    if len(text) > MAX_BYTES:
        raise ConfigError([Problem("", f"larger than {MAX_BYTES} bytes", str(path))])
    try:
        values = tomllib.loads(text.decode("utf-8"))
    except UnicodeDecodeError:
        raise ConfigError([Problem("", "is not UTF-8", str(path))]) from None
    except tomllib.TOMLDecodeError as failure:
        raise ConfigError([Problem("", f"is not TOML: {failure}", str(path))]) from None
    for table in (values, *_inner_tables(values)):
        for key in _PATHS if table is values else _INNER_PATHS:
            if isinstance(table.get(key), str):
                table[key] = str(path.absolute().parent / Path(table[key]).expanduser())
    return values


def _inner_tables(values: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """`identity`, its issuers, and every table under `listen.tls` and `admin.tls`; what has another form is left for the
    model to refuse."""
    for name, inner in (("listen", "tls"), ("admin", "tls"), ("identity", "issuers")):
        section = values.get(name)
        if isinstance(section, dict) and name == "identity":
            yield section
        tables = section.get(inner) if isinstance(section, dict) else None
        yield from (table for table in (tables if isinstance(tables, list) else ()) if isinstance(table, dict))


def _default(values: dict[str, Any], environ: Mapping[str, str], *, dev: bool) -> None:
    """Fill in what depends on the machine: folder, socket, and how logs look to a developer."""
    own_folder = "data_dir" in values
    if not own_folder:
        state = Path(environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
        values["data_dir"] = str(state / "purveyor" / "dev" if dev else state / "purveyor")
    listen, log = values.setdefault("listen", {}), values.setdefault("log", {})
    folder = dev_socket_folder() if dev and not own_folder else Path(str(values["data_dir"])).expanduser().absolute()
    if isinstance(listen, dict) and "addresses" not in listen:
        listen["addresses"] = [f"unix:{folder / 'broker.sock'}"]
    admin = values.setdefault("admin", {})
    if isinstance(admin, dict) and "addresses" not in admin:
        admin["addresses"] = [f"unix:{folder / 'admin.sock'}"]
    if dev and isinstance(log, dict):
        log.setdefault("format", "console")


def dev_socket_folder() -> Path:
    """Where clients of the same user look for the broker of `purveyor serve --dev`."""
    return Path(tempfile.gettempdir()) / f"purveyor-dev-{os.getuid()}"
