"""What the broker side is configured with, what it is asked, and what it says it has.

The settings are the defaults but for two: the bound of waiting operations does not end a run (it is a counter, whatever its
limit), and a stop does not wait for steps that never end.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc

from purveyor.v1 import broker_service_pb2 as pb
from purveyor.v1 import broker_service_pb2_grpc
from tests.benchmarks.processes import Server, running, socket_path

TENANTS = tuple(f"tenant-{number:03}" for number in range(100))
CALL_SECONDS = 30.0
PARAMETER_BYTES = 1024  # of the Struct on the wire
SERVICE = "/purveyor.v1.BrokerService"
SETTINGS = """\
catalog = "catalog.yaml"
data_dir = "data"
[listen]
addresses = ["unix:{path}"]
[engine]
stop_grace = "100ms"
[limits]
max_pending = 1000000
"""
CATALOG = """\
providers:
  main: {kind: held}
services:
  - id: service
    name: service
    description: Things.
    bindable: false
    plans:
      - id: plan
        name: plan
        description: A plan.
        provider: main
        schemas:
          service_instance:
            create:
              parameters:
                type: object
                required: [size, region]
                properties:
                  size: {type: integer, minimum: 1, maximum: 64}
                  region: {enum: [north, south]}
                  encrypted: {type: boolean}
                  extensions: {type: array, maxItems: 8, items: {type: string, pattern: '^[a-z_]+$'}}
                  backup:
                    type: object
                    properties: {hour: {type: integer, minimum: 0, maximum: 23}, keep_days: {type: integer}}
                    additionalProperties: false
                  note: {type: string, maxLength: 2000}
                additionalProperties: false
"""


class NotAcceptedError(Exception):
    """Something that was answered like an accepted request is not there."""


def provision_request(tenant: str) -> Any:
    """A Provision with parameters of exactly PARAMETER_BYTES; the server chooses the id, for every body is sent often."""
    request = pb.ProvisionRequest(tenant=tenant, service_id="service", plan_id="plan")
    backup = {"hour": 3, "keep_days": 14}
    chosen: dict[str, Any] = {
        "size": 8,
        "region": "north",
        "encrypted": True,
        "extensions": ["hstore", "citext"],
        "backup": backup,
    }
    request.parameters.update(chosen | {"note": "x" * 200})
    missing = PARAMETER_BYTES - request.parameters.ByteSize()
    request.parameters.update({"note": "x" * (200 + missing)})
    request.parameters.update({"note": "x" * (200 + missing + PARAMETER_BYTES - request.parameters.ByteSize())})
    return request


@contextmanager
def broker(folder: Path, kind: str = "held", settings: str = SETTINGS) -> Iterator[Server]:
    """A broker on the data folder in `folder`, with a provider of that kind."""
    folder.mkdir(parents=True, exist_ok=True)
    with socket_path() as path:
        (folder / "purveyor.toml").write_text(settings.format(path=path))
        (folder / "catalog.yaml").write_text(CATALOG.replace("kind: held", f"kind: {kind}"))
        command = ("tests.benchmarks.sides.broker", str(folder / "purveyor.toml"))
        with running(command, path, folder / "broker.log") as server:
            yield server


@contextmanager
def calling(server: Server) -> Iterator[Any]:
    """A stub."""
    with grpc.insecure_channel(server.address) as channel:
        grpc.channel_ready_future(channel).result(CALL_SECONDS)
        stub: Any = broker_service_pb2_grpc.BrokerServiceStub  # typed for aio, made for both
        yield stub(channel)


def provision(stub: Any, tenants: Iterable[str]) -> list[Any]:
    """One instance for each of `tenants`; the answers."""
    return [stub.Provision(provision_request(tenant), timeout=CALL_SECONDS) for tenant in tenants]


def listed(stub: Any, tenants: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Tenant and id of every instance that the broker says it has."""
    for tenant in tenants:
        token = ""
        while True:
            request = pb.ListInstancesRequest(tenant=tenant, page_size=1000, page_token=token)
            page = stub.ListInstances(request, timeout=CALL_SECONDS)
            yield from ((tenant, instance.instance_id) for instance in page.instances)
            token = page.next_page_token
            if not token:
                break


def check_accepted(found: Iterable[tuple[str, str]], accepted: int) -> None:
    """Raise NotAcceptedError unless there are exactly as many different instances as requests were answered."""
    everything = list(found)
    if len(set(everything)) != len(everything):
        raise NotAcceptedError(f"{len(everything) - len(set(everything))} instances are listed twice")
    if len(everything) != accepted:
        raise NotAcceptedError(f"{accepted} requests were answered and {len(everything)} instances are there")
