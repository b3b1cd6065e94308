"""What bad input gets from a real broker: one named reason, the field, words to act on, and nothing half done."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from tests.acceptance.house import LEFT, House, span, struct
from tests.postgres_server import TestServer
from tests.rpc.failures import failure_of
from tests.unit.app_process import Process

pytestmark = pytest.mark.postgres
BAD_IDS = ["", ".", "..", "a b", "a\nb", "a\x00b", "a/b", "x" * 129, "ä", "a\u202eb"]
BAD_TENANTS = ["", "Acme", "-a", "a-", "a.b", "a" * 64, "a\n", "ä"]
GOOD = {"instance_id": "new", "service_id": "s1", "plan_id": "small"}
LABELS_65 = {f"k{n}": "" for n in range(65)}
NAN, INFINITE = struct(connection_limit=float("nan")), struct(connection_limit=float("inf"))

Row = tuple[str, dict[str, Any], str, str]
TENANTS: list[Row] = [
    *(("Provision", GOOD | {"tenant": tenant}, "INVALID_REQUEST", "tenant") for tenant in BAD_TENANTS),
    ("GetCatalog", {"tenant": "A"}, "INVALID_REQUEST", "tenant"),
    ("ListOperations", {"tenant": ""}, "INVALID_REQUEST", "tenant"),
    ("WaitOperation", {"tenant": "", "operation_id": "x"}, "INVALID_REQUEST", "tenant"),
    ("CancelOperation", {"tenant": "A", "operation_id": "x"}, "INVALID_REQUEST", "tenant"),
]
IDS: list[Row] = [
    *(("Provision", GOOD | {"instance_id": bad}, "INVALID_REQUEST", "instance_id") for bad in BAD_IDS if bad),
    *(("GetInstance", {"instance_id": bad}, "INVALID_REQUEST", "instance_id") for bad in BAD_IDS),
    *(
        ("Bind", {"instance_id": "orders", "binding_id": bad}, "INVALID_REQUEST", "binding_id")
        for bad in BAD_IDS
        if bad
    ),
    *(("Unbind", {"instance_id": "orders", "binding_id": bad}, "INVALID_REQUEST", "binding_id") for bad in BAD_IDS),
    ("GetBinding", {"instance_id": "orders", "binding_id": ".."}, "INVALID_REQUEST", "binding_id"),
    ("GetCredentials", {"instance_id": "..", "binding_id": "b"}, "INVALID_REQUEST", "instance_id"),
    ("UpdateInstance", {"instance_id": "a b"}, "INVALID_REQUEST", "instance_id"),
    ("Deprovision", {"instance_id": ""}, "INVALID_REQUEST", "instance_id"),
    ("Deprovision", {"instance_id": "..", "allow_missing": True}, "INVALID_REQUEST", "instance_id"),
    ("ListBindings", {"instance_id": ".."}, "INVALID_REQUEST", "instance_id"),
    ("GetOperation", {"operation_id": ""}, "INVALID_REQUEST", "operation_id"),
    ("WatchOperation", {"operation_id": "a/b"}, "INVALID_REQUEST", "operation_id"),
    ("Provision", GOOD | {"service_id": ""}, "INVALID_REQUEST", "service_id"),
    ("Provision", GOOD | {"plan_id": "a b"}, "INVALID_REQUEST", "plan_id"),
    *(
        (method, fields | {"request_id": bad}, "INVALID_REQUEST", "request_id")
        for bad in ("a b", "r" * 65, "r\n", "ä")
        for method, fields in (
            ("Provision", GOOD),
            ("UpdateInstance", {"instance_id": "orders"}),
            ("Deprovision", {"instance_id": "orders"}),
            ("Bind", {"instance_id": "orders", "binding_id": "b"}),
            ("Unbind", {"instance_id": "orders", "binding_id": "b"}),
            ("CancelOperation", {"operation_id": "x"}),
        )
    ),
]
FIELDS: list[Row] = [
    ("Provision", GOOD | {"labels": LABELS_65}, "INVALID_REQUEST", "labels"),
    ("Provision", GOOD | {"labels": {"a b": ""}}, "INVALID_REQUEST", "labels"),
    ("Provision", GOOD | {"labels": {"": "v"}}, "INVALID_REQUEST", "labels"),
    ("Provision", GOOD | {"labels": {"k" * 64: "v"}}, "INVALID_REQUEST", "labels"),
    ("Provision", GOOD | {"labels": {"k": "v" * 256}}, "INVALID_REQUEST", "labels.k"),
    ("UpdateInstance", {"instance_id": "orders", "labels": LABELS_65}, "INVALID_REQUEST", "labels"),
    ("Bind", {"instance_id": "orders", "binding_id": "b", "labels": LABELS_65}, "INVALID_REQUEST", "labels"),
    ("Provision", GOOD | {"parameters": NAN}, "INVALID_REQUEST", "parameters.connection_limit"),
    ("Provision", GOOD | {"parameters": INFINITE}, "INVALID_REQUEST", "parameters.connection_limit"),
    ("Provision", GOOD | {"context": struct(a=[float("-inf")])}, "INVALID_REQUEST", "context.a[0]"),
    (
        "Provision",
        GOOD | {"originating_identity": {"platform": ""}},
        "INVALID_REQUEST",
        "originating_identity.platform",
    ),
    ("Provision", GOOD | {"wait": span(-1)}, "INVALID_REQUEST", "wait"),
    ("Bind", {"instance_id": "orders", "binding_id": "b", "ttl": span(-1)}, "INVALID_REQUEST", "ttl"),
    ("Bind", {"instance_id": "orders", "binding_id": "b", "ttl": span(0)}, "INVALID_REQUEST", "ttl"),
    ("ListInstances", {"page_size": -1}, "INVALID_REQUEST", "page_size"),
    ("ListBindings", {"page_size": -7}, "INVALID_REQUEST", "page_size"),
    ("ListOperations", {"page_size": -2_000_000_000}, "INVALID_REQUEST", "page_size"),
    ("ListOperations", {"view": 99}, "INVALID_REQUEST", "view"),
    ("ListInstances", {"page_token": "no token"}, "INVALID_PAGE_TOKEN", "page_token"),
    ("ListInstances", {"filter": "colour = red"}, "INVALID_FILTER", "filter"),
    ("ListInstances", {"filter": "state = HAPPY"}, "INVALID_FILTER", "filter"),
    ("ListInstances", {"filter": "state = READY OR state = FAILED"}, "INVALID_FILTER", "filter"),
    ("ListInstances", {"filter": "instance_id = 'x'; DROP TABLE instances"}, "INVALID_FILTER", "filter"),
    ("ListBindings", {"filter": "create_time = yesterday"}, "INVALID_FILTER", "filter"),
    ("ListOperations", {"filter": "verb = "}, "INVALID_FILTER", "filter"),
    ("ListOperations", {"filter": "x" * 3000}, "INVALID_FILTER", "filter"),
    ("UpdateInstance", {"instance_id": "orders", "update_mask": ["colour"]}, "INVALID_REQUEST", "update_mask"),
    ("UpdateInstance", {"instance_id": "orders", "update_mask": ["planId"]}, "INVALID_REQUEST", "update_mask"),
    ("UpdateInstance", {"instance_id": "orders", "context": {"a": 1}}, "INVALID_REQUEST", "context"),
]
PARAMETERS: list[Row] = [
    ("Provision", GOOD | {"parameters": {"connection_limit": 21}}, "INVALID_PARAMETERS", "parameters.connection_limit"),
    (
        "Provision",
        GOOD | {"parameters": {"extensions": ["citext", 7]}},
        "INVALID_PARAMETERS",
        "parameters.extensions.1",
    ),
    ("Provision", GOOD | {"parameters": {"colour": "red"}}, "INVALID_PARAMETERS", "parameters"),
    (
        "UpdateInstance",
        {"instance_id": "orders", "parameters": {"connection_limit": 0}},
        "INVALID_PARAMETERS",
        "parameters.connection_limit",
    ),
    (
        "Bind",
        {"instance_id": "orders", "binding_id": "b", "parameters": {"connection_limit": "many"}},
        "INVALID_PARAMETERS",
        "parameters.connection_limit",
    ),
]


@pytest.fixture
async def unchanged(house: House, postgres: TestServer) -> AsyncIterator[None]:
    """An instance `orders`; what the broker and the server have is afterwards what it was."""
    await house.ready("orders")
    records, listing = await house.records(), await postgres.listing()
    yield
    assert await house.records() == records
    after = await postgres.listing()
    assert [after[part] for part in LEFT] == [listing[part] for part in LEFT]


async def refusals(house: House, rows: list[Row]) -> None:
    """Each row is refused with its reason and its field; the message names the field first."""
    for method, fields, reason, field in rows:
        call = house.ask(method, **fields)
        failure = await failure_of(call.read() if method == "WatchOperation" else call)
        where = f"{method} {fields} -> {failure}"
        assert (failure.code, failure.reason) == (grpc.StatusCode.INVALID_ARGUMENT, reason), where
        violations = failure.details["BadRequest"].field_violations
        assert violations[0].field == field, where
        assert violations[0].description, where
        assert failure.message.startswith(field), where
        assert len(failure.message) < 1000, where


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("rows", [TENANTS, IDS, FIELDS, PARAMETERS], ids=["tenants", "ids", "fields", "parameters"])
async def test_a_bad_field_is_named(house: House, rows: list[Row]) -> None:
    await refusals(house, rows)
    # A dry run makes the same checks.
    dry = [
        (m, f | {"validate_only": True}, r, n) for m, f, r, n in rows if m in {"Provision", "UpdateInstance", "Bind"}
    ]
    await refusals(house, dry)


@pytest.mark.usefixtures("unchanged")
async def test_what_is_not_there_is_named(house: House) -> None:
    rows: list[tuple[str, dict[str, Any], str, tuple[str, str]]] = [
        ("Provision", GOOD | {"service_id": "s9"}, "UNKNOWN_SERVICE", ("service", "s9")),
        ("Provision", GOOD | {"plan_id": "p9"}, "UNKNOWN_PLAN", ("plan", "p9")),
        ("Provision", GOOD | {"plan_id": "other"}, "UNKNOWN_PLAN", ("plan", "other")),
        ("Provision", GOOD | {"service_id": "database"}, "UNKNOWN_SERVICE", ("service", "database")),
        ("UpdateInstance", {"instance_id": "orders", "plan_id": "other"}, "UNKNOWN_PLAN", ("plan", "other")),
        ("UpdateInstance", {"instance_id": "none", "plan_id": "big"}, "INSTANCE_NOT_FOUND", ("instance", "none")),
        ("Deprovision", {"instance_id": "none"}, "INSTANCE_NOT_FOUND", ("instance", "none")),
        ("GetInstance", {"instance_id": "ORDERS"}, "INSTANCE_NOT_FOUND", ("instance", "ORDERS")),
        ("GetInstance", {"tenant": "umbra", "instance_id": "orders"}, "INSTANCE_NOT_FOUND", ("instance", "orders")),
        ("Bind", {"instance_id": "none", "binding_id": "b"}, "INSTANCE_NOT_FOUND", ("instance", "none")),
        ("Unbind", {"instance_id": "orders", "binding_id": "none"}, "BINDING_NOT_FOUND", ("binding", "none")),
        ("Unbind", {"instance_id": "none", "binding_id": "none"}, "INSTANCE_NOT_FOUND", ("instance", "none")),
        ("GetCredentials", {"instance_id": "orders", "binding_id": "b"}, "BINDING_NOT_FOUND", ("binding", "b")),
        ("ListBindings", {"instance_id": "none"}, "INSTANCE_NOT_FOUND", ("instance", "none")),
        ("GetOperation", {"operation_id": "none"}, "OPERATION_NOT_FOUND", ("operation", "none")),
        ("WaitOperation", {"operation_id": "none"}, "OPERATION_NOT_FOUND", ("operation", "none")),
        ("CancelOperation", {"operation_id": "none"}, "OPERATION_NOT_FOUND", ("operation", "none")),
        ("WatchOperation", {"operation_id": "none"}, "OPERATION_NOT_FOUND", ("operation", "none")),
    ]
    for method, fields, reason, resource in rows:
        call = house.ask(method, **fields)
        failure = await failure_of(call.read() if method == "WatchOperation" else call)
        info = failure.details["ResourceInfo"]
        where = f"{method} {fields} -> {failure}"
        assert (failure.code, failure.reason) == (grpc.StatusCode.NOT_FOUND, reason), where
        assert (info.resource_type, info.resource_name) == resource, where
        assert failure.metadata[f"{resource[0]}_id"] == resource[1], where
        assert resource[1] in failure.message, where


@pytest.mark.usefixtures("unchanged")
async def test_no_value_of_a_parameter_is_shown(house: House, process: Process) -> None:
    for value in ("hunter2-SECRET", {"deep": "hunter2-SECRET"}, ["hunter2-SECRET"]):
        failure = await house.refused("Provision", **GOOD, parameters={"token": value})
        assert failure.details["BadRequest"].field_violations[0].field == "parameters.token"
        assert "hunter2" not in str(failure)
    assert "hunter2" not in str(process.events)


@pytest.mark.usefixtures("unchanged")
async def test_what_is_too_large_is_refused(house: House) -> None:
    part = await house.refused("Provision", **GOOD, parameters={"token": "x" * 70_000})
    whole = await house.refused("Provision", **GOOD, context={"a": "x" * 1_100_000})
    with pytest.raises(grpc.aio.AioRpcError) as core:  # above this the transport itself refuses, without details
        await house.ask("Provision", **GOOD, context={"a": "x" * 5_000_000})

    assert (part.code, part.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "MESSAGE_TOO_LARGE")
    assert part.metadata["field"] == "parameters"
    assert "65536" in part.message
    assert (whole.code, whole.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "MESSAGE_TOO_LARGE")
    assert whole.metadata["limit_bytes"] == "1048576"
    assert core.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.usefixtures("unchanged")
async def test_an_unknown_method_is_named(house: House) -> None:
    for path in ("/purveyor.v1.BrokerService/ShareInstance", "/purveyor.v1.AdminService/Purge"):
        call: Any = house.channel.unary_unary(path)
        failure = await failure_of(call(b"", timeout=10))
        assert (failure.code, failure.reason) == (grpc.StatusCode.UNIMPLEMENTED, "UNKNOWN_METHOD")
        assert failure.metadata["method"] == path


@pytest.mark.usefixtures("unchanged")
async def test_what_is_nested_too_deeply_is_refused(house: House) -> None:
    deep: dict[str, Any] = {}
    for _ in range(40):
        deep = {"a": deep}
    failure = await house.refused("Provision", **GOOD, parameters=deep)

    assert (failure.code, failure.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
    assert "nested too deeply" in failure.message


async def test_a_page_token_serves_its_own_question_only(house: House) -> None:
    await house.ready("orders")
    await house.ready("second")
    token = (await house.ask("ListInstances", page_size=1, filter="service_id = s1")).next_page_token
    assert token
    flipped = token[:-1] + ("A" if token[-1] != "A" else "B")
    begun = ("A" if token[0] != "A" else "B") + token[1:]
    rows: list[tuple[str, dict[str, Any]]] = [
        ("ListInstances", {"page_token": token}),
        ("ListInstances", {"page_token": token, "filter": "service_id = s2"}),
        ("ListInstances", {"page_token": token, "filter": "service_id = s1", "show_deleted": True}),
        ("ListInstances", {"page_token": token, "filter": "service_id = s1", "tenant": "umbra"}),
        ("ListInstances", {"page_token": begun, "filter": "service_id = s1"}),
        ("ListInstances", {"page_token": flipped, "filter": "service_id = s1"}),
        ("ListInstances", {"page_token": token + "AAAA", "filter": "service_id = s1"}),
        ("ListBindings", {"page_token": token}),
        ("ListOperations", {"page_token": token}),
    ]
    for method, fields in rows:
        failure = await house.refused(method, **fields)
        assert (failure.code, failure.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_PAGE_TOKEN"), fields
        assert failure.details["BadRequest"].field_violations[0].field == "page_token"
    rest = await house.ask("ListInstances", page_size=7, filter="service_id = s1", page_token=token)
    assert [instance.instance_id for instance in rest.instances] == ["second"]
    await house.ended((await house.ask("Deprovision", instance_id="second")).operation.operation_id)


async def test_a_request_id_is_for_one_request(house: House) -> None:
    made = await house.provision("once", request_id="r-1", wait=span(20))
    records = await house.records()
    for fields in (
        {"instance_id": "twice", "plan_id": "small"},
        {"instance_id": "once", "plan_id": "big"},
        {"instance_id": "once", "plan_id": "small", "labels": {"a": "b"}},
    ):
        failure = await house.refused("Provision", service_id="s1", request_id="r-1", **fields)
        assert (failure.code, failure.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "REQUEST_ID_REUSED")
        assert failure.metadata == {"request_id": "r-1", "operation": made.operation.operation_id}
    again = await house.provision("once", request_id="r-1")
    assert (again.replayed, again.operation.operation_id) == (True, made.operation.operation_id)
    assert await house.records() == records
    # Another method or another tenant has request ids of its own; a refused request uses none up.
    assert not (await house.bind("once", "b", request_id="r-1", wait=span(20))).replayed
    await house.refused("Provision", **GOOD | {"plan_id": "p9"}, request_id="r-2")
    assert not (await house.provision("second", request_id="r-2")).replayed
    await house.give_back()


async def test_a_second_request_of_another_kind_conflicts(house: House) -> None:
    await house.ready("orders")
    await house.active("orders", "app")
    records = await house.records()
    for fields in ({"plan_id": "big"}, {"plan_id": "small", "parameters": {"connection_limit": 5}}):
        failure = await house.refused("Provision", instance_id="orders", service_id="s1", **fields)
        assert (failure.code, failure.reason) == (grpc.StatusCode.ALREADY_EXISTS, "INSTANCE_ALREADY_EXISTS")
        assert failure.details["ResourceInfo"].resource_name == "orders"
    bound = await house.refused("Bind", instance_id="orders", binding_id="app", labels={"a": "b"})
    assert (bound.code, bound.reason) == (grpc.StatusCode.ALREADY_EXISTS, "BINDING_ALREADY_EXISTS")
    assert bound.details["ResourceInfo"].resource_name == "app"
    assert await house.records() == records
    await house.give_back()


async def test_a_stale_etag_changes_nothing(house: House) -> None:
    old = (await house.ready("orders")).etag
    binding = (await house.active("orders", "app")).binding
    await house.ask("UpdateInstance", instance_id="orders", labels={"a": "b"}, etag=old)
    current = (await house.ask("GetInstance", instance_id="orders")).instance.etag
    records = await house.records()
    assert current != old
    rows: list[tuple[str, dict[str, Any], str]] = [
        ("UpdateInstance", {"instance_id": "orders", "plan_id": "big", "etag": old}, current),
        ("UpdateInstance", {"instance_id": "orders", "labels": {}, "etag": old}, current),
        ("Deprovision", {"instance_id": "orders", "cascade": True, "etag": old}, current),
        ("Deprovision", {"instance_id": "orders", "cascade": True, "etag": "rubbish " * 100}, current),
        ("Deprovision", {"instance_id": "orders", "cascade": True, "etag": binding.etag + "0"}, current),
        ("Unbind", {"instance_id": "orders", "binding_id": "app", "etag": current + "0"}, binding.etag),
        ("CancelOperation", {"operation_id": (await house.operations())[0].operation_id, "etag": "x"}, ""),
    ]
    for method, fields, seen in rows:
        failure = await house.refused(method, **fields)
        assert (failure.code, failure.reason) == (grpc.StatusCode.ABORTED, "ETAG_MISMATCH"), fields
        assert failure.metadata["etag"] == fields["etag"][:128]
        assert seen in {"", failure.metadata["current"]}
        assert "read it again" in failure.message
    assert await house.records() == records
    await house.ask("Unbind", instance_id="orders", binding_id="app", etag=binding.etag, wait=span(20))
    await house.ask("Deprovision", instance_id="orders", etag=current, wait=span(20))
    await house.give_back()


async def test_what_the_catalog_does_not_allow_is_refused(house: House) -> None:
    fixed = await house.ready("fixed", "fixed")
    unbound = await house.ready("unbound", "unbound")
    await house.ready("orders")
    records = await house.records()
    rows: list[tuple[str, dict[str, Any], str]] = [
        ("UpdateInstance", {"instance_id": "fixed", "plan_id": "small"}, "PLAN_NOT_UPDATABLE"),
        ("Bind", {"instance_id": "unbound", "binding_id": "b"}, "NOT_BINDABLE"),
        ("Provision", GOOD | {"maintenance_info": {"version": "1.0.0"}}, "MAINTENANCE_INFO_CONFLICT"),
        (
            "UpdateInstance",
            {"instance_id": "orders", "maintenance_info": {"version": "9.9.9"}},
            "MAINTENANCE_INFO_CONFLICT",
        ),
    ]
    for method, fields, reason in rows:
        failure = await house.refused(method, **fields)
        assert (failure.code, failure.reason) == (grpc.StatusCode.FAILED_PRECONDITION, reason), fields
        assert failure.details["PreconditionFailure"].violations
    assert await house.records() == records
    for instance in (fixed, unbound):
        await house.ask("Deprovision", instance_id=instance.instance_id, wait=span(20))
