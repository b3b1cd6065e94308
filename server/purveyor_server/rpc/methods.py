"""The method table: every method that is served, with its kind, its cap, its role and its idempotency.

Guarantee: role and idempotency are read from the descriptors of the contract; a method without a kind here, or without a
role there, stops the start, so no method is served by default rules.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.descriptor_pb2 import MethodOptions

from purveyor.v1 import admin_service_pb2, broker_service_pb2, options_pb2
from purveyor_server.rpc.settings import RpcSettings


class Kind(StrEnum):
    """How a call is bounded: short reads and writes, calls that wait for an operation, streams."""

    READ = "read"
    WRITE = "write"
    WAIT = "wait"
    STREAM = "stream"


class Method(msgspec.Struct, frozen=True):
    """One method. `cap` is the longest it may take in seconds (None: no end of its own); `wait_cap` the same when the
    request asks to wait. `infra` marks health and reflection, which are answered while the server drains."""

    name: str  # /package.Service/Method
    kind: Kind
    role: str = ""
    idempotency: str = ""
    cap: float | None = None
    wait_cap: float | None = None
    infra: bool = False


SERVICES: tuple[ServiceDescriptor, ...] = (
    broker_service_pb2.DESCRIPTOR.services_by_name["BrokerService"],
    admin_service_pb2.DESCRIPTOR.services_by_name["AdminService"],
)

KINDS: dict[str, Kind] = {
    "/purveyor.v1.BrokerService/GetCatalog": Kind.READ,
    "/purveyor.v1.BrokerService/Provision": Kind.WRITE,
    "/purveyor.v1.BrokerService/UpdateInstance": Kind.WRITE,
    "/purveyor.v1.BrokerService/Deprovision": Kind.WRITE,
    "/purveyor.v1.BrokerService/GetInstance": Kind.READ,
    "/purveyor.v1.BrokerService/ListInstances": Kind.READ,
    "/purveyor.v1.BrokerService/Bind": Kind.WRITE,
    "/purveyor.v1.BrokerService/RenewBinding": Kind.WRITE,
    "/purveyor.v1.BrokerService/RotateBinding": Kind.WRITE,
    "/purveyor.v1.BrokerService/Unbind": Kind.WRITE,
    "/purveyor.v1.BrokerService/GetBinding": Kind.READ,
    "/purveyor.v1.BrokerService/ListBindings": Kind.READ,
    "/purveyor.v1.BrokerService/GetCredentials": Kind.READ,
    "/purveyor.v1.BrokerService/GetOperation": Kind.READ,
    "/purveyor.v1.BrokerService/ListOperations": Kind.READ,
    "/purveyor.v1.BrokerService/WaitOperation": Kind.WAIT,
    "/purveyor.v1.BrokerService/CancelOperation": Kind.WRITE,
    "/purveyor.v1.BrokerService/WatchOperation": Kind.STREAM,
    "/purveyor.v1.BrokerService/WatchEvents": Kind.STREAM,
    "/purveyor.v1.BrokerService/WatchCatalog": Kind.STREAM,
    "/purveyor.v1.AdminService/GetStatus": Kind.READ,
    "/purveyor.v1.AdminService/ExplainOperation": Kind.READ,
    "/purveyor.v1.AdminService/Freeze": Kind.WRITE,
    "/purveyor.v1.AdminService/Thaw": Kind.WRITE,
    "/purveyor.v1.AdminService/PurgeInstance": Kind.WRITE,
    "/purveyor.v1.AdminService/PurgeBinding": Kind.WRITE,
    "/purveyor.v1.AdminService/ListExpiringBindings": Kind.READ,
    "/purveyor.v1.AdminService/ForceRevokeBinding": Kind.WRITE,
    "/purveyor.v1.AdminService/EditStep": Kind.WRITE,
    "/purveyor.v1.AdminService/RetryOperation": Kind.WRITE,
    "/purveyor.v1.AdminService/CleanUpOperation": Kind.WRITE,
    "/purveyor.v1.AdminService/AbandonOperation": Kind.WRITE,
    "/purveyor.v1.AdminService/ListAuditRecords": Kind.READ,
    "/purveyor.v1.AdminService/VerifyAudit": Kind.STREAM,
    "/purveyor.v1.AdminService/SetLogLevel": Kind.WRITE,
    "/purveyor.v1.AdminService/Backup": Kind.STREAM,
    "/purveyor.v1.AdminService/ReviewRecovery": Kind.STREAM,
    "/purveyor.v1.AdminService/FinishRecovery": Kind.WRITE,
    "/purveyor.v1.AdminService/ListOrphans": Kind.READ,
    "/purveyor.v1.AdminService/SweepInventory": Kind.STREAM,
    "/purveyor.v1.AdminService/QuarantineOrphan": Kind.WRITE,
    "/purveyor.v1.AdminService/ReleaseOrphan": Kind.WRITE,
    "/purveyor.v1.AdminService/ReapOrphan": Kind.WRITE,
    "/purveyor.v1.AdminService/IgnoreOrphan": Kind.WRITE,
    "/purveyor.v1.AdminService/ResumeSweep": Kind.WRITE,
    "/purveyor.v1.AdminService/RebuildReport": Kind.STREAM,
    "/purveyor.v1.AdminService/ListKeys": Kind.READ,
    "/purveyor.v1.AdminService/RotateKeys": Kind.STREAM,
    "/purveyor.v1.AdminService/RetireKey": Kind.WRITE,
    "/purveyor.v1.AdminService/CreateToken": Kind.WRITE,
    "/purveyor.v1.AdminService/ListTokens": Kind.READ,
    "/purveyor.v1.AdminService/RevokeToken": Kind.WRITE,
    "/purveyor.v1.AdminService/ListQuotas": Kind.READ,
    "/purveyor.v1.AdminService/SetQuota": Kind.WRITE,
    "/purveyor.v1.AdminService/DeleteQuota": Kind.WRITE,
    "/purveyor.v1.AdminService/CreateCampaign": Kind.WRITE,
    "/purveyor.v1.AdminService/GetCampaign": Kind.READ,
    "/purveyor.v1.AdminService/ListCampaigns": Kind.READ,
    "/purveyor.v1.AdminService/ListCampaignItems": Kind.READ,
    "/purveyor.v1.AdminService/PauseCampaign": Kind.WRITE,
    "/purveyor.v1.AdminService/ResumeCampaign": Kind.WRITE,
    "/purveyor.v1.AdminService/AbortCampaign": Kind.WRITE,
    "/purveyor.v1.AdminService/RetryCampaign": Kind.WRITE,
    "/purveyor.v1.AdminService/WatchCampaign": Kind.STREAM,
    "/purveyor.v1.AdminService/Drain": Kind.WRITE,
    "/purveyor.v1.AdminService/RotateRootCredentials": Kind.WRITE,
    "/purveyor.v1.AdminService/ObserveInstance": Kind.WRITE,
    "/purveyor.v1.AdminService/ListDrift": Kind.READ,
    "/purveyor.v1.AdminService/PauseReconciliation": Kind.WRITE,
    "/purveyor.v1.AdminService/ResumeReconciliation": Kind.WRITE,
    "/purveyor.v1.AdminService/RepairInstance": Kind.WRITE,
    "/purveyor.v1.AdminService/AdoptInstance": Kind.WRITE,
    "/purveyor.v1.AdminService/ValidateCatalog": Kind.READ,
    "/purveyor.v1.AdminService/DiffCatalog": Kind.READ,
    "/purveyor.v1.AdminService/ApplyCatalog": Kind.WRITE,
    "/purveyor.v1.AdminService/ListCatalogs": Kind.READ,
    "/purveyor.v1.AdminService/GetCatalogVersion": Kind.READ,
    "/purveyor.v1.AdminService/ListPlatformOrphans": Kind.READ,
    "/purveyor.v1.BrokerService/SyncInventory": Kind.STREAM,
    "/purveyor.v1.BrokerService/ClaimInstance": Kind.WRITE,
}


def method_table(
    settings: RpcSettings, services: tuple[ServiceDescriptor, ...] = SERVICES, kinds: dict[str, Kind] = KINDS
) -> dict[str, Method]:
    """Full name -> method. Raises ValueError that names every method of `services` without a kind or a role."""
    descriptors = {_full_name(method): method for service in services for method in service.methods}
    missing = sorted(descriptors.keys() - kinds.keys())
    roleless = sorted(name for name, method in descriptors.items() if not _role(method))
    if missing or roleless:
        raise ValueError(f"methods without a kind: {missing}; without a required_role: {roleless}")
    return {name: _method(name, method, kinds[name], settings) for name, method in descriptors.items()}


def infra_method(name: str, settings: RpcSettings, *, streaming: bool) -> Method:
    """A method of health or reflection."""
    cap = None if streaming else settings.call_seconds
    return Method(name=name, kind=Kind.STREAM if streaming else Kind.READ, cap=cap, infra=True)


def _method(name: str, descriptor: MethodDescriptor, kind: Kind, settings: RpcSettings) -> Method:
    caps = {Kind.STREAM: None, Kind.WAIT: settings.wait_seconds}
    waits = "wait" in descriptor.input_type.fields_by_name
    return Method(
        name=name,
        kind=kind,
        role=_role(descriptor),
        idempotency=_idempotency(descriptor),
        cap=caps.get(kind, settings.call_seconds),
        wait_cap=settings.wait_seconds if waits else None,
    )


def _full_name(method: MethodDescriptor) -> str:
    return f"/{method.containing_service.full_name}/{method.name}"


def _role(method: MethodDescriptor) -> str:
    """The role without its prefix; "" when the method carries none."""
    number = method.GetOptions().Extensions[options_pb2.required_role]
    return "" if number == 0 else options_pb2.Role.Name(number).removeprefix("ROLE_")


def _idempotency(method: MethodDescriptor) -> str:
    return MethodOptions.IdempotencyLevel.Name(method.GetOptions().idempotency_level)
