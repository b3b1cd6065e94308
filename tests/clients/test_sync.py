"""The blocking client: the surface of the asyncio one, its types, threads, interrupts, ends."""

from __future__ import annotations

import asyncio
import inspect
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest

import purveyor
from purveyor import blocking, bridge, errors, sync
from purveyor.v1 import broker_service_pb2 as messages
from tests.clients.aside import running
from tests.clients.scripted import HANG, Refusal, ScriptedBroker, instance, operation

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
RUN_SECONDS = 30
PAIRS = [
    (purveyor.Client, sync.SyncClient),
    (purveyor.AdminClient, sync.SyncAdminClient),
    (purveyor.OperationHandle, sync.SyncOperationHandle),
]


def surface(kind: type) -> set[str]:
    """Public names, attributes of instances included."""
    annotated = {name for base in kind.__mro__ for name in inspect.get_annotations(base)}
    return {name for name in (*dir(kind), *annotated) if not name.startswith("_")}


def parameters(member: Any) -> list[tuple[str, Any, Any, Any]]:
    found = inspect.signature(member).parameters.values()
    return [(item.name, item.kind, item.default, item.annotation) for item in found]


@pytest.mark.parametrize(("source", "made"), PAIRS)
def test_the_surfaces_are_the_same(source: type, made: type) -> None:
    assert surface(made) == surface(source) - blocking.ASYNC_ONLY
    for name in surface(made) - {"close"}:
        ours, theirs = inspect.getattr_static(made, name), inspect.getattr_static(source, name, None)
        if inspect.isfunction(theirs):
            assert parameters(ours) == parameters(theirs), name
            assert not inspect.iscoroutinefunction(ours), name
            assert not inspect.isasyncgenfunction(ours), name
            assert ours.__doc__, name
            assert "Async" not in str(inspect.signature(ours)), name
    assert parameters(made) == parameters(source) or source is purveyor.OperationHandle


def test_every_public_name_is_there() -> None:
    """AdminClient was documented as a name of the package and was none."""
    for name in purveyor.__all__:
        assert getattr(purveyor, name).__name__.endswith(name), name
    assert {made.__name__ for pair in PAIRS for made in pair} <= set(purveyor.__all__)


def test_a_member_without_a_rule_is_an_error() -> None:
    class Planted:
        def plain(self) -> None: ...

    with pytest.raises(TypeError, match="plain: there is no rule"):
        blocking.mirror(Planted, blocking.BlockingObject, {})


def stub_check(*file: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "scripts/sync_stub.py"), "--check", *file]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=RUN_SECONDS)


