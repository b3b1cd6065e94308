"""The process of a cluster's server: is it there, start it, stop it.

Guarantee: the server is started in a session of its own and outlives the broker; a process id that was used again by
another program is never taken for the server; a data directory of another major version is refused.
Limit: only Linux tells what a process was started for; elsewhere a process id that is alive counts.
"""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path

from purveyor_server.providers.contract import Permanent, Unreachable
from purveyor_server.providers.postgresql import cluster
from purveyor_server.providers.postgresql.binaries import TRIAL_SECONDS, OsUser
from purveyor_server.providers.postgresql.cluster import Folders, Runner

START_SECONDS = 60
STOP_SECONDS = 60
PROBE_SECONDS = 2.0
LOG_BYTES = 10 * 1024 * 1024  # a longer log is set aside at the next start; one is kept
SSL_REQUEST = b"\x00\x00\x00\x08\x04\xd2\x16\x2f"  # PostgreSQL answers it with one byte, S or N


def start(folders: Folders, binaries: Path, user: OsUser, run: Runner = cluster.run) -> None:
    """Start the server of a cluster that is there. Raises Unreachable with the end of what the server said."""
    forget_stale_pid(folders)
    prepare_log(folders, user)
    # pg_ctl starts the server in a session of its own and leaves: it is nobody's child and outlives the broker.
    command = [str(binaries / "pg_ctl"), "-D", str(folders.data), "-l", str(folders.log), "-s", "-w"]
    try:
        run([*command, "-t", str(START_SECONDS), "start"], user, folders.place, seconds=START_SECONDS + 5)
    except Unreachable as error:
        raise Unreachable(error.message, f"{error.detail}; {tail(folders.log)}") from error


def stop(folders: Folders, binaries: Path, user: OsUser, mode: str, run: Runner = cluster.run) -> None:
    """Stop the server; `mode` is pg_ctl's: smart, fast or immediate. Raises Unreachable."""
    command = [str(binaries / "pg_ctl"), "-D", str(folders.data), "-m", mode, "-w", "-t", str(STOP_SECONDS), "stop"]
    run(command, user, folders.place, seconds=STOP_SECONDS + 5)


def postmaster(folders: Folders) -> int | None:
    """The process id of the server of this cluster, if it is alive."""
    try:
        pid = int((folders.data / "postmaster.pid").read_text(encoding="utf-8").split("\n", 1)[0])
    except (OSError, ValueError):
        return None
    return pid if _is_ours(pid, folders) else None


def _is_ours(pid: int, folders: Folders) -> bool:
    """Whether `pid` is alive and, where the system can tell, was started for this cluster (a process id may be used again)."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except FileNotFoundError:
        if Path("/proc/self/cmdline").exists():
            return False
        return _is_alive(pid)
    return str(folders.data).encode() in words


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def forget_stale_pid(folders: Folders) -> None:
    """A process id that now belongs to another program would keep the server from starting."""
    if postmaster(folders) is None:
        (folders.data / "postmaster.pid").unlink(missing_ok=True)


def answers(folders: Folders, port: int) -> bool:
    """Whether the server of this cluster runs and takes connections, or says that it will."""
    return postmaster(folders) is not None and speaks_postgres(port)


def speaks_postgres(port: int) -> bool:
    """Whether somebody on `port` of 127.0.0.1 answers as PostgreSQL does."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=PROBE_SECONDS) as connection:
            connection.sendall(SSL_REQUEST)
            return connection.recv(1) in {b"S", b"N"}
    except OSError:
        return False


def check_version(folders: Folders, binaries: Path) -> None:
    """Raise Permanent unless the data directory is of the binaries' major version."""
    made_by = (folders.data / "PG_VERSION").read_text(encoding="utf-8").strip()
    share = binaries.parent / "share" / "postgres.bki"
    with share.open(encoding="utf-8") as file:
        binary = file.readline().strip().removeprefix("# PostgreSQL ")
    if binary != made_by:
        detail = f"{folders.data} was made by PostgreSQL {made_by}, the binaries are {binary}: dump and restore, or pg_upgrade"
        raise Permanent("the files of the PostgreSQL server are of another version", detail)


def version(binaries: Path) -> str:
    """What `postgres --version` says, as `18.6`. Raises Unreachable."""
    try:
        said = subprocess.run(  # noqa: S603 - a fixed program of the installation
            [binaries / "postgres", "--version"], check=True, capture_output=True, text=True, timeout=TRIAL_SECONDS,
            cwd="/", env={},
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError) as error:
        raise Unreachable("the PostgreSQL server cannot be started", f"{binaries}: {error}") from error
    return said.stdout.split()[2]


def prepare_log(folders: Folders, user: OsUser) -> None:
    """Make the log file for the server's user; one that is too long is set aside."""
    if folders.log.exists() and folders.log.stat().st_size > LOG_BYTES:
        folders.log.replace(folders.log.with_suffix(".log.1"))
    descriptor = os.open(folders.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
    try:
        if user.switch:
            os.fchown(descriptor, user.uid, user.gid)
    finally:
        os.close(descriptor)


def tail(log: Path) -> str:
    """The end of what the server wrote."""
    try:
        return log.read_text(encoding="utf-8", errors="replace")[-1500:]
    except OSError:
        return ""
