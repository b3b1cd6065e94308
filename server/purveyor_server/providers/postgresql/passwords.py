"""A password of the broker's own in a file, and its rotation.

Guarantee: a new password is on the disk before the server hears of it, and the old one until the new one has been seen to work
(`<file>.next`): whoever is cut off anywhere in between finds one of the two that lets it in, and keeps that one. The server gets a
verifier, never the password. Sessions that are open stay open.
Limit: one rotation at a time on one host; who reads the file in other ways must read it again when it is not let in.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import asyncpg

from purveyor_server.kit.secret import Secret
from purveyor_server.providers.contract import Ambiguous, Permanent, RightsMissing
from purveyor_server.providers.postgresql.cluster import write_private
from purveyor_server.providers.postgresql.failures import INVALID_PASSWORD, explain
from purveyor_server.providers.postgresql.scram import make_verifier
from purveyor_server.providers.postgresql.sessions import Address, Connection
from purveyor_server.providers.postgresql.sql import literal

SECONDS = 15.0  # of one statement, and of one login


class PasswordFile(NamedTuple):
    """Where a password is kept."""

    path: Path

    @property
    def next(self) -> Path:
        """The password that is on its way into the server."""
        return self.path.with_name(self.path.name + ".next")

    def read(self) -> Secret:
        """The password. Raises OSError."""
        return Secret(self.path.read_text(encoding="utf-8").strip())

    @property
    def spare(self) -> Secret | None:
        """The other password that may be the right one, when a rotation was cut off."""
        try:
            return Secret(self.next.read_text(encoding="utf-8").strip())
        except OSError:
            return None

    def keep_next(self, password: Secret) -> None:
        """Write it beside the other, readable for the same; durable."""
        write_private(self.next, password.reveal() + "\n")
        now = self.path.stat()
        os.chmod(self.next, now.st_mode & 0o777)  # noqa: PTH101 - beside chown, which pathlib has not
        if os.geteuid() == 0:
            os.chown(self.next, now.st_uid, now.st_gid)

    def promote(self) -> None:
        """The next password is the password."""
        self.next.replace(self.path)

    def check_writable(self) -> None:
        """Raises Permanent when the password cannot be replaced here."""
        if not os.access(self.path.parent, os.W_OK) or not os.access(self.path, os.W_OK):
            detail = f"{self.path}: change it in the server and in the file; it is read again when it is refused"
            raise Permanent("the file of the server's password cannot be written by the broker", detail)

    def address(self, host: str, port: int, user: str, database: str) -> Address:
        """A server of ours, with both passwords. Raises OSError."""
        return Address(host, port, user, self.read(), database, spare=self.spare, promote=self.promote)


async def rotate(address: Address, file: PasswordFile) -> None:
    """Give the account of `address` a new password. Raises RightsMissing when neither password lets it in, Ambiguous when
    the new one does not: then both are kept."""
    connection = await _enter(address, file)
    fresh = Secret.mint()
    try:
        file.keep_next(fresh)
        verifier = literal(make_verifier(address.user, fresh))
        try:
            await connection.execute(f"ALTER ROLE CURRENT_USER PASSWORD {verifier}", timeout=SECONDS)
        except Exception as error:
            raise explain(error, "set_password", changing=True) from error
    finally:
        connection.terminate()
    try:
        (await _connect(address, fresh)).terminate()
    except asyncpg.PostgresError as error:
        raise Ambiguous("the server does not take the new password; both are kept", str(error)) from error
    file.promote()


async def _enter(address: Address, file: PasswordFile) -> Connection:
    """A session by whichever password is right; that one is the password from then on."""
    for password, right in ((address.password, lambda: None), (file.spare, file.promote)):
        if password is None:
            continue
        try:
            connection = await _connect(address, password)
        except asyncpg.PostgresError as error:
            if error.sqlstate in INVALID_PASSWORD:
                continue
            raise explain(error, "connect", changing=False) from error
        except OSError as error:
            raise explain(error, "connect", changing=False) from error
        right()
        return connection
    raise RightsMissing(
        "the PostgreSQL server does not let the broker in", f"user {address.user}, password in {file.path}"
    )


async def _connect(address: Address, password: Secret) -> Connection:
    return await asyncpg.connect(
        host=address.host, port=address.port, user=address.user, password=password.reveal(), database=address.database,
        ssl=address.tls, timeout=SECONDS, statement_cache_size=0,
    )  # fmt: skip