def test_the_stub_is_what_its_script_makes(tmp_path: Path) -> None:
    ended = stub_check()
    assert ended.returncode == 0, ended.stderr

    planted = tmp_path / "sync.pyi"
    made = (ROOT / "clients/python/purveyor/sync.pyi").read_text(encoding="utf-8")
    planted.write_text(made.replace("cascade: bool", "cascade: int"))
    stale = stub_check(str(planted))
    assert (stale.returncode, stale.stderr) == (1, "sync.pyi is stale: run scripts/sync_stub.py\n")


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real broker in a process of its own."""
    with running(tmp_path_factory.mktemp("b")) as found:
        yield found


def test_a_whole_life(address: str) -> None:
    with purveyor.SyncClient(address, tenant="life") as client:
        assert [service.name for service in client.catalog().services] == ["postgresql"]
        ordered = client.provision("postgresql", "shared-small", instance_id="orders")
        states = [status.state for status in ordered]
        assert states[-1] == purveyor.OperationState.SUCCEEDED
        assert ordered.result(timeout=10).state == purveyor.InstanceState.READY
        assert client.update("orders", parameters={"size": 2}, wait=10).result().parameters == {"size": 2}

        bound = client.bind("orders", binding_id="app", wait=10).result()
        assert client.credentials("orders", "app") == bound.credentials
        assert client.binding("orders", "app").state == purveyor.BindingState.ACTIVE
        assert [found.binding_id for found in client.bindings("orders")] == ["app"]
        assert [found.instance_id for found in client.instances()] == ["orders"]
        with pytest.raises(purveyor.FailedPreconditionError, match="binding"):
            client.deprovision("orders")

        again = client.operation(ordered.id, steps=True)
        assert [status.steps != () for status in again.watch(steps=True)] == [True]
        assert again.refresh().done
        assert repr(again).startswith("<SyncOperationHandle ")
        gone = client.unbind("orders", "app").result(timeout=10)
        assert gone
        assert gone.state == purveyor.BindingState.DELETED
        assert client.deprovision("orders", wait=10).done
        assert client.deprovision("orders", allow_missing=True).result() is None
        assert [found.verb for found in client.operations()] == ["PROVISION", "UPDATE", "BIND", "UNBIND", "DEPROVISION"]
    assert threads() == 0


def test_what_happened_can_be_read_again(address: str) -> None:
    with purveyor.SyncClient(address, tenant="told") as client:
        client.provision("postgresql", "shared-small", instance_id="orders", wait=10).result(timeout=10)
        told = list(client.events("earliest", instance_id="orders", follow=False))
        with client.events("snapshot") as events:
            present, synced = next(events), next(events)
    assert [event.revision for event in told] == sorted({event.revision for event in told})
    assert (told[0].kind, told[-1].state, told[-1].type) == ("INSTANCE", "SUCCEEDED", "ENDED")
    assert (present.instance_id, present.state, synced.type) == ("orders", "READY", "SYNCED")


def test_operators_have_it_too(address: str, tmp_path: Path) -> None:
    with purveyor.SyncAdminClient(address) as admin, purveyor.SyncClient(address, tenant="ops") as client:
        assert admin.status().version == "test"
        operation = client.provision("postgresql", "shared-small", instance_id="orders", wait=10)
        assert admin.explain(operation.id).operation.state == purveyor.OperationState.SUCCEEDED
        assert admin.freeze("deletes", "a look first").name == "deletes"
        thawed, _ = admin.thaw("deletes", "looked")
        assert thawed
        assert thawed.reason == "a look first"
        with pytest.raises(purveyor.FailedPreconditionError):
            list(admin.review_recovery())
        made = admin.backup(tmp_path / "copy.db")
        assert (tmp_path / "copy.db").stat().st_size == made.bytes
        with admin.audit(page_size=1) as records:  # newest first, from a page each
            assert [record.reason for record, _ in zip(records, range(2), strict=False)] == ["looked", "a look first"]
        with pytest.raises(RuntimeError, match="open already"):
            admin.__enter__()
    assert threads() == 0


def threads() -> int:
    return sum(thread.name == bridge.THREAD_NAME for thread in threading.enumerate())


def test_many_threads_use_one_client(address: str) -> None:
    def order(number: int) -> str:
        found = client.provision("postgresql", "shared-small", instance_id=f"i{number}").result(timeout=30)
        return found.instance_id

    with purveyor.SyncClient(address, tenant="many") as client, ThreadPoolExecutor(8) as pool:
        wanted = sorted(f"i{number}" for number in range(24))
        assert sorted(pool.map(order, range(24))) == wanted
        shared = client.instances(page_size=5)  # each thread takes its part of one iterator
        taken = pool.map(lambda _: [found.instance_id for found in shared], range(4))
        assert sorted(name for part in taken for name in part) == wanted


def test_clients_share_one_loop_and_the_last_one_ends_it(address: str) -> None:
    first, second = purveyor.SyncClient(address), purveyor.SyncClient(address)
    with first:
        with second:
            assert threads() == 1
        assert first.catalog().version == 1
        with pytest.raises(RuntimeError, match="not open"):
            second.catalog()
        with pytest.raises(RuntimeError, match="open already"):
            first.__enter__()
        with second:  # again
            assert second.catalog().version == 1
    second.close()  # once more changes nothing
    assert threads() == 0


def test_a_client_that_was_not_opened(address: str) -> None:
    client = purveyor.SyncClient(address)
    with pytest.raises(RuntimeError, match="with"):
        client.catalog()
    with pytest.raises(RuntimeError, match="with"):
        next(client.instances())
    with pytest.raises(purveyor.InvalidRequestError):
        purveyor.SyncClient("nonsense")


def test_a_process_may_forget_to_close(address: str) -> None:
    code = f"import purveyor; c = purveyor.SyncClient({address!r}).__enter__(); print(c.catalog().version)"
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=RUN_SECONDS
    )

    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "1\n", "")


FORKER = """
import os, sys, purveyor
with purveyor.SyncClient(sys.argv[1]) as client:
    client.catalog()
    child = os.fork()
    if not child:
        try:
            client.catalog()
        except RuntimeError as error:
            print(error, flush=True)
            os._exit(0)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    print(client.catalog().version)
"""


def test_a_forked_child_is_told(address: str) -> None:
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORKER, address]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=RUN_SECONDS)

    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == "the client was opened by another process: a fork takes no open client along\n1\n"


def following(broker: ScriptedBroker) -> None:
    broker.script["GetOperation"] = [messages.GetOperationResponse(operation=operation())]
    broker.script["WatchOperation"] = [[operation(), HANG]]


INTERRUPTED = """
import sys, purveyor
with purveyor.SyncClient(sys.argv[1], tenant="t") as client:
    handle = client.operation("op-1")
    try:
        handle.result()
    except KeyboardInterrupt:
        sys.stdin.readline()  # the call has ended on the server while this client is open
        print(handle.status.state)
