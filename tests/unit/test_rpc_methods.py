"""The method table is complete, or the server does not start."""

from __future__ import annotations

import pytest

from purveyor_server.rpc.methods import KINDS, SERVICES, Kind, method_table
from purveyor_server.rpc.settings import RpcSettings, transport_options

METHODS = [method for service in SERVICES for method in service.methods]


def test_the_table_is_the_descriptor() -> None:
    table = method_table(RpcSettings())

    assert set(table) == {f"/{method.containing_service.full_name}/{method.name}" for method in METHODS}
    assert set(KINDS) == set(table)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_kind_fits_shape_and_idempotency(method: object) -> None:
    row = method_table(RpcSettings())[f"/{method.containing_service.full_name}/{method.name}"]  # type: ignore[attr-defined]

    assert row.role
    streams = method.server_streaming or method.client_streaming  # type: ignore[attr-defined]
    assert (row.kind is Kind.STREAM) is streams
    assert (row.cap is None) is (row.kind is Kind.STREAM)
    # A token is shown once, so a second answer cannot be the first one again.
    repeatable = method.name != "CreateToken"  # type: ignore[attr-defined]
    assert (row.idempotency != "IDEMPOTENCY_UNKNOWN") is repeatable
    assert row.kind is not Kind.WRITE or not repeatable or row.idempotency == "IDEMPOTENT"
    assert row.wait_cap is None or row.kind is Kind.WRITE


def test_a_method_without_a_kind_stops_the_start() -> None:
    kinds = {name: kind for name, kind in KINDS.items() if not name.endswith("/Bind")}

    with pytest.raises(ValueError, match=r"without a kind: .*BrokerService/Bind"):
        method_table(RpcSettings(), kinds=kinds)


def test_a_method_without_a_role_stops_the_start() -> None:
    health = __import__("grpc_health.v1.health_pb2", fromlist=["DESCRIPTOR"]).DESCRIPTOR.services_by_name["Health"]
    kinds = {f"/{health.full_name}/{method.name}": Kind.READ for method in health.methods}

    with pytest.raises(ValueError, match=r"without a required_role: .*Health/Check"):
        method_table(RpcSettings(), (health,), kinds)


def test_the_transport_never_shares_its_port() -> None:
    options = dict(transport_options(RpcSettings()))

    assert options["grpc.so_reuseport"] == 0
    assert options["grpc.server.max_pending_requests"] == 20_000
    assert options["grpc.http2.min_recv_ping_interval_without_data_ms"] < options["grpc.keepalive_time_ms"]
