"""The configuration files of a dedicated server: settings, who may come in how, certificates.

Guarantee: what a plan fixes is in the file; what needs a restart is known, so that nothing else causes one. Private keys are
0600 and the server user's.
Limit: consumers may change defaults (statement_timeout, work_mem) in their sessions; temp_file_limit they cannot change.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from purveyor_server.providers.contract import RightsMissing
from purveyor_server.providers.postgresql.binaries import OsUser
from purveyor_server.providers.postgresql.cluster import (
    ADMIN,
    RESERVED_CONNECTIONS,
    SUPERUSER,
    Folders,
    base_settings,
    settings_text,
    write_private,
)
from purveyor_server.providers.postgresql.config import DedicatedConfig, TlsConfig
from purveyor_server.providers.postgresql.settings import DedicatedSettings

SUPERUSER_CONNECTIONS = 3
CERTIFICATE_ROLE = "purveyor_certificates"  # its members prove themselves by certificate, and by nothing else
RESTART = (
    "listen_addresses",
    "port",
    "unix_socket_directories",
    "max_connections",
    "reserved_connections",
    "superuser_reserved_connections",
    "shared_buffers",
)
TLS_FILES = ("server.crt", "server.key", "clients.crt")


def wanted_settings(
    config: DedicatedConfig, folders: Folders, port: int, plan: DedicatedSettings, connections: int
) -> dict[str, str]:
    """Every line of `purveyor.conf`."""
    settings = base_settings(folders, port)
    addresses = {config.host: None, "127.0.0.1": None}
    settings |= {
        "listen_addresses": ",".join(addresses),
        "max_connections": str(connections + RESERVED_CONNECTIONS + SUPERUSER_CONNECTIONS),
        "reserved_connections": str(RESERVED_CONNECTIONS),
        "superuser_reserved_connections": str(SUPERUSER_CONNECTIONS),
        "shared_buffers": f"{plan.shared_buffers_mb}MB",
        "work_mem": f"{plan.work_mem_mb}MB",
        "temp_file_limit": "-1" if plan.temp_file_limit_mb is None else f"{plan.temp_file_limit_mb}MB",
        "ssl": "on" if config.tls else "off",
        "ssl_ca_file": "clients.crt" if config.tls and config.tls.client_ca_certificate else "",
    }
    return settings


def restart_digest(settings: dict[str, str]) -> str:
    """Changes when a restart is needed."""
    lines = "\n".join(f"{key}={settings[key]}" for key in RESTART)
    return hashlib.sha256(lines.encode()).hexdigest()[:16]


def access_rules(tls: TlsConfig | None) -> str:
    """`pg_hba.conf`: passwords, over TLS where there are certificates; the broker itself from loopback."""
    kind = "hostssl" if tls else "host"
    own = "".join(f"host all {role} 127.0.0.1/32 scram-sha-256\n" for role in (ADMIN, SUPERUSER))
    certificates = ""
    if tls and tls.client_ca_certificate:
        certificates = "".join(f"hostssl all +{CERTIFICATE_ROLE} {net} cert\n" for net in ("0.0.0.0/0", "::/0"))
    passwords = "".join(f"{kind} all all {net} scram-sha-256\n" for net in ("0.0.0.0/0", "::/0"))
    return (
        f"# Written by the broker; changes here are lost.\nlocal all all scram-sha-256\n{own}{certificates}{passwords}"
    )


def files_of(config: DedicatedConfig, settings: dict[str, str]) -> dict[str, str]:
    """Content of every file below the data directory. Raises RightsMissing for a certificate that cannot be read."""
    files = {"purveyor.conf": settings_text(settings), "pg_hba.conf": access_rules(config.tls)}
    if config.tls:
        sources = (config.tls.certificate, config.tls.key, config.tls.client_ca_certificate)
        files |= {name: _read(source) for name, source in zip(TLS_FILES, sources, strict=True) if source}
    return files


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise RightsMissing("a certificate of the PostgreSQL servers cannot be read", f"{path}: {error}") from error


def differing(folders: Folders, files: dict[str, str]) -> list[str]:
    """Names of the files that would be written."""
    return [name for name, text in files.items() if _current(folders.data / name) != text]


def write_files(folders: Folders, files: dict[str, str], user: OsUser) -> None:
    """Replace those that differ, each as a whole."""
    for name in differing(folders, files):
        write_private(folders.data / name, files[name], user)


def _current(path: Path) -> str | None:
    """The folder belongs to the server's user: no link is followed."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return None
    with os.fdopen(descriptor, encoding="utf-8", errors="replace") as file:
        return file.read()
