"""Contexts: brokers by name, as `kubectl` has them, in `~/.config/purveyor/contexts.toml` (or under XDG_CONFIG_HOME).

Guarantee: the file is written whole or not at all, readable by its owner alone, under a lock, so that two commands at once
lose nothing. A context's tenant, admin address, TLS and token file go with its address: an address from elsewhere takes none of them, and an
operator's command never falls back from a context to another broker's admin listener.
Limit: comments that somebody wrote into the file are lost with the next change.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import time
import tomllib
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from purveyor import addresses
from purveyor.errors import InvalidRequestError, NotFoundError, Violation
from purveyor.tls import SYSTEM, Tls

if TYPE_CHECKING:
    from collections.abc import Iterator

CONTEXT_VARIABLE = "PURVEYOR_CONTEXT"
TLS_KEYS = ("ca", "certificate", "key", "server_name")
LOCK_SECONDS = 5.0
LOCK_POLL_SECONDS = 0.02
DEFAULT_TENANT = "default"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
TENANT = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")


class Place(NamedTuple):
    """Whom to call: an address (None: as `addresses.resolve` finds it), a tenant, and the context that named them."""

    address: str | None
    tenant: str
    admin: str | None = None
    context: str = ""
    tls: Tls | bool | None = None  # None: as the environment says
    token_file: str | None = None  # as above


NOWHERE = Place(None, DEFAULT_TENANT)  # what needs no broker


@dataclass(frozen=True)
class Entry:
    """One context; without a tenant it is `default`, without an admin address it is not for operators."""

    address: str
    tenant: str = ""
    admin: str = ""
    tls: Tls | None = None
    token_file: str = ""


@dataclass
class Contexts:
    """What the file holds."""

    current: str = ""
    entries: dict[str, Entry] = field(default_factory=dict)

    def get(self, name: str) -> Entry:
        """A context. Raises NotFoundError."""
        found = self.entries.get(name)
        if found is None:
            raise NotFoundError(f"there is no context {name!r}: see `purveyor context list`")
        return found


def path() -> Path:
    """Where the file is."""
    home = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(home) / "purveyor" / "contexts.toml"


def choose(
    address: str | None, tenant: str | None, context: str | None, tls: Tls | None = None, token_file: str | None = None
) -> Place:
    """The first of: an address (option or variable), a context by name (option, then variable), the current context.

    Raises NotFoundError for a context that is not there, InvalidRequestError for a file that cannot be used.
    """
    if address:
        return Place(address, tenant or DEFAULT_TENANT, tls=tls, token_file=token_file)
    name = context or os.environ.get(CONTEXT_VARIABLE, "")
    known = load()
    name = name or known.current
    if not name:
        return Place(None, tenant or DEFAULT_TENANT, tls=tls, token_file=token_file)
    entry = known.get(name)
    used = tls or entry.tls or False
    return Place(
        entry.address,
        tenant or entry.tenant or DEFAULT_TENANT,
        entry.admin or None,
        name,
        used,
        token_file or entry.token_file or None,
    )


def admin_address(given: str | None, place: Place) -> str | None:
    """Where operators' commands go; None as `addresses.resolve_admin` finds it. Raises InvalidRequestError, naming the context."""
    if given or not place.context:
        return given
    if place.admin is None:
        fix = f"has none: `purveyor context set {place.context} --admin ADDRESS`, or give --admin"
        raise _refused(f"admin address of context {place.context}", fix)
    return place.admin


def admin_tls(given: str | None, place: Place) -> Tls | bool | None:
    """TLS of operators' commands: a context's goes for its admin address, unless that is a socket of this machine."""
    if not place.context:
        return place.tls
    if given:
        return None
    return False if (place.admin or "").startswith("unix:") else place.tls


def admin_token(given: str | None, place: Place) -> str | None:
    """The token file of operators' commands: a context's goes for its own admin address alone."""
    return None if place.context and given else place.token_file


