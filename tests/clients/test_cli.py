"""The command, as a process of its own, against a scripted broker: what it prints, what it writes as JSON, how it ends."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

import grpc
import pytest
from google.protobuf.struct_pb2 import Struct
from google.rpc import error_details_pb2

from purveyor.v1 import broker_service_pb2 as messages
from purveyor.v1.error_reason_pb2 import ERROR_REASON_PROVIDER_FAILED
from purveyor.v1.operation_pb2 import Step
from tests.clients.scripted import HANG, Refusal, ScriptedBroker, binding, failure, instance, operation

if TYPE_CHECKING:
    from pathlib import Path

RUN_SECONDS = 30
PASSWORD = 'it\'s $HOME; `rm` "x"\n'


class Ran(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


async def start(folder: Path, *arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", "from purveyor.cli import main; main()"),
        *("--address", f"unix:{folder / 's'}", "--tenant", "t", *arguments),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


async def run(folder: Path, *arguments: str, stdin: str = "") -> Ran:
    process = await start(folder, *arguments)
    out, err = await asyncio.wait_for(process.communicate(stdin.encode()), RUN_SECONDS)
    assert process.returncode is not None
    assert "Traceback" not in err.decode()
    return Ran(process.returncode, out.decode(), err.decode())


def shell(exports: str, words: str) -> str:
    """What a shell makes of `words` after the exports."""
    command = ["sh", "-c", f"{exports}\nprintf '%s' \"{words}\""]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=RUN_SECONDS).stdout


def provisioning(broker: ScriptedBroker, *states: Any) -> None:
    broker.script["Provision"] = [messages.ProvisionResponse(operation=operation("PENDING", 0))]
    broker.script["WatchOperation"] = [list(states)]


async def test_catalog_as_a_table_and_as_json(broker: ScriptedBroker, folder: Path) -> None:
    shown = await run(folder, "catalog")
    document = await run(folder, "--json", "catalog")

    assert shown.code == 0
    assert [line.split()[:2] for line in shown.out.splitlines()[1:]] == [
        ["postgresql", "shared"],
        ["postgresql", "big"],
    ]
    assert [plan["name"] for plan in document.json["services"][0]["plans"]] == ["shared", "big"]


async def test_provision_shows_progress_and_its_end(broker: ScriptedBroker, folder: Path) -> None:
    provisioning(broker, operation(percent=40, sentence="making the database"), operation("SUCCEEDED", 100))

    ran = await run(
        folder,
        *[
            "provision",
            "postgresql",
            "shared",
            "--id",
            "orders",
            "-p",
            "n=5",
            "-p",
            "name=x",
            "-p",
            "list=[1]",
            "-l",
            "team=a",
        ],
    )

    assert ran.code == 0, ran.err
    assert "40 %  RUNNING  making the database" in ran.err
    assert "SUCCEEDED" in ran.out
    sent = broker.seen["Provision"][0]
    expected = Struct()
    expected.update({"n": 5, "name": "x", "list": [1]})
    assert (sent.instance_id, sent.parameters, dict(sent.labels)) == ("orders", expected, {"team": "a"})


async def test_provision_as_json_is_one_document(broker: ScriptedBroker, folder: Path) -> None:
    provisioning(broker, operation(percent=40), operation("SUCCEEDED", 100))

    ran = await run(folder, *["provision", "postgresql", "shared", "--params-file", "-", "--json"], stdin='{"n": 1}')

    assert (ran.code, ran.json["state"], ran.err) == (0, "SUCCEEDED", "")
    assert broker.seen["Provision"][0].instance_id.startswith("postgresql-")


async def test_no_wait_and_validate_only_return_at_once(broker: ScriptedBroker, folder: Path) -> None:
    provisioning(broker)
    assert (await run(folder, *["provision", "postgresql", "shared", "--no-wait", "--json"])).json["state"] == "PENDING"

    plan = operation("PENDING", 0, operation_id="", steps=[Step(name="role"), Step(name="database")])
    broker.script["Provision"] = [messages.ProvisionResponse(operation=plan)]
    ran = await run(folder, *["provision", "postgresql", "shared", "--validate-only"])
    assert (ran.code, "database" in ran.out, "nothing was changed" in ran.err) == (0, True, True)
    assert not broker.seen["WatchOperation"]


async def test_a_failed_operation_is_exit_1_with_its_reason(broker: ScriptedBroker, folder: Path) -> None:
    provisioning(broker, operation("FAILED", failure=failure(ERROR_REASON_PROVIDER_FAILED)))

    shown = await run(folder, *["provision", "postgresql", "shared"])
    document = await run(folder, *["provision", "postgresql", "shared", "--json"])

    assert (shown.code, document.code, document.out) == (1, 1, "")
    assert "error: the database could not be made [PROVIDER_FAILED]" in shown.err
    error = json.loads(document.err)["error"]
    assert (error["reason"], error["operation"]["failure"]["step"], error["exit_code"]) == (
        "PROVIDER_FAILED",
        "database",
        1,
    )


@pytest.mark.parametrize(
    ("code", "reason", "expected"),
    [
        ("INVALID_ARGUMENT", "INVALID_REQUEST", 2),
        ("NOT_FOUND", "INSTANCE_NOT_FOUND", 3),
        ("ABORTED", "OPERATION_IN_PROGRESS", 4),
        ("FAILED_PRECONDITION", "BINDINGS_EXIST", 5),
        ("UNAVAILABLE", "DRAINING", 6),
        ("RESOURCE_EXHAUSTED", "TOO_MANY_OPERATIONS", 7),
        ("PERMISSION_DENIED", "PERMISSION_DENIED", 8),
        ("INTERNAL", "INTERNAL", 10),
    ],
)
async def test_exit_codes_follow_the_family(
    broker: ScriptedBroker, folder: Path, code: str, reason: str, expected: int
) -> None:
    bad = error_details_pb2.BadRequest()
    bad.field_violations.add(field="parameters.n", description="too small")
    broker.script["Deprovision"] = [Refusal(grpc.StatusCode[code], reason, "not so [red]", details=(bad,))]

    ran = await run(folder, "deprovision", "orders")

    assert ran.code == expected
    assert f"error: not so [red] [{reason}]" in ran.err
    assert "  parameters.n: too small" in ran.err


async def test_a_broker_that_is_not_there_is_exit_6(folder: Path) -> None:
    ran = await run(folder, "catalog")

    assert (ran.code, ran.out) == (6, "")
    assert "cannot be reached" in ran.err


async def test_a_time_out_is_exit_9(broker: ScriptedBroker, folder: Path) -> None:
    provisioning(broker, operation(), HANG)

    assert (await run(folder, *["provision", "postgresql", "shared", "--timeout", "0.2"])).code == 9


async def test_an_interrupt_is_exit_130_and_cancels_nothing(broker: ScriptedBroker, folder: Path) -> None:
    provisioning(broker, operation(), HANG)
    process = await start(folder, *["provision", "postgresql", "shared"])
    async with asyncio.timeout(RUN_SECONDS):
        await broker.watching.wait()
        process.send_signal(signal.SIGINT)
        _, err = await process.communicate()

    assert process.returncode == 130
    assert b"goes on" in err
    assert not broker.seen["CancelOperation"]


async def test_watch_writes_one_line_per_state(broker: ScriptedBroker, folder: Path) -> None:
    broker.script |= {
        "GetOperation": [messages.GetOperationResponse(operation=operation())],
        "WatchOperation": [[operation(percent=1), operation(percent=2), operation("SUCCEEDED", 100)]],
    }

    ran = await run(folder, "watch", "op-1", "--json")

    assert [json.loads(line)["percent"] for line in ran.out.splitlines()] == [1, 2, 100]


async def test_exports_survive_a_shell(broker: ScriptedBroker, folder: Path) -> None:
    answer = messages.GetCredentialsResponse(binding=binding())
    answer.credentials.values.update({"uri": "postgresql://x", "password": PASSWORD, "port": 5432, "jdbcUrl": "j"})
    broker.script["GetCredentials"] = [answer]

    ran = await run(folder, "credentials", "orders", "app", "--env")
    assert shell(ran.out, "$PGPASSWORD|$PGPORT|$DATABASE_URL|$BINDING_JDBC_URL") == f"{PASSWORD}|5432|postgresql://x|j"
    assert (await run(folder, "credentials", "orders", "app", "--json")).json["password"] == PASSWORD


async def test_lists_are_tables_and_arrays(broker: ScriptedBroker, folder: Path) -> None:
    broker.script |= {
        "ListInstances": [messages.ListInstancesResponse(instances=[instance(labels={"\x1b[2J": "x"})])],
        "ListBindings": [messages.ListBindingsResponse(bindings=[binding()])],
        "ListOperations": [messages.ListOperationsResponse(operations=[operation()])],
        "GetInstance": [messages.GetInstanceResponse(instance=instance(labels={"\x1b[2J": "x"}))],
        "GetOperation": [messages.GetOperationResponse(operation=operation(steps=[Step(name="role")]))],
    }

    assert "orders" in (await run(folder, "instances")).out
    assert (await run(folder, "bindings", "orders", "--json")).json[0]["binding_id"] == "app"
    assert (await run(folder, "operations", "--filter", "state = RUNNING", "--json")).json[0]["operation_id"] == "op-1"
    assert "\x1b" not in (await run(folder, "instance", "orders")).out
    assert "role" in (await run(folder, "operation", "op-1", "--steps")).out
    assert broker.seen["ListOperations"][0].filter == "state = RUNNING"


async def test_a_limit_keeps_the_newest(broker: ScriptedBroker, folder: Path) -> None:
    names = ["a", "b", "c"]
    pages = [
        messages.ListOperationsResponse(operations=[operation(operation_id=name)], next_page_token=name)
        for name in names[:-1]
    ]
    broker.script |= {
        "ListOperations": [*pages, messages.ListOperationsResponse(operations=[operation(operation_id="c")])],
        "ListInstances": [messages.ListInstancesResponse(instances=[instance(instance_id=name) for name in names])],
        "ListBindings": [messages.ListBindingsResponse(bindings=[binding(binding_id=name) for name in names])],
    }

    shown = await run(folder, "operations", "--limit", "2")
    assert [line.split()[0] for line in shown.out.splitlines()[1:]] == ["b", "c"]
    assert shown.err == "the newest 2 of 3\n"
    assert broker.seen["ListOperations"][0].page_size == 1000
    assert [found["instance_id"] for found in (await run(folder, "instances", "-n", "1", "--json")).json] == ["c"]
    assert len((await run(folder, "bindings", "--limit", "9", "--json")).json) == 3
    assert (await run(folder, "operations", "--limit", "0")).code == 2
