"""The data itself on its way from the old database into the new server: one `pg_dump`, one `pg_restore`.

Guarantee: the job is started once under a saved id, polled, and found again by a broker that was killed meanwhile; the restore is
one transaction into an empty database, so it is there whole or not at all; nothing is restored from a dump that did not come to
its end. On the way back the job is ended and its files are removed. Passwords are in a file of the server's OS user alone, which goes
with the job's other files. The restore is the broker's role's in the new server, no superuser's: while rows are copied checks run
that tenants wrote.
Limit: the dump lies beside the new server's files for a while: their disk holds the data twice. Row security that is forced upon the
owner, or an extension that the new server's programs do not have, ends the move before its pivot, with what the program said.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from purveyor_server.kit.flock import is_free
from purveyor_server.providers.contract import Context, Done, NotYet, Permanent, Piece, Retryable
from purveyor_server.providers.postgresql.backup import LAUNCH_SECONDS, POLL_SECONDS
from purveyor_server.providers.postgresql.cluster import ADMIN, write_private
from purveyor_server.providers.postgresql.dedicated import BUSY, wake
from purveyor_server.providers.postgresql.host import Cluster
from purveyor_server.providers.postgresql.locks import FULL, NO_SPACE, SAID_CHARACTERS, explain, holding
from purveyor_server.providers.postgresql.moving import is_move
from purveyor_server.providers.postgresql.pieces import DATABASE, GROUP
from purveyor_server.providers.postgresql.sessions import Address, Sessions
from purveyor_server.providers.postgresql.sql import ident

# As in `backup`; the first line tells the process group, by which the job is ended.
JOB = 'echo "$0 in $$" >&2; exec 3<&0; { "$@" 3<&- </dev/null; echo "$0 $?" >&2; } &'
TRANSFER = (
    '"$1" -Fc --no-password -f "$5" -d "$3"'
    ' && "$2" --single-transaction --exit-on-error --no-password -d "$4" "$5"'
)  # fmt: skip
AGAIN_SECONDS = 0.1
JOB_ID = re.compile(r"[0-9a-f]{32}")
PASSING = (
    "password authentication failed",
    "could not connect",
    "connection to server",
    "terminating connection",
    "server closed the connection",
)
IS_EMPTY = """
SELECT NOT EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                    WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema')
   AND NOT EXISTS (SELECT FROM pg_largeobject_metadata)
   AND (SELECT count(*) FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname NOT IN ('information_schema', 'public')) = 0