def load() -> Contexts:
    """The contexts; none without a file. Raises InvalidRequestError, naming file and key."""
    try:
        content = tomllib.loads(path().read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return Contexts()
    except (OSError, ValueError) as error:
        raise _refused(str(path()), str(error)) from error
    tables = content.get("contexts", {})
    current = content.get("current", "")
    if not isinstance(tables, dict) or not isinstance(current, str):
        raise _refused(str(path()), "`current` is a name and `contexts` a table")
    return Contexts(current, {name: _entry(name, table) for name, table in tables.items()})


def _entry(name: str, table: Any) -> Entry:
    if not isinstance(table, dict) or not isinstance(table.get("address"), str):
        raise _refused(f"{path()}: contexts.{name}", "needs an address")
    tls = {key: f"tls_{key}" for key in TLS_KEYS}
    for key in ("tenant", "admin", "token_file", *tls.values()):
        if not isinstance(table.get(key, ""), str):
            raise _refused(f"{path()}: contexts.{name}.{key}", "is not text")
    used = Tls.of({key: table.get(name, "") for key, name in tls.items()})
    return Entry(table["address"], table.get("tenant", ""), table.get("admin", ""), used, table.get("token_file", ""))


@contextmanager
def changing() -> Iterator[Contexts]:
    """The contexts, to change; written at the end unless an error is raised."""
    folder = path().parent
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = os.open(folder / "contexts.lock", os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        _lock(lock)
        known = load()
        yield known
        _write(known)
    finally:
        os.close(lock)


def _lock(number: int) -> None:
    """Raises InvalidRequestError when another process holds it for too long."""
    end = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > end:
                raise _refused(str(path()), "another process is changing it") from None
            time.sleep(LOCK_POLL_SECONDS)
        else:
            return


def _write(known: Contexts) -> None:
    target = path().resolve()  # a link to a file that is kept elsewhere stays a link
    beside = target.with_name(f".{target.name}.{os.getpid()}")
    beside.unlink(missing_ok=True)
    number = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(number, "w", encoding="utf-8") as stream:
            stream.write(_toml(known))
            stream.flush()
            os.fsync(number)
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)


def _toml(known: Contexts) -> str:
    lines = [f"current = {_quoted(known.current)}"]
    for name, entry in sorted(known.entries.items()):
        lines += ["", f"[contexts.{_quoted(name)}]", f"address = {_quoted(entry.address)}"]
        lines += [f"tenant = {_quoted(entry.tenant)}"] if entry.tenant else []
        lines += [f"admin = {_quoted(entry.admin)}"] if entry.admin else []
        lines += [f"token_file = {_quoted(entry.token_file)}"] if entry.token_file else []
        lines += [f"tls_{key} = {_quoted(value)}" for key, value in tls_values(entry.tls).items() if value]
    return "\n".join(lines) + "\n"


def tls_values(tls: Tls | None) -> dict[str, str]:
    """Its fields as text; all of them empty without TLS."""
    return {key: str(getattr(tls, key)) if tls else "" for key in TLS_KEYS}


def changed_tls(old: Tls | None, given: dict[str, str | None]) -> Tls | None:
    """What is not given stays, what is empty goes; files count from here, whatever folder a later command runs in."""
    values = tls_values(old)
    for key, value in given.items():
        if value is not None:
            is_file = value and key != "server_name" and value != SYSTEM
            values[key] = str(Path(value).expanduser().absolute()) if is_file else value
    return Tls.of(values)


def _quoted(text: str) -> str:
    """A basic string of TOML, which JSON's is too, for text without control characters."""
    return json.dumps(text, ensure_ascii=False)


def absolute(file: str) -> str:
    """A file as every later command finds it; empty stays empty."""
    return str(Path(file).expanduser().absolute()) if file else ""


def checked(
    name: str, address: str, tenant: str, admin: str = "", tls: Tls | None = None, token_file: str = ""
) -> Entry:
    """A context that can be stored. Raises InvalidRequestError, naming the part."""
    if not NAME.fullmatch(name):
        raise _refused("name", f"{name!r} is not 1 to 63 letters, digits, '.', '_', '-', a letter or digit first")
    if tenant and not TENANT.fullmatch(tenant):
        raise _refused("tenant", f"{tenant!r} is not 1 to 63 of a-z, 0-9 and '-', a letter or digit at both ends")
    if not address or not address.isprintable():
        raise _refused("address", "is required: unix:/path or host:port")
    return Entry(
        addresses.resolve(address), tenant, addresses.resolve_admin(admin) if admin else "", tls, absolute(token_file)
    )


def _refused(what: str, description: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"{what}: {description}", reason="INVALID_REQUEST", violations=(Violation(what, description),)
    )
