"""Parts of the command line that call nobody."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from purveyor import errors
from purveyor.cli import exports
from purveyor.cli.app import app
from purveyor.cli.documents import document, text
from purveyor.cli.exits import TABLE, Exit, code_of
from purveyor.cli.words import clean
from purveyor.credentials import Credentials
from purveyor.values import ActiveBinding, OperationStatus

RUN_SECONDS = 30


@pytest.mark.parametrize(
    "line",
    [
        "provision postgresql shared -p novalue",
        "provision postgresql shared --params-file /nonexistent/file",
        "provision postgresql shared --request-id r-1",
        "bind orders --ttl soon",
        "credentials orders app --env --prefix 1",
        "credentials orders app --env --prefix=",
        "provision postgresql",
        "nonsense",
        "--address nowhere catalog",
    ],
)
def test_wrong_use_is_exit_2(line: str) -> None:
    assert CliRunner().invoke(app, line.split()).exit_code == Exit.USAGE


def test_every_command_has_help() -> None:
    for name in (
        "serve",
        "catalog",
        "provision",
        "update",
        "bind",
        "credentials",
        "unbind",
        "deprovision",
        "instances",
    ):
        assert CliRunner().invoke(app, [name, "--help"]).exit_code == 0
    for name in ("instance", "bindings", "binding", "operations", "operation", "watch", "cancel", "config"):
        assert CliRunner().invoke(app, [name, "--help"]).exit_code == 0


def test_help_loads_neither_grpc_nor_the_server() -> None:
    program = (
        "import sys\nfrom typer.testing import CliRunner\nfrom purveyor.cli.app import app\n"
        "assert CliRunner().invoke(app, ['--help']).exit_code == 0\n"
        "print([name for name in sys.modules if name.split('.')[0] in {'grpc', 'purveyor_server', 'asyncpg'}])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=RUN_SECONDS
    )

    assert done.stdout.strip() == "[]"


def test_every_family_has_an_exit_code_of_its_own() -> None:
    assert len({code for _, code in TABLE}) == len(TABLE)
    assert code_of(errors.OutcomeUnknownError("x")) == Exit.UNAVAILABLE
    assert code_of(errors.AlreadyExistsError("x")) == Exit.CONFLICT
    assert code_of(errors.PurveyorError("x")) == Exit.DEFECT


def test_documents_hide_credentials() -> None:
    found = ActiveBinding(
        tenant="t",
        instance_id="i",
        binding_id="b",
        uid="u",
        instance_uid="u",
        service_id="s",
        plan_id="p",
        state="ACTIVE",
        create_time=datetime(2026, 1, 31, tzinfo=UTC),
        credentials=Credentials({"password": "hunter2"}),
    )

    assert "hunter2" not in text(found)
    assert document(found)["credentials"] == {"password": "***"}
    assert document(found)["create_time"] == "2026-01-31T00:00:00Z"


def test_documents_hold_every_field() -> None:
    assert json.loads(text(OperationStatus(operation_id="op")))["steps"] == []


@given(st.text())
def test_clean_text_moves_no_cursor(value: str) -> None:
    assert all(letter.isprintable() for letter in clean(value))


def shell_reads(lines: list[str], name: str) -> str:
    command = ["sh", "-c", "\n".join(lines) + f"\nprintf '%s' \"${name}\""]
    return subprocess.run(command, capture_output=True, check=True, timeout=RUN_SECONDS).stdout.decode()


HOSTILE = ("'; touch planted; '", '"$(id)"', "a\nb", "\\", "`id`", "!x", "ünï", "' '' '\"'", "")


@pytest.mark.parametrize("value", HOSTILE)
def test_exports_quote_whatever_is_in_them(value: str) -> None:
    assert shell_reads(exports.lines({"pass-word": value}), "BINDING_PASS_WORD") == value


def test_the_check_of_quoting_finds_a_planted_fault() -> None:
    unquoted = ["export BINDING_X=`echo planted`"]

    assert shell_reads(unquoted, "BINDING_X") != "`echo planted`"


def test_exports_refuse_what_no_variable_can_hold() -> None:
    with pytest.raises(errors.FailedPreconditionError, match="NUL"):
        exports.lines({"password": "a\0b"})


def test_other_credentials_do_not_become_libpq_variables() -> None:
    assert exports.lines({"host": "h", "nested": {"a": 1}}) == [
        "export BINDING_HOST=h",
        "export BINDING_NESTED='{\"a\": 1}'",
    ]


def test_the_default_address_is_where_the_server_listens_for_developers() -> None:
    sources = pytest.importorskip("purveyor_server.config.sources")
    from purveyor import addresses  # noqa: PLC0415 - after the skip

    assert addresses.dev_folder() == Path(sources.dev_socket_folder())


def test_a_missing_extra_is_named() -> None:
    program = "import sys; sys.modules['typer'] = None; from purveyor.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=RUN_SECONDS
    )

    assert (done.returncode, done.stderr) == (
        1,
        "purveyor: the command line needs typer: pip install 'purveyor[cli]'\n",
    )
