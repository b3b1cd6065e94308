"""Contexts and completion: which broker is meant, and what a shell is offered."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import grpc
import pytest
from typer.testing import CliRunner

from purveyor import errors
from purveyor.cli import contexts
from purveyor.cli.app import app
from purveyor.cli.contexts import Entry, Place
from purveyor.cli.exits import Exit
from purveyor.tls import Tls
from purveyor.v1 import broker_service_pb2 as messages
from tests.clients.scripted import Refusal, ScriptedBroker, binding, instance, operation

if TYPE_CHECKING:
    from pathlib import Path

RUN_SECONDS = 30


@pytest.fixture(autouse=True)
def home(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration folder of the test's own."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(folder))
    return folder


def typed(line: str) -> str:
    """What a command prints; it must succeed."""
    ran = CliRunner().invoke(app, line.split())
    assert ran.exit_code == 0, ran.output
    return ran.stdout


def refused(line: str) -> int:
    ran = CliRunner().invoke(app, line.split())
    assert isinstance(ran.exception, SystemExit)
    return ran.exit_code


def test_contexts_are_set_used_listed_and_deleted() -> None:
    typed("context set prod --address /run/prod --tenant team-a")
    typed("context set lab -a 127.0.0.1:7070")
    typed("context set lab --tenant team-b")  # what is not given stays
    typed("context use lab")

    assert json.loads(typed("context list --json")) == [
        {"name": "lab", "address": "127.0.0.1:7070", "tenant": "team-b", "admin": "", "current": True, "tls": {}},
        {"name": "prod", "address": "unix:/run/prod", "tenant": "team-a", "admin": "", "current": False, "tls": {}},
    ]
    assert [line.split()[0] for line in typed("context list").splitlines()[1:]] == ["*", "prod"]
    typed("context delete lab")
    assert contexts.load() == contexts.Contexts("", {"prod": Entry("unix:/run/prod", "team-a")})


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("context use nix", Exit.NOT_FOUND),
        ("context delete nix", Exit.NOT_FOUND),
        ("context set new", Exit.USAGE),
        ("context set new -a nowhere", Exit.USAGE),
        ("context set a/b -a /run/x", Exit.USAGE),
        ("context set new -a /run/x -t UPPER", Exit.USAGE),
        ("context set new -a /run/x --admin nowhere", Exit.USAGE),
        ("status", Exit.USAGE),  # the current context has no admin address: never another broker's
        ("--context prod freeze all --reason x", Exit.USAGE),
        ("--context nix catalog", Exit.NOT_FOUND),
        ("catalog --context nix --json", Exit.NOT_FOUND),
    ],
)
def test_what_is_refused_changes_nothing(line: str, code: int) -> None:
    typed("context set prod -a /run/prod")
    before = contexts.path().read_bytes()

    assert refused(line) == code
    assert contexts.path().read_bytes() == before


def test_the_file_is_its_owners_alone() -> None:
    typed("context set prod -a /run/prod")
    contexts.path().chmod(0o644)
    typed("context set lab -a /run/lab")

    assert stat.S_IMODE(contexts.path().stat().st_mode) == 0o600
    assert {item.name for item in contexts.path().parent.iterdir()} == {"contexts.toml", "contexts.lock"}


def test_a_write_that_fails_leaves_the_old_file(monkeypatch: pytest.MonkeyPatch) -> None:
    typed("context set prod -a /run/prod")
    before = contexts.path().read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)

    assert refused("context set lab -a /run/lab") == Exit.OUTPUT
    assert contexts.path().read_bytes() == before
    assert {item.name for item in contexts.path().parent.iterdir()} == {"contexts.toml", "contexts.lock"}


def test_changes_at_once_lose_nothing() -> None:
    def change(name: str) -> None:
        with contexts.changing() as known:
            known.entries[name] = Entry("unix:/run/x")

    names = {f"c{number}" for number in range(40)}
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(change, names))

    assert set(contexts.load().entries) == names


def test_a_lock_that_is_held_is_waited_for_only_so_long(monkeypatch: pytest.MonkeyPatch) -> None:
    typed("context set prod -a /run/prod")
    monkeypatch.setattr(contexts, "LOCK_SECONDS", 0.05)
    with contexts.path().with_name("contexts.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)

        assert refused("context set lab -a /run/lab") == Exit.USAGE


@pytest.mark.parametrize(
    "content",
    ["current = 5", "nonsense", "[contexts.a]\ntenant = 'x'", "contexts = 1", "\x00", "[contexts.a]\naddress = 1"],
)
def test_a_damaged_file_is_named(content: str) -> None:
    contexts.path().parent.mkdir(exist_ok=True)
    contexts.path().write_text(content, encoding="utf-8")

    with pytest.raises(errors.InvalidRequestError, match=r"contexts\.toml"):
        contexts.load()
    assert refused("catalog") == Exit.USAGE
    assert contexts.choose("/run/x", None, None) == Place("/run/x", "default")  # not needed: not read


def test_the_order_in_which_a_broker_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    typed("context set one -a /run/one -t team-one")
    typed("context set two -a /run/two")

    assert contexts.choose(None, None, None) == Place("unix:/run/one", "team-one", None, "one", tls=False)
    assert contexts.choose(None, "mine", None) == Place("unix:/run/one", "mine", None, "one", tls=False)
    monkeypatch.setenv("PURVEYOR_CONTEXT", "two")
    assert contexts.choose(None, None, None) == Place("unix:/run/two", "default", None, "two", tls=False)
    assert contexts.choose(None, None, "one") == Place("unix:/run/one", "team-one", None, "one", tls=False)
    assert contexts.choose("/run/else", None, "one") == Place("/run/else", "default")


def test_tls_goes_with_its_context(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    typed("context set prod -a broker:1 --admin admin:1 --tls-ca ca.pem --tls-certificate c.pem --tls-key k.pem")
    typed("context set prod --tls-server-name b.example --tls-ca system")  # what is not given stays
    typed("context set lab -a lab:1 --admin /run/admin --tls-ca system")
    tls = Tls(certificate=str(folder / "c.pem"), key=str(folder / "k.pem"), server_name="b.example")

    assert contexts.load().get("prod").tls == tls
    prod = contexts.choose(None, None, "prod")
    assert (prod.tls, contexts.admin_tls(None, prod), contexts.admin_tls("other:1", prod)) == (tls, tls, None)
    lab = contexts.choose(None, None, "lab")
    assert (lab.tls, contexts.admin_tls(None, lab)) == (Tls(), False)
    typed_here = Tls(ca="mine.pem")
    assert contexts.choose(None, None, "prod", typed_here).tls == typed_here
    assert contexts.choose("other:1", None, "prod").tls is None

    typed_words = [
        "context",
        "set",
        "prod",
        "--tls-certificate",
        "",
        "--tls-key",
        "",
        "--tls-server-name",
        "",
        "--tls-ca",
        "",
    ]
    assert CliRunner().invoke(app, typed_words).exit_code == 0
    assert contexts.load().get("prod").tls is None


def test_operators_go_to_the_contexts_own_admin_listener() -> None:
    typed("context set prod -a /run/prod --admin /run/prod-admin")
    typed("context set lab -a /run/lab")
    typed("context set prod -t team-a")  # what is not given stays

    prod = contexts.choose(None, None, "prod")
    assert contexts.admin_address(None, prod) == "unix:/run/prod-admin"
    assert contexts.admin_address("/run/given", prod) == "/run/given"
    assert contexts.admin_address(None, contexts.choose("/run/else", None, "prod")) is None
    with pytest.raises(errors.InvalidRequestError, match="context lab: has none: `purveyor context set lab --admin"):
        contexts.admin_address(None, contexts.choose(None, None, "lab"))


async def command(*arguments: str, **environment: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", "from purveyor.cli import main; main()", *arguments),
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), RUN_SECONDS)
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def test_a_command_goes_to_its_context(broker: ScriptedBroker, folder: Path) -> None:
    broker.script["ListInstances"] = [messages.ListInstancesResponse(instances=[instance()])]
    await command("context", "set", "here", "-a", f"unix:{folder / 's'}", "-t", "team-a")
    await command("context", "set", "there", "-a", "unix:/nonexistent")

    assert (await command("instances"))[0] == 0
    assert broker.seen["ListInstances"][-1].tenant == "team-a"
    assert (await command("--context", "there", "instances"))[0] == Exit.UNAVAILABLE
    code, _, err = await command("instances", "--context", "there", PURVEYOR_ADDRESS=f"unix:{folder / 's'}")
    assert (code, "goes before the context there" in err) == (0, True)


async def completed(line: str, **environment: str) -> list[str]:
    """What bash would offer for the last word of the line."""
    words = {"COMP_WORDS": f"purveyor {line}", "COMP_CWORD": str(len(f"purveyor {line}x".split()) - 1)}
    code, out, err = await command(_PURVEYOR_COMPLETE="complete_bash", **words, **environment)
    assert (code, err) == (0, "")
    return out.split()


async def test_completion_asks_the_broker(broker: ScriptedBroker, folder: Path) -> None:
    broker.script |= {
        "ListInstances": [messages.ListInstancesResponse(instances=[instance(), instance(instance_id="other")])],
        "ListBindings": [messages.ListBindingsResponse(bindings=[binding()])],
        "ListOperations": [messages.ListOperationsResponse(operations=[operation()])],
    }
    await command("context", "set", "here", "-a", f"unix:{folder / 's'}", "-t", "team-a")

    assert await completed("provision ") == ["postgresql"]
    assert await completed("provision postgresql b") == ["big"]
    assert await completed("instance o") == ["orders", "other"]
    assert await completed("--tenant mine unbind orders ") == ["app"]
    assert await completed("watch ") == ["op-1"]
    assert await completed("--context ") == ["here"]
    assert broker.seen["ListInstances"][0].tenant == "team-a"
    assert (broker.seen["ListBindings"][0].tenant, broker.seen["ListBindings"][0].instance_id) == ("mine", "orders")


async def test_completion_is_silent_when_it_fails(broker: ScriptedBroker, folder: Path) -> None:
    async def stuck(_: object) -> None:
        await asyncio.Event().wait()

    here = {"PURVEYOR_ADDRESS": f"unix:{folder / 's'}"}
    broker.script["ListInstances"] = [Refusal(grpc.StatusCode.INTERNAL, "INTERNAL")]
    assert await completed("instance ", **here) == []
    broker.script["ListInstances"] = [stuck]
    assert await completed("instance ", **here) == []
    assert await completed("instance ", PURVEYOR_ADDRESS="unix:/nonexistent") == []
    assert await completed("instance ", PURVEYOR_ADDRESS="nowhere") == []
    assert await completed("instance ", PURVEYOR_CONTEXT="nix") == []
