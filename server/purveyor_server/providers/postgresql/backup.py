"""The last dump of a database before its server is removed, where the plan says so.

Guarantee: nothing is removed before the dump is complete on disk; `pg_dump` is started once under a saved id, polled, and
found again by a broker that was killed meanwhile; the dump appears under its name by one rename, 0600.
Limit: a dump (custom format, pg_restore) of the database, not of roles. It is taken as the superuser, so that no row
security or ownership leaves anything out. A dump that cannot be made keeps the instance: the deprovision fails, named.
"""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import uuid
from pathlib import Path
from typing import Any, NamedTuple

from purveyor_server.domain.names import outside_name
from purveyor_server.kit.flock import is_free
from purveyor_server.providers.contract import Context, Done, NotYet, Permanent, Retryable
from purveyor_server.providers.postgresql.cluster import SUPERUSER, write_private
from purveyor_server.providers.postgresql.dedicated import BUSY, ClusterPiece, wake
from purveyor_server.providers.postgresql.host import Cluster
from purveyor_server.providers.postgresql.locks import FULL, NO_SPACE, SAID_CHARACTERS, explain, holding
from purveyor_server.providers.postgresql.pieces import DATABASE
from purveyor_server.providers.postgresql.settings import DedicatedSettings, settings_of

POLL_SECONDS = 0.5
# The shell holds the lock as descriptor 3 and gives the program none of it; it is nobody's child. Its last line tells the
# end; it carries the job's id, which nobody in the database knows.
JOB = 'exec 3<&0; { "$@" 3<&- </dev/null; echo "$0 $?" >&2; } &'
LAUNCH_SECONDS = 10.0
JOB_ID = re.compile(r"[0-9a-f]{32}")


class Job(NamedTuple):
    """One run of pg_dump and its files."""

    uid: str
    draft: Path  # the dump as it grows
    said: Path
    lock: Path
    target: Path

    @property
    def code(self) -> str:
        """The exit code; empty when it did not come to its end."""
        try:
            last = self.said.read_text(encoding="utf-8", errors="replace").rstrip().rpartition("\n")[2]
        except FileNotFoundError:
            return ""
        return last.removeprefix(f"{self.uid} ") if last.startswith(f"{self.uid} ") else ""


class FinalBackupPiece(ClusterPiece):
    """Step of a deprovision; `ensure` is done when the dump is there."""

    name = "final_backup"
    weight = 5.0

    async def ensure(self, ctx: Context) -> Done | NotYet:
        """Start the job, or see how far it is."""
        plan, cluster = settings_of(ctx.was, DedicatedSettings), self._cluster(ctx)
        if plan.final_backup is None or cluster.state is None or not cluster.folders.data.exists():
            return Done()
        job = _job(cluster, Path(plan.final_backup.folder), await self._job_id(ctx), ctx)
        if job.target.exists():
            return Done({"backup": job.target.name})
        try:
            return await self._go_on(ctx, cluster, job)
        except OSError as error:
            raise explain(error, f"final_backup in {job.target.parent}") from error

    async def absent(self, ctx: Context) -> Done | NotYet:  # noqa: ARG002 - the protocol's
        """A dump is never taken back."""
        return Done()

    async def _job_id(self, ctx: Context) -> str:
        if isinstance(ctx.saved, dict) and JOB_ID.fullmatch(str(ctx.saved.get("job"))):
            return str(ctx.saved["job"])
        job = uuid.uuid4().hex
        await ctx.save({"job": job})
        return job

    async def _go_on(self, ctx: Context, cluster: Cluster, job: Job) -> Done | NotYet:
        if not await asyncio.to_thread(is_free, job.lock):
            return _growing(ctx, job)
        if not job.code:  # never begun, or interrupted with its host
            await wake(ctx, cluster)
            ctx.outside("start_backup")
            return _growing(ctx, job) if await asyncio.to_thread(_start, cluster, job, ctx) else BUSY
        if job.code != "0":
            said = job.said.read_text(encoding="utf-8", errors="replace")[-SAID_CHARACTERS:]
            job.draft.unlink(missing_ok=True)
            job.said.unlink(missing_ok=True)  # goes last: without it the job begins again
            message = FULL if any(words in said for words in NO_SPACE) else "the final backup could not be made"
            raise Retryable(message, f"pg_dump: {said}")
        ctx.outside("publish_backup")
        await asyncio.to_thread(_publish, job)
        return Done({"backup": job.target.name})


def _job(cluster: Cluster, folder: Path, job: str, ctx: Context) -> Job:
    if not folder.is_absolute() or not folder.is_dir():
        raise Permanent("the plan's final_backup.folder does not exist", str(folder))
    database = outside_name(DATABASE, ctx.work.instance_uid)
    draft, said = folder / f".{database}.{job}.part", cluster.keep / f"backup-{job}.said"
    return Job(job, draft, said, cluster.keep / "backup.lock", folder / f"{database}.dump")


def _growing(ctx: Context, job: Job) -> NotYet:
    size = job.draft.stat().st_size if job.draft.exists() else 0
    ctx.report(50, f"taking the final backup: {size / 1024 / 1024:.1f} MiB so far")
    return NotYet(POLL_SECONDS, "the final backup is being taken")


def _start(cluster: Cluster, job: Job, ctx: Context) -> bool:
    """Blocking: begin the job in a session of its own, with its lock; False when another run was quicker."""
    state = cluster.need_state()
    user = cluster.user(state)
    passwords = cluster.folders.place / "backup.pass"
    password = cluster.folders.password(SUPERUSER).read_text(encoding="utf-8").strip()
    write_private(passwords, f"127.0.0.1:{state.port}:*:{SUPERUSER}:{password}\n", user)
    database = outside_name(DATABASE, ctx.work.instance_uid)
    program = str(cluster.host.binaries(user) / "pg_dump")
    dump = [program, "-h", "127.0.0.1", "-p", str(state.port), "-U", SUPERUSER, "-d", database, "-Fc", "--no-password"]
    options: dict[str, Any] = dict(user.popen)
    with holding(job.lock, cluster.keep) as lock:
        if lock is None:
            return False
        job.draft.unlink(missing_ok=True)
        draft = os.open(job.draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        said = os.open(job.said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        try:
            subprocess.run(  # noqa: S603 - a fixed program of the installation; it outlives this call by design
                ["/bin/sh", "-c", JOB, job.uid, *dump], stdin=lock, stdout=draft, stderr=said, cwd="/",
                start_new_session=True, check=True, timeout=LAUNCH_SECONDS, **options,
                env={"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC", "PGPASSFILE": str(passwords)},
            )  # fmt: skip
        finally:
            os.close(draft)
            os.close(said)
    return True


def _publish(job: Job) -> None:
    descriptor = os.open(job.draft, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    job.draft.rename(job.target)
