"""The embedded server's files: where they are, how they come to be.

Guarantee: a cluster exists whole or not at all: it is initialised beside its place, its roles are made in single-user mode,
and one rename publishes it. Nothing but password verifiers is ever sent. Folders of others keep their permissions: what
the server's user must reach lies in a folder made for it.

The broker's data directory keeps `cluster.json` (place, port), `admin.password` and `superuser.password` (0600). The
place holds `data` and `sock` (0700, the server's user), `server.log`, and `binaries` where a copy is needed. Place:
`cluster_dir` where configured; else `cluster` in the data directory if the server's user may enter that (always so
unless the broker runs as root); else a folder of its own in /var/lib/purveyor/clusters.
Limit: clusters in /var/lib stay when somebody removes the data directory by hand; `origin` in them names it.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from purveyor_server.kit.secret import Secret
from purveyor_server.providers.contract import Permanent, Unreachable
from purveyor_server.providers.postgresql.binaries import OsUser, may_enter
from purveyor_server.providers.postgresql.scram import make_verifier
from purveyor_server.providers.postgresql.sql import ident, literal

SHARED_PLACES = Path("/var/lib/purveyor/clusters")
SUPERUSER = "postgres"
ADMIN = "purveyor_admin"
ADMIN_DATABASE = "postgres"
INIT_SECONDS = 120.0
MAX_CONNECTIONS = 200
RESERVED_CONNECTIONS = 10  # so that tenants cannot lock the broker out of the server
PORTS = range(20000, 30000)  # below the ephemeral ports, which any outgoing connection may hold at a restart
PORT_TRIES = 200
SOCKET_PATH_LIMIT = 100  # sun_path holds 107 bytes on Linux, 103 on macOS

Runner = Callable[..., None]


class State(msgspec.Struct, frozen=True):
    """What `cluster.json` says. The port is part of credentials: it stays what it was."""

    place: str
    port: int


class Folders(NamedTuple):
    """The two sides: `keep` is the broker's (0700), `place` the server's."""

    keep: Path
    place: Path

    @property
    def data(self) -> Path:
        """The cluster itself."""
        return self.place / "data"

    @property
    def log(self) -> Path:
        """What the server has to say."""
        return self.place / "server.log"

    @property
    def sockets(self) -> Path:
        """The folder of the unix socket."""
        return self.place / "sock"

    def password(self, role: str) -> Path:
        """Where the password of `role` is kept."""
        return self.keep / {ADMIN: "admin.password", SUPERUSER: "superuser.password"}[role]


def load_state(keep: Path) -> State | None:
    """What was recorded, or None before the first start. Raises Permanent when the file cannot be understood."""
    try:
        return msgspec.json.decode((keep / "cluster.json").read_bytes(), type=State)
    except FileNotFoundError:
        return None
    except msgspec.MsgspecError as error:
        raise Permanent("the embedded PostgreSQL server's state cannot be read", f"{keep}/cluster.json") from error


def save_state(keep: Path, state: State) -> None:
    """Replace `cluster.json` whole."""
    write_private(keep / "cluster.json", msgspec.json.encode(state).decode())


def write_private(path: Path, text: str, user: OsUser | None = None) -> None:
    """Replace `path` whole by `text`, 0600, durable; owned by `user` where given."""
    draft = path.with_name(path.name + ".new")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(descriptor)
    if user is not None and user.switch:
        os.chown(draft, user.uid, user.gid)
    draft.replace(path)


def choose_place(keep: Path, user: OsUser, cluster_dir: str = "") -> Path:
    """Where a new cluster goes; the folder exists afterwards and `user` may enter it. Raises Permanent with what to configure."""
    place = Path(cluster_dir).absolute() if cluster_dir else _default_place(keep, user)
    try:
        _make_place(place, keep)
    except OSError as error:
        raise _bad_place(place, str(error)) from error
    if user.switch and not may_enter(user, place):
        raise _bad_place(place, f"user {user.name} may not enter a folder on the way")
    return place


def _default_place(keep: Path, user: OsUser) -> Path:
    if not user.switch or may_enter(user, keep):
        return keep / "cluster"
    return SHARED_PLACES / secrets.token_hex(8)


def _make_place(place: Path, keep: Path) -> None:
    if place.is_relative_to(SHARED_PLACES):
        SHARED_PLACES.mkdir(mode=0o755, parents=True, exist_ok=True)
    place.mkdir(mode=0o711, exist_ok=True)
    place.chmod(0o711)
    (place / "origin").write_text(f"{keep}\n", encoding="utf-8")


def _bad_place(place: Path, why: str) -> Permanent:
    return Permanent(
        "the embedded PostgreSQL server has no place for its files", f"embedded.cluster_dir {place}: {why}"
    )


def make_folder(path: Path, user: OsUser) -> None:
    """Make `path` 0700 and owned by `user`."""
    path.mkdir(mode=0o700, exist_ok=True)
    if user.switch:
        os.chown(path, user.uid, user.gid)


def choose_port() -> int:
    """A port of 127.0.0.1 that nobody holds now."""
    for _ in range(PORT_TRIES):
        port = secrets.choice(PORTS)
        if port_is_free(port):
            return port
    raise Unreachable("the PostgreSQL server cannot be started", "no free port on 127.0.0.1")


def port_is_free(port: int) -> bool:
    """Whether nobody listens on `port` of 127.0.0.1 now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def base_settings(folders: Folders, port: int) -> dict[str, str]:
    """What every server of ours listens on and logs; the unix socket is left out where its path would be too long."""
    sockets = str(folders.sockets) if len(str(folders.sockets)) < SOCKET_PATH_LIMIT - len(".s.PGSQL.65535") else ""
    return {
        "listen_addresses": "127.0.0.1",
        "port": str(port),
        "unix_socket_directories": sockets,
        "unix_socket_permissions": "0700",
        "max_connections": str(MAX_CONNECTIONS),
        "reserved_connections": str(RESERVED_CONNECTIONS),
        "password_encryption": "scram-sha-256",
        # Statements may carry what tenants hold secret, and a tenant's errors must not fill the disk.
        "log_statement": "none",
        "log_min_error_statement": "panic",
        "log_min_messages": "log",
    }


