"""How the command ends when something is in its way: closed or full streams, signals, wrong use with --json, odd input."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import grpc
import pytest
import typer
from typer.testing import CliRunner

from purveyor import errors
from purveyor.cli import exports
from purveyor.cli.app import app
from purveyor.cli.exits import Exit
from purveyor.cli.running import execute
from purveyor.cli.session import Session
from purveyor.v1 import broker_service_pb2 as messages
from tests.clients.scripted import HANG, Refusal, ScriptedBroker, binding, instance, operation
from tests.clients.test_cli import RUN_SECONDS, provisioning, run, start

if TYPE_CHECKING:
    from pathlib import Path

PROGRAM = f"{sys.executable} -c 'from purveyor.cli import main; main()'"
LONG = "postgresql://" + "x" * 300


async def shell(folder: Path, words: str, **environment: str) -> tuple[int, str, str]:
    """A line of a shell, in which `$P` is the command at the scripted broker."""
    process = await asyncio.create_subprocess_exec(
        *("bash", "-c", words.replace("$P", f"{PROGRAM} --address unix:{folder / 's'} --tenant t")),
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), RUN_SECONDS)
    assert process.returncode is not None
    assert b"Traceback" not in err
    assert b"Exception ignored" not in err
    return process.returncode, out.decode(), err.decode()


@pytest.fixture
def listing(broker: ScriptedBroker) -> ScriptedBroker:
    """A broker with one instance, whose label is not ASCII, and one binding, whose URI is longer than a line."""
    broker.script["ListInstances"] = [messages.ListInstancesResponse(instances=[instance(labels={"team": "ünï"})])]
    broker.script["GetInstance"] = [messages.GetInstanceResponse(instance=instance(labels={"team": "ünï"}))]
    answer = messages.GetCredentialsResponse(binding=binding())
    answer.credentials.values.update({"uri": LONG, "password": "pä"})
    broker.script["GetCredentials"] = [answer]
    return broker


@pytest.mark.parametrize("line", ["instances", "instances --json", "credentials orders app --env"])
async def test_a_full_disk_is_exit_11(listing: ScriptedBroker, folder: Path, line: str) -> None:
    code, _, err = await shell(folder, f"$P {line} > /dev/full")

    assert code == Exit.OUTPUT
    assert "could not be written: No space left" in err


async def test_a_reader_that_goes_away_is_silent(listing: ScriptedBroker, folder: Path) -> None:
    code, _, err = await shell(folder, "$P instances | true; exit ${PIPESTATUS[0]}")

    assert (code, err) == (Exit.READER_GONE, "")


async def test_closed_streams_change_no_exit_code(listing: ScriptedBroker, folder: Path) -> None:
    listing.script["Deprovision"] = [Refusal(grpc.StatusCode.NOT_FOUND, "INSTANCE_NOT_FOUND")]

    assert (await shell(folder, "$P instances >&- <&-"))[0] == 0
    assert (await shell(folder, "$P deprovision nix 2>&-"))[0] == Exit.NOT_FOUND
    assert (await shell(folder, "$P provision postgresql shared --id x --params-file - <&-"))[0] == Exit.USAGE


async def test_what_stdout_cannot_spell(listing: ScriptedBroker, folder: Path) -> None:
    ascii_only = {"PYTHONIOENCODING": "ascii"}

    assert "team=?n?" in (await shell(folder, "$P instance orders", **ascii_only))[1]
    assert json.loads((await shell(folder, "$P instance orders --json", **ascii_only))[1])["labels"] == {"team": "ünï"}
    code, out, err = await shell(folder, "$P credentials orders app --env", **ascii_only)
    assert (code, out) == (Exit.OUTPUT, "")  # a password is never altered
    assert "PYTHONUTF8=1" in err


async def test_a_terminal_cuts_nothing(listing: ScriptedBroker, folder: Path) -> None:
    parent, child = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", "from purveyor.cli import main; main()"),
        *("--address", f"unix:{folder / 's'}", "credentials", "orders", "app"),
        stdout=child,
        stderr=subprocess.PIPE,
        env={**os.environ, "COLUMNS": "40", "TERM": "xterm"},
    )
    os.close(child)
    assert await asyncio.wait_for(process.wait(), RUN_SECONDS) == 0
    shown = os.read(parent, 1 << 16).decode()
    os.close(parent)

    assert f"{LONG}\r\n" in shown
    assert "\x1b[1m" in shown


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
async def test_a_signal_names_the_operation_that_goes_on(broker: ScriptedBroker, folder: Path, number: int) -> None:
    provisioning(broker, operation(), HANG)
    process = await start(folder, *["provision", "postgresql", "shared", "--json"])
    async with asyncio.timeout(RUN_SECONDS):
        await broker.watching.wait()
        process.send_signal(number)
        _, err = await process.communicate()

    assert process.returncode == 128 + number
    error = json.loads(err)["error"]
    assert (error["code"], error["exit_code"], error["operation"]["operation_id"]) == (
        "CANCELLED",
        128 + number,
        "op-1",
    )
    assert error["made_id"] == broker.seen["Provision"][0].instance_id


async def test_a_time_out_names_the_operation_that_goes_on(broker: ScriptedBroker, folder: Path) -> None:
    broker.script["GetOperation"] = [messages.GetOperationResponse(operation=operation())]
    broker.script["WatchOperation"] = [[operation(), HANG]]

    shown = await run(folder, *["watch", "op-1", "--timeout", "0.2"])
    document = await run(folder, *["watch", "op-1", "--timeout", "0.2", "--json"])

    assert (shown.code, document.code) == (Exit.TIMED_OUT, Exit.TIMED_OUT)
    assert "the operation goes on: purveyor watch op-1" in shown.err
    assert json.loads(document.err)["error"]["operation"]["operation_id"] == "op-1"


@pytest.mark.parametrize(
    "line",
    [
        "catalog --bogus",
        "nonsense",
        "provision postgresql shared -p novalue",
        "watch x --until-idle",
        "credentials o a --env",
    ],
)
async def test_wrong_use_with_json_is_a_document(folder: Path, line: str) -> None:
    ran = await run(folder, *line.split(), "--json")

    error = json.loads(ran.err)["error"]
    assert (ran.code, ran.out, error["code"], error["exit_code"]) == (2, "", "INVALID_ARGUMENT", 2)
    assert error["message"]


async def test_a_lost_change_can_be_sent_again_from_its_document(folder: Path) -> None:
    ran = await run(folder, *["bind", "orders", "--json"])

    error = json.loads(ran.err)["error"]
    assert (ran.code, error["transport_reason"]) == (Exit.UNAVAILABLE, "UNREACHABLE")
    assert error["request_id"]
    assert error["made_id"].startswith("binding-")


async def test_nothing_to_do_is_said(broker: ScriptedBroker, folder: Path) -> None:
    broker.script["Deprovision"] = [messages.DeprovisionResponse()]

    ran = await run(folder, "deprovision", "orders", "--allow-missing")

    assert (ran.code, ran.err) == (0, "there was nothing to do\n")


async def test_a_refusal_is_said_once(folder: Path) -> None:
    ran = await run(folder, "instance", b"\xff".decode(errors="surrogateescape"))

    assert (ran.code, ran.err) == (2, "error: instance_id: not Unicode text [INVALID_REQUEST]\n")


@pytest.mark.parametrize("value", ["a=" + "[" * 50_000, "a=" + '{"a":' * 50_000])
def test_a_parameter_that_is_nested_too_deep_is_wrong_use(value: str) -> None:
    ran = CliRunner().invoke(app, ["provision", "postgresql", "shared", "-p", value])

    assert (ran.exit_code, type(ran.exception)) == (Exit.USAGE, SystemExit)


def test_parameters_from_stdin_have_a_size() -> None:
    ran = CliRunner().invoke(app, ["bind", "orders", "--params-file", "-"], input=" " * (2 << 20))

    assert ran.exit_code == Exit.USAGE
    assert "larger than" in ran.output


def test_two_credentials_never_share_a_variable() -> None:
    with pytest.raises(errors.FailedPreconditionError, match="BINDING_JDBC_URL"):
        exports.lines({"jdbcUrl": "a", "jdbc_url": "b"})
    assert exports.lines({"jdbcUrl": "a", "jdbc_url": "a"}) == ["export BINDING_JDBC_URL=a"]


def test_a_defect_is_exit_10_and_shows_no_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    async def broken(_: Session) -> None:
        raise KeyError("hunter2")

    with pytest.raises(typer.Exit) as ended:
        execute(Session(None, "t", json=False), broken, {})

    assert ended.value.exit_code == Exit.DEFECT
    shown = capsys.readouterr().err
    assert "a defect of the command line (KeyError)" in shown
    assert "hunter2" not in shown


def test_the_version_is_printed() -> None:
    ran = CliRunner().invoke(app, ["--version"])

    assert (ran.exit_code, ran.output.strip()[:1].isdigit()) == (0, True)