"""


async def test_an_interrupt_ends_the_call_underneath(broker: ScriptedBroker, folder: Path) -> None:
    following(broker)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", INTERRUPTED, f"unix:{folder / 's'}"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    async with asyncio.timeout(RUN_SECONDS):
        await broker.watching.wait()
        process.send_signal(signal.SIGINT)
        await broker.left.wait()
        out, err = await process.communicate(b"\n")

    assert (process.returncode, out, err) == (0, b"RUNNING\n", b"")
    assert not broker.seen["CancelOperation"]


def in_thread(work: Any) -> asyncio.Future[Any]:
    return asyncio.ensure_future(asyncio.wait_for(asyncio.to_thread(work), RUN_SECONDS))


async def test_a_time_out_ends_the_call_underneath(broker: ScriptedBroker, folder: Path) -> None:
    following(broker)

    def wait() -> None:
        with purveyor.SyncClient(f"unix:{folder / 's'}", tenant="t") as client:
            handle = client.operation("op-1")
            with pytest.raises(TimeoutError):
                handle.result(timeout=0.2)
            assert handle.status.state == purveyor.OperationState.RUNNING

    await in_thread(wait)
    async with asyncio.timeout(RUN_SECONDS):
        await broker.left.wait()


async def test_closing_ends_what_others_wait_for(broker: ScriptedBroker, folder: Path) -> None:
    following(broker)
    client = purveyor.SyncClient(f"unix:{folder / 's'}", tenant="t")
    await in_thread(client.__enter__)
    waiting = in_thread(lambda: client.operation("op-1").result())
    async with asyncio.timeout(RUN_SECONDS):
        await broker.watching.wait()
        await in_thread(client.close)
        with pytest.raises(errors.UnavailableError) as ended:
            await waiting

    assert ended.value.transport_reason == errors.TransportReason.CLIENT_CLOSED


async def test_an_iteration_ends_from_another_thread(broker: ScriptedBroker, folder: Path) -> None:
    following(broker)

    def work() -> tuple[list[str], list[str]]:
        with purveyor.SyncClient(f"unix:{folder / 's'}", tenant="t") as client:
            states = client.operation("op-1").watch()
            first = next(states).state
            taking = pool.submit(lambda: [found.state for found in states])
            opened.set()
            closing.wait(RUN_SECONDS)
            states.close()
            with states:
                return [first], taking.result(RUN_SECONDS)

    opened, closing = threading.Event(), threading.Event()
    with ThreadPoolExecutor(1) as pool:
        result = in_thread(work)
        async with asyncio.timeout(RUN_SECONDS):
            await broker.watching.wait()
            closing.set()
            assert await result == (["RUNNING"], [])
            await broker.left.wait()


async def test_errors_and_pages_are_the_librarys(broker: ScriptedBroker, folder: Path) -> None:
    page = messages.ListInstancesResponse(instances=[instance()], next_page_token="2")
    broker.script["ListInstances"] = [page, messages.ListInstancesResponse(instances=[instance(instance_id="b")])]
    broker.script["GetInstance"] = [Refusal(grpc.StatusCode.NOT_FOUND, "INSTANCE_NOT_FOUND")]

    def work() -> list[str]:
        with purveyor.SyncClient(f"unix:{folder / 's'}", tenant="t") as client:
            with pytest.raises(purveyor.NotFoundError) as refused:
                client.instance("orders")
            assert refused.value.reason == "INSTANCE_NOT_FOUND"
            with pytest.raises(TypeError, match="plan"):
                client.provision("postgresql")  # type: ignore[call-arg] # the fault
            return [found.instance_id for found in client.instances()]

    assert await in_thread(work) == ["orders", "b"]


async def test_a_call_inside_the_clients_own_loop_is_refused(broker: ScriptedBroker, folder: Path) -> None:
    def work() -> None:
        with purveyor.SyncClient(f"unix:{folder / 's'}", tenant="t") as client:

            async def inside() -> None:
                client.catalog()

            with pytest.raises(RuntimeError, match="wait for itself"):
                client._bridge.run(inside())  # type: ignore[attr-defined] # no stub has it

    await in_thread(work)


def test_only_the_harmless_complaint_is_dropped() -> None:
    loop = asyncio.new_event_loop()
    heard: list[dict[str, Any]] = []
    loop.default_exception_handler = heard.append  # type: ignore[assignment, method-assign] # a fake
    try:
        bridge._hear(loop, {"message": "", "exception": BlockingIOError()})
        bridge._hear(loop, {"message": "", "exception": OSError()})
    finally:
        loop.close()

    assert [type(context["exception"]) for context in heard] == [OSError]
    assert os.getpid() == bridge.Bridge("x")._pid