"""


class SourceTls(NamedTuple):
    """How libpq reaches the old server."""

    sslmode: str = "disable"
    rootcert: str = ""


class Job(NamedTuple):
    """One run and its files."""

    uid: str
    said: Path
    lock: Path
    dump: Path
    passwords: Path

    @property
    def words(self) -> str:
        """What was said so far."""
        try:
            return self.said.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return ""

    @property
    def group(self) -> int:
        """Its process group, 0 when it was never begun."""
        found = re.match(rf"{self.uid} in (\d+)\n", self.words)
        return int(found[1]) if found else 0

    @property
    def code(self) -> str:
        """The exit code; empty when it did not come to its end."""
        last = self.words.rstrip().rpartition("\n")[2]
        return last.removeprefix(f"{self.uid} ") if re.fullmatch(rf"{self.uid} \d+", last) else ""

    def tidy(self) -> None:
        """Remove its files, what it said last: without that it begins again."""
        for path in (self.dump, self.passwords, self.lock, self.said):
            path.unlink(missing_ok=True)


class DataPiece:
    """Step of a move; done when everything is in the new database."""

    name = "data"
    weight = 10.0
    mints: tuple[str, ...] = ()

    def __init__(self, source: Sessions, tls: SourceTls, cluster: Cluster, database: Piece) -> None:
        self._source = source
        self._tls = tls
        self._cluster = cluster
        self._database = database

    async def ensure(self, ctx: Context) -> Done | NotYet:
        """Start the job, or see how far it is; on the way back, end it."""
        if not is_move(ctx):
            return await self.absent(ctx)
        job = _job(self._cluster, await _job_id(ctx))
        try:
            return await self._go_on(ctx, job)
        except OSError as error:
            raise explain(error, "moving the data") from error

    async def absent(self, ctx: Context) -> Done | NotYet:
        """End what runs and remove its files."""
        for job in await asyncio.to_thread(
            _begun, self._cluster
        ):  # by their files: a clean-up has nothing that was saved
            if not await asyncio.to_thread(is_free, job.lock):
                ctx.outside("end_transfer")
                _end(job)
                return NotYet(AGAIN_SECONDS, "the copying of the data is being ended")
            await asyncio.to_thread(job.tidy)
        return Done()

    async def settle(self, ctx: Context) -> bool:
        """True when no job is being begun: one that runs is found by its id."""
        saved = _saved(ctx)
        if not saved:
            return True
        job = _job(self._cluster, saved)
        return await asyncio.to_thread(is_free, job.lock) or bool(job.group)

    async def _go_on(self, ctx: Context, job: Job) -> Done | NotYet:
        if not await asyncio.to_thread(is_free, job.lock):
            size = job.dump.stat().st_size if job.dump.exists() else 0
            ctx.report(50, f"copying the data: {size / 1024 / 1024:.1f} MiB so far")
            return NotYet(POLL_SECONDS if job.group else AGAIN_SECONDS, "the data is being copied")
        if not job.code:
            return await self._begin(ctx, job)
        said = job.words[-SAID_CHARACTERS:]
        job.dump.unlink(missing_ok=True)
        job.passwords.unlink(missing_ok=True)
        if job.code == "0":
            return Done()
        await asyncio.to_thread(job.tidy)
        if any(words in said for words in NO_SPACE):
            raise Retryable(FULL, said)
        if any(words in said for words in PASSING):
            raise Retryable("the copying of the data broke off", said)
        raise Permanent("the data could not be copied; the instance stays where it is", said)

    async def _begin(self, ctx: Context, job: Job) -> Done | NotYet:
        await wake(ctx, self._cluster)
        async with self._cluster.sessions.work(ctx, self.name) as session:
            if session is None or not await asyncio.to_thread(is_free, job.lock):
                return BUSY
            database = ctx.instance_name(DATABASE)
            async with self._cluster.sessions.inside(database, ctx, self.name) as inside:
                empty = await inside.value(IS_EMPTY)
            if not empty:  # a run before this one came to its end, and its end was not written down
                await session.change(ctx, "drop_half", f"DROP DATABASE IF EXISTS {ident(database)} WITH (FORCE)")
                if isinstance(made := await self._database.ensure(ctx), NotYet):
                    return made
            group = ident(ctx.instance_name(GROUP))  # the owner of a table needs CREATE in its schema, rights come last
            async with self._cluster.sessions.inside(database, ctx, self.name) as inside:
                await inside.change(ctx, "grant_public", f"GRANT USAGE, CREATE ON SCHEMA public TO {group}")
            address = await self._source.address()
            ctx.outside("start_transfer")
            begun = await asyncio.to_thread(_start, self._cluster, job, database, address, self._tls)
        return NotYet(AGAIN_SECONDS, "the data is being copied") if begun else BUSY


async def _job_id(ctx: Context) -> str:
    saved = _saved(ctx)
    if saved:
        return saved
    fresh = uuid.uuid4().hex
    await ctx.save({"job": fresh})
    return fresh


def _saved(ctx: Context) -> str:
    saved = str(ctx.saved.get("job")) if isinstance(ctx.saved, dict) else ""
    return saved if JOB_ID.fullmatch(saved) else ""


def _job(cluster: Cluster, uid: str) -> Job:
    place = cluster.folders.place
    return Job(
        uid, cluster.keep / f"move-{uid}.said", cluster.keep / "move.lock", place / "move.dump", place / "move.pass"
    )


def _begun(cluster: Cluster) -> list[Job]:
    return [_job(cluster, path.stem.removeprefix("move-")) for path in cluster.keep.glob("move-*.said")]


def _end(job: Job) -> None:
    """The lock is held, so the group is still the job's."""
    if job.group:
        with suppress(ProcessLookupError):
            os.killpg(job.group, signal.SIGTERM)


def _start(cluster: Cluster, job: Job, database: str, source: Address, tls: SourceTls) -> bool:
    """Blocking: begin the job in a session of its own, with its lock; False when another run was quicker."""
    state = cluster.need_state()
    user = cluster.user(state)
    admin = cluster.folders.password(ADMIN).read_text(encoding="utf-8").strip()
    lines = [
        (source.host, str(source.port), "*", source.user, source.password.reveal()),
        ("127.0.0.1", str(state.port), "*", ADMIN, admin),
    ]
    programs = cluster.host.binaries(user)
    old = _conninfo(
        host=source.host,
        port=source.port,
        user=source.user,
        dbname=database,
        sslmode=tls.sslmode,
        sslrootcert=tls.rootcert,
    )
    new = _conninfo(host="127.0.0.1", port=state.port, user=ADMIN, dbname=database, sslmode="disable")
    command = [*("/bin/sh", "-c", TRANSFER, "purveyor"), str(programs / "pg_dump"), str(programs / "pg_restore")]
    options: dict[str, Any] = dict(user.popen)
    with holding(job.lock, cluster.keep) as lock:
        if lock is None:
            return False
        write_private(job.passwords, "".join(":".join(map(_escaped, line)) + "\n" for line in lines), user)
        write_private(job.dump, "", user)
        said = os.open(job.said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        try:
            subprocess.run(  # noqa: S603 - fixed programs of the installation; they outlive this call by design
                ["/bin/sh", "-c", JOB, job.uid, *command, old, new, str(job.dump)],
                stdin=lock, stdout=subprocess.DEVNULL, stderr=said, cwd="/", start_new_session=True, check=True,
                timeout=LAUNCH_SECONDS, **options,
                env={"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC", "PGPASSFILE": str(job.passwords)},
            )  # fmt: skip
        finally:
            os.close(said)
    return True


def _conninfo(**parts: str | int) -> str:
    quoted = {key: str(value).replace("\\", "\\\\").replace("'", "\\'") for key, value in parts.items() if value != ""}
    return " ".join(f"{key}='{value}'" for key, value in quoted.items())


def _escaped(text: str) -> str:
    return text if text == "*" else text.replace("\\", "\\\\").replace(":", "\\:")