def settings_text(settings: dict[str, str]) -> str:
    """The file `purveyor.conf`."""
    lines = (f"{key} = {literal(value)}\n" for key, value in settings.items())
    return "# Written by the broker; changes here are lost.\n" + "".join(lines)


def write_settings(folders: Folders, user: OsUser, settings: dict[str, str]) -> None:
    """Replace `purveyor.conf` in the cluster."""
    write_private(folders.data / "purveyor.conf", settings_text(settings), user)


def initialise(folders: Folders, binaries: Path, user: OsUser, runner: Runner | None = None) -> None:
    """Make the cluster with its roles, whole or not at all; remains of an earlier try are removed first."""
    draft = folders.place / "data.new"
    shutil.rmtree(draft, ignore_errors=True)
    make_folder(draft, user)
    passwords = {role: Secret.mint() for role in (SUPERUSER, ADMIN)}
    for role, password in passwords.items():
        write_private(folders.password(role), password.reveal() + "\n")
    execute = runner or run
    _initdb(folders, draft, binaries, user, passwords[SUPERUSER], execute)
    # The folder belongs to the server's user: follow no link of its making.
    descriptor = os.open(draft / "postgresql.conf", os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW)
    with os.fdopen(descriptor, "a", encoding="utf-8") as configuration:
        configuration.write("include_if_exists = 'purveyor.conf'\n")
    command = [str(binaries / "postgres"), "--single", "-D", str(draft), "-c", "exit_on_error=on", ADMIN_DATABASE]
    execute(command, user, folders.place, text="\n".join(_bootstrap(passwords[ADMIN])) + "\n")
    draft.rename(folders.data)


def _initdb(folders: Folders, draft: Path, binaries: Path, user: OsUser, password: Secret, execute: Runner) -> None:
    file = folders.place / "initial.password"
    write_private(file, password.reveal() + "\n", user)
    try:
        execute(
            [
                *(str(binaries / "initdb"), "-D", str(draft), "-U", SUPERUSER, "--pwfile", str(file), "-E", "UTF8"),
                *("--auth-host=scram-sha-256", "--auth-local=scram-sha-256"),
                *("--locale-provider=builtin", "--locale=C.UTF-8", "--no-instructions"),
            ],
            user,
            folders.place,
        )
    finally:
        file.unlink(missing_ok=True)


def _bootstrap(password: Secret) -> list[str]:
    """All that needs a superuser, once: the broker's role, and no way in for anybody else."""
    verifier = literal(make_verifier(ADMIN, password))
    rights = "LOGIN CREATEROLE CREATEDB NOSUPERUSER NOREPLICATION NOBYPASSRLS"
    return [
        f"CREATE ROLE {ident(ADMIN)} {rights} PASSWORD {verifier}",
        f"ALTER ROLE {ident(ADMIN)} SET createrole_self_grant = 'set, inherit'",
        f"GRANT pg_use_reserved_connections TO {ident(ADMIN)}",
        "REVOKE CONNECT, TEMPORARY ON DATABASE postgres FROM PUBLIC",
        "REVOKE CONNECT, TEMPORARY ON DATABASE template1 FROM PUBLIC",
        f"GRANT CONNECT ON DATABASE {ident(ADMIN_DATABASE)} TO {ident(ADMIN)}",
    ]


def remove(folders: Folders) -> None:
    """Delete the place and what the broker keeps of it. Raises Permanent unless the place says that it is ours."""
    origin = folders.place / "origin"
    if folders.place.exists():
        if not origin.is_file() or origin.read_text(encoding="utf-8").strip() != str(folders.keep):
            raise Permanent("the embedded PostgreSQL server's files are not ours to delete", f"see {origin}")
        shutil.rmtree(folders.place)
    for name in (folders.keep / "cluster.json", folders.password(ADMIN), folders.password(SUPERUSER)):
        name.unlink(missing_ok=True)
        name.with_name(name.name + ".next").unlink(missing_ok=True)


def run(command: list[str], user: OsUser, folder: Path, *, text: str = "", seconds: float = INIT_SECONDS) -> None:
    """Run a program of the installation as `user`; raises Unreachable with the end of what it said."""
    options: dict[str, Any] = dict(user.popen)
    try:
        result = subprocess.run(  # noqa: S603 - fixed programs of the installation
            command, check=False, capture_output=True, input=text, text=True, timeout=seconds, cwd=folder,
            env={"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}, **options,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unreachable("the PostgreSQL server cannot be started", f"{command[0]}: {error}") from error
    if result.returncode != 0:
        said = (result.stdout + result.stderr)[-1500:]
        raise Unreachable("the PostgreSQL server cannot be started", f"{Path(command[0]).name}: {said}")
