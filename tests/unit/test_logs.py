"""Nothing secret reaches a log line, whatever is handed to the logger."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import structlog
from google.protobuf.struct_pb2 import Struct

from purveyor.v1 import binding_pb2, broker_service_pb2, instance_pb2
from purveyor_server.kit.hiding import MASK
from purveyor_server.kit.secret import Secret
from purveyor_server.telemetry import logs
from purveyor_server.telemetry.redact import redact, shown


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    handlers, level = logging.getLogger().handlers, logging.getLogger().level
    stream = io.StringIO()
    logs.configure("json", "info", stream, cache=False)
    yield stream
    structlog.reset_defaults()
    logging.getLogger().handlers = handlers
    logging.getLogger().setLevel(level)


def line(stream: io.StringIO) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(stream.getvalue())
    return found


def test_a_line_has_level_time_name_and_context(stream: io.StringIO) -> None:
    with structlog.contextvars.bound_contextvars(request_id="r1", tenant="acme"):
        structlog.get_logger("purveyor.test").info(
            "binding created", operation_id="o1", at=datetime(2026, 1, 1, tzinfo=UTC)
        )

    found = line(stream)
    assert datetime.fromisoformat(found.pop("timestamp")).tzinfo is not None
    assert found == {
        "event": "binding created",
        "level": "info",
        "logger": "purveyor.test",
        "request_id": "r1",
        "tenant": "acme",
        "operation_id": "o1",
        "at": "2026-01-01 00:00:00+00:00",
    }


@pytest.mark.parametrize(
    "fields",
    [
        {"value": Secret("hunter2")},
        {"password": "hunter2"},
        {"db_password": "hunter2"},
        {"client_secret": "hunter2"},
        {"page_token": "hunter2"},
        {"Credentials": {"deep": "hunter2"}},
        {"uri": "hunter2"},
        {"jdbc_url": "hunter2"},
        {"where": "postgresql://user:hunter2@host/db"},
        {"config": {"nested": [{"password": "hunter2"}]}},
        {"config": [Secret("hunter2")]},
        {"raw": b"hunter2"},
        {"failure": ValueError("postgresql://user:hunter2@host/db")},
        {"message": binding_pb2.Credentials()},
        {"record": Path},
    ],
)
def test_a_secret_is_masked_wherever_it_stands(stream: io.StringIO, fields: dict[str, Any]) -> None:
    structlog.get_logger().info("something happened", **fields)

    assert "hunter2" not in stream.getvalue()
    assert line(stream)["event"] == "something happened"


def test_without_redaction_the_same_check_finds_the_secret() -> None:
    """Negative control: the renderer alone shows it."""
    assert "hunter2" in logs._json(None, "info", {"password": "hunter2"})


def test_a_traceback_shows_neither_local_variables_nor_passwords_in_addresses(stream: io.StringIO) -> None:
    def connect(password: str) -> None:
        raise ConnectionError(f"postgresql://user:{password}@host/db")

    try:
        connect("hunter" + "2")
    except ConnectionError:
        structlog.get_logger().exception("backend failed")

    assert "ConnectionError" in line(stream)["exception"]
    assert "hunter2" not in stream.getvalue()


def test_what_libraries_log_takes_the_same_way(stream: io.StringIO) -> None:
    logging.getLogger("grpc").error("failed to reach %s", "postgresql://user:hunter2@host")
    logging.getLogger("grpc").info("chatter")

    found = line(stream)
    assert (found["event"], found["logger"], found["level"]) == ("library message", "grpc", "error")
    assert "hunter2" not in stream.getvalue()


def test_below_the_level_nothing_is_even_looked_at(stream: io.StringIO) -> None:
    structlog.get_logger().debug("detail", value=object())

    assert stream.getvalue() == ""


def test_console_lines_are_redacted_too() -> None:
    stream = io.StringIO()
    logs.configure("console", "info", stream, cache=False)
    structlog.get_logger().info("made", password="hunter2", tenant="acme")
    structlog.reset_defaults()

    assert "made" in stream.getvalue()
    assert "acme" in stream.getvalue()
    assert "hunter2" not in stream.getvalue()


def test_a_closed_stream_does_not_stop_the_work(stream: io.StringIO) -> None:
    stream.close()

    structlog.get_logger().info("nobody reads this")


def test_deep_wide_and_long_values_are_cut() -> None:
    deep: Any = "x"
    for _ in range(50):
        deep = [deep]

    assert "..." in json.dumps(shown("a", deep))
    assert len(shown("a", list(range(10_000)))) == 100
    assert len(shown("a", "x" * 100_000)) < 9000


def test_messages_are_shown_without_their_redacted_fields() -> None:
    parameters = Struct()
    parameters.update({"admin": "hunter2"})
    request = broker_service_pb2.ProvisionRequest(tenant="acme", instance_id="i1", parameters=parameters)

    assert redact(request) == {"tenant": "acme", "instance_id": "i1", "parameters": MASK}


def test_messages_within_messages_maps_and_times_are_shown() -> None:
    instance = instance_pb2.Instance(tenant="acme", labels={"team": "a", "token": "b"})
    instance.create_time.FromJsonString("1970-01-01T00:00:00Z")
    response = broker_service_pb2.ListInstancesResponse(instances=[instance], next_page_token="abc")

    assert redact(response) == {
        "instances": [
            {"tenant": "acme", "labels": {"team": "a", "token": MASK}, "create_time": "1970-01-01T00:00:00Z"}
        ],
        "next_page_token": MASK,
    }


def test_free_form_fields_are_masked_by_their_keys() -> None:
    instance = instance_pb2.Instance()
    instance.context.update({"platform": "kubernetes", "api_token": "hunter2", "list": [1, None, {"password": "x"}]})

    assert redact(instance) == {
        "context": {"platform": "kubernetes", "api_token": MASK, "list": [1.0, None, {"password": MASK}]}
    }
