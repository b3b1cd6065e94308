"""The last backup of what is removed: before anything goes, started once, found again, whole or not there."""

from __future__ import annotations

from pathlib import Path

import asyncpg
import pytest

from purveyor_server.domain.states import Make, Verb
from purveyor_server.providers.contract import Done, NotYet, Permanent, Retryable, Work, WorkSettings
from tests.postgres_server import make_root
from tests.provider_contract.estate import DEDICATED_PLAN, Estate
from tests.provider_contract.shop import FakeContext, until

pytestmark = [pytest.mark.postgres, pytest.mark.asyncio(loop_scope="session")]


def removal(shop: Estate, uid: str, folder: Path) -> Work:
    """A deprovision by a plan with a final backup."""
    was = WorkSettings("service", "plan", {**DEDICATED_PLAN, "final_backup": {"folder": str(folder)}}, {})
    return Work(Verb.DEPROVISION, uid, None, was, {})


async def test_nothing_is_removed_before_its_backup_is_there(home: tuple[Estate, str]) -> None:
    """Started once under a saved id, found again by the next broker, published whole and closed to others."""
    shop, uid = home
    folder = make_root("pvb")
    (tmp := folder / "backups").mkdir(mode=0o700)
    work = removal(shop, uid, tmp)
    backup, server, files = shop.provider.plan(work, {})
    assert [(step.piece.name, step.make) for step in (backup, server, files)] == [
        ("final_backup", Make.ENSURE), ("server", Make.ABSENT), ("cluster_files", Make.ABSENT),
    ]  # fmt: skip
    with pytest.raises(Permanent, match="folder does not exist"):
        await backup.piece.ensure(shop.context(removal(shop, uid, folder / "none")))

    first = shop.context(work)
    assert isinstance(await backup.piece.ensure(first), NotYet)
    assert first.calls == ["start_backup"]
    after = shop.context(work)  # another broker, with what the first one saved
    after.saved = first.saved
    while isinstance(answer := await backup.piece.ensure(after), NotYet):
        pass
    assert isinstance(answer, Done)
    assert after.calls == ["publish_backup"]
    assert await backup.piece.settle(after)
    (dump,) = tmp.iterdir()
    assert (dump.name, dump.stat().st_mode & 0o777) == (answer.outputs["backup"], 0o600)
    assert dump.read_bytes()[:5] == b"PGDMP"
    assert isinstance(await backup.piece.ensure(shop.context(work)), Done)  # it is there already

    await _fails_and_begins_again(shop, backup.piece, removal(shop, uid, folder))
    for path in sorted(folder.rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    folder.rmdir()


async def _fails_and_begins_again(shop: Estate, piece: object, work: Work) -> None:
    """The database is away: the failure is named and the next run begins anew."""
    ctx: FakeContext = shop.context(work)
    database = ctx.instance_name("db")
    password = shop.cluster(work.instance_uid).folders.password("postgres").read_text(encoding="utf-8").strip()
    port = shop.cluster(work.instance_uid).need_state().port
    superuser = await asyncpg.connect(
        host="127.0.0.1", port=port, user="postgres", password=password, database="postgres", ssl=False
    )
    try:
        await superuser.execute(f"ALTER DATABASE {database} RENAME TO away")
        with pytest.raises(Retryable, match="final backup could not be made") as refused:
            await _finish(piece, ctx)
        assert "does not exist" in refused.value.detail
        await superuser.execute(f"ALTER DATABASE away RENAME TO {database}")
    finally:
        await superuser.close()
    assert isinstance(await _finish(piece, ctx), Done)
    await until(lambda: piece.settle(ctx))  # type: ignore[attr-defined]


async def _finish(piece: object, ctx: FakeContext) -> object:
    while isinstance(answer := await piece.ensure(ctx), NotYet):  # type: ignore[attr-defined]
        pass
    return answer
