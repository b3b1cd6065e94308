"""BrokerService: decode, one use-case, encode.

Guarantee: no rule of the business lives here; whatever a use-case raises goes to the error boundary untouched.
"""

# ruff: noqa: ARG002 - grpc hands a context to every handler; what they need of it is in the call

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from datetime import timedelta
from typing import Any, TypeVar

from google.protobuf.message import Message
from msgspec.structs import replace

from purveyor.v1 import broker_service_pb2 as pb
from purveyor.v1 import broker_service_pb2_grpc, inventory_pb2, operation_pb2
from purveyor_server.domain.model import Binding, Instance, Operation
from purveyor_server.domain.names import check_tenant
from purveyor_server.domain.principal import Role
from purveyor_server.lifecycle.contract import ZERO, Caller, OperationDetails, Outcome, Planned
from purveyor_server.rpc.calls import current_call, current_caller
from purveyor_server.rpc.convert import requests
from purveyor_server.rpc.convert.binding import encode_binding, encode_credentials
from purveyor_server.rpc.convert.catalog import encode_catalog
from purveyor_server.rpc.convert.event import assemble
from purveyor_server.rpc.convert.instance import encode_instance
from purveyor_server.rpc.convert.inventory import decode_parts, encode_taken
from purveyor_server.rpc.convert.operation import encode_operation
from purveyor_server.rpc.interceptors.messages import too_large
from purveyor_server.rpc.settings import RpcSettings
from purveyor_server.rpc.usecases import UseCases

Answer = TypeVar("Answer", bound=Message)


class BrokerService(broker_service_pb2_grpc.BrokerServiceServicer):
    """The service of consumers and platforms."""

    def __init__(self, use_cases: UseCases, settings: RpcSettings) -> None:
        self._use_cases = use_cases
        self._send_bytes = settings.send_bytes
        self._heartbeat = timedelta(seconds=settings.heartbeat_seconds)
        self._shortest = timedelta(seconds=settings.min_heartbeat_seconds)
        self._longest = timedelta(seconds=settings.max_heartbeat_seconds)
        self._wait = timedelta(seconds=settings.wait_seconds)

    async def GetCatalog(self, request: pb.GetCatalogRequest, context: Any) -> pb.GetCatalogResponse:
        catalog = await self._use_cases.get_catalog(current_caller(), request.tenant)
        return self._bounded(pb.GetCatalogResponse(catalog=encode_catalog(catalog)))

    async def Provision(self, request: pb.ProvisionRequest, context: Any) -> pb.ProvisionResponse:
        caller = current_caller()
        outcome = await self._use_cases.provision(caller, requests.decode_provision(request))
        return pb.ProvisionResponse(**_instance_outcome(caller, outcome))

    async def UpdateInstance(self, request: pb.UpdateInstanceRequest, context: Any) -> pb.UpdateInstanceResponse:
        caller = current_caller()
        outcome = await self._use_cases.update(caller, requests.decode_update(request))
        return pb.UpdateInstanceResponse(**_instance_outcome(caller, outcome))

    async def Deprovision(self, request: pb.DeprovisionRequest, context: Any) -> pb.DeprovisionResponse:
        caller = current_caller()
        outcome = await self._use_cases.deprovision(caller, requests.decode_deprovision(request))
        return pb.DeprovisionResponse(**_instance_outcome(caller, outcome))

    async def GetInstance(  # type: ignore[override] # the answer is encoded already
        self, request: pb.GetInstanceRequest, context: Any
    ) -> bytes:
        caller = current_caller()
        encode = _view_for_operator if caller.operates else _view
        return await self._use_cases.view_instance(
            caller, request.tenant, request.instance_id, encode, show_deleted=request.show_deleted
        )

    async def ListInstances(self, request: pb.ListInstancesRequest, context: Any) -> pb.ListInstancesResponse:
        caller = current_caller()
        page = await self._use_cases.list_instances(caller, requests.decode_listing(request))
        newest = await self._newest(caller, page.items)
        instances = [encode_instance(instance, newest.get(instance.last_operation)) for instance in page.items]
        return self._bounded(pb.ListInstancesResponse(instances=instances, next_page_token=page.next_page_token))

    async def Bind(self, request: pb.BindRequest, context: Any) -> pb.BindResponse:
        caller = current_caller()
        outcome = await self._use_cases.bind(caller, requests.decode_bind(request))
        credentials = encode_credentials(outcome.credentials)
        return pb.BindResponse(**_binding_outcome(caller, outcome), credentials=credentials)

    async def RenewBinding(self, request: pb.RenewBindingRequest, context: Any) -> pb.RenewBindingResponse:
        caller = current_caller()
        outcome = await self._use_cases.renew(caller, requests.decode_renew(request))
        return pb.RenewBindingResponse(**_binding_outcome(caller, outcome))

    async def RotateBinding(self, request: pb.RotateBindingRequest, context: Any) -> pb.RotateBindingResponse:
        caller = current_caller()
        outcome = await self._use_cases.rotate(caller, requests.decode_rotate(request))
        credentials = encode_credentials(outcome.credentials)
        return pb.RotateBindingResponse(**_binding_outcome(caller, outcome), credentials=credentials)

    async def Unbind(self, request: pb.UnbindRequest, context: Any) -> pb.UnbindResponse:
        caller = current_caller()
        outcome = await self._use_cases.unbind(caller, requests.decode_unbind(request))
        return pb.UnbindResponse(**_binding_outcome(caller, outcome))

    async def GetBinding(self, request: pb.GetBindingRequest, context: Any) -> pb.GetBindingResponse:
        caller = current_caller()
        binding = await self._use_cases.get_binding(
            caller, request.tenant, request.instance_id, request.binding_id, show_deleted=request.show_deleted
        )
        newest = await self._newest(caller, (binding,))
        return pb.GetBindingResponse(binding=encode_binding(binding, newest.get(binding.last_operation)))

    async def ListBindings(self, request: pb.ListBindingsRequest, context: Any) -> pb.ListBindingsResponse:
        caller = current_caller()
        page = await self._use_cases.list_bindings(caller, requests.decode_listing(request))
        newest = await self._newest(caller, page.items)
        bindings = [encode_binding(binding, newest.get(binding.last_operation)) for binding in page.items]
        return self._bounded(pb.ListBindingsResponse(bindings=bindings, next_page_token=page.next_page_token))

    async def GetCredentials(self, request: pb.GetCredentialsRequest, context: Any) -> pb.GetCredentialsResponse:
        caller = current_caller()
        named = (request.tenant, request.instance_id, request.binding_id)
        values = await self._use_cases.get_credentials(caller, *named)
        binding = (
            await self._use_cases.get_binding(caller, *named)
            if Role.VIEWER in caller.roles_in(request.tenant)
            else None
        )
        encoded = None if binding is None else encode_binding(binding)
        return pb.GetCredentialsResponse(credentials=encode_credentials(values), binding=encoded)

    async def GetOperation(self, request: pb.GetOperationRequest, context: Any) -> pb.GetOperationResponse:
        caller = _of_tenant(request.tenant)
        details = await self._use_cases.get_operation(caller, request.operation_id, requests.wants_full(request.view))
        return pb.GetOperationResponse(operation=_details(caller, details))

    async def ListOperations(self, request: pb.ListOperationsRequest, context: Any) -> pb.ListOperationsResponse:
        caller = current_caller()
        page = await self._use_cases.list_operations(caller, requests.decode_listing(request))
        operations = [_details(caller, details) for details in page.items]
        return self._bounded(pb.ListOperationsResponse(operations=operations, next_page_token=page.next_page_token))

    async def WaitOperation(self, request: pb.WaitOperationRequest, context: Any) -> pb.WaitOperationResponse:
        caller = _of_tenant(request.tenant)
        timeout = requests.span(request, "timeout", self._wait)
        details = await self._use_cases.wait_operation(
            caller, request.operation_id, timeout, requests.wants_full(request.view)
        )
        return pb.WaitOperationResponse(operation=_details(caller, details))

    async def CancelOperation(self, request: pb.CancelOperationRequest, context: Any) -> pb.CancelOperationResponse:
        caller = _of_tenant(request.tenant)
        details = await self._use_cases.cancel_operation(
            caller,
            request.operation_id,
            etag=request.etag,
            wait=requests.span(request, "wait", ZERO),
            validate_only=request.validate_only,
            request_id=request.request_id,
        )
        return pb.CancelOperationResponse(operation=_details(caller, details))

    # Written by hand rather than as a generator: each write is bounded by the call's write time-out.
    async def WatchOperation(  # type: ignore[override] # grpc.aio serves both forms; the stub knows generators only
        self, request: pb.WatchOperationRequest, context: Any
    ) -> None:
        call, caller = current_call(), _of_tenant(request.tenant)
        full = requests.wants_full(request.view)
        heartbeat = self._interval(request)
        async with aclosing(self._use_cases.watch_operation(caller, request.operation_id, full, heartbeat)) as newest:  # type: ignore[type-var] # a generator behind an iterator's type
            async for details, silent in newest:
                await call.write(pb.WatchOperationResponse(operation=_details(caller, details), heartbeat=silent))

    # As above. Its messages are put together from events that were encoded once for all.
    async def WatchEvents(  # type: ignore[override] # as above
        self, request: pb.WatchEventsRequest, context: Any
    ) -> None:
        call = current_call()
        call.farewell = True
        following = requests.decode_following(request, self._interval(request))
        async with aclosing(self._use_cases.watch_events(current_caller(), following)) as told:  # type: ignore[type-var] # as above
            async for message in told:
                await call.write(assemble(message))

    async def WatchCatalog(  # type: ignore[override] # as above
        self, request: pb.WatchCatalogRequest, context: Any
    ) -> None:
        call, interval = current_call(), self._interval(request)
        async with aclosing(self._use_cases.watch_catalog(current_caller(), request.tenant, interval)) as newest:  # type: ignore[type-var] # as above
            async for catalog in newest:
                encoded = None if catalog is None else encode_catalog(catalog)
                await call.write(self._bounded(pb.WatchCatalogResponse(catalog=encoded)))

    async def SyncInventory(
        self, request: AsyncIterator[inventory_pb2.SyncInventoryRequest], context: Any
    ) -> inventory_pb2.SyncInventoryResponse:
        async with aclosing(decode_parts(request)) as parts:
            return encode_taken(await self._use_cases.sync_inventory(current_caller(), parts))

    async def ClaimInstance(
        self, request: inventory_pb2.ClaimInstanceRequest, context: Any
    ) -> inventory_pb2.ClaimInstanceResponse:
        instance, left = await self._use_cases.claim_instance(
            current_caller(),
            request.tenant,
            request.instance_id,
            request.request_id,
            validate_only=request.validate_only,
        )
        return inventory_pb2.ClaimInstanceResponse(instance=encode_instance(instance), claims_left=left)

    def _interval(self, request: Message) -> timedelta:
        """The heartbeat interval that is asked for, within its bounds."""
        return min(max(requests.span(request, "heartbeat_interval", self._heartbeat), self._shortest), self._longest)

    async def _newest(
        self, caller: Caller, records: Sequence[Instance | Binding]
    ) -> dict[str, operation_pb2.Operation]:
        newest = await self._use_cases.newest_operations(caller, records)
        for_operator = caller.operates
        return {name: encode_operation(operation, for_operator=for_operator) for name, operation in newest.items()}

    def _bounded(self, answer: Answer) -> Answer:
        """`answer`, unless the transport would refuse it without a reason."""
        if answer.ByteSize() > self._send_bytes:
            raise too_large("answer", self._send_bytes)
        return answer


def _view(instance: Instance, last: Operation | None, *, for_operator: bool = False) -> bytes:
    newest = None if last is None else encode_operation(last, for_operator=for_operator)
    return pb.GetInstanceResponse(instance=encode_instance(instance, newest)).SerializeToString()


def _view_for_operator(instance: Instance, last: Operation | None) -> bytes:
    return _view(instance, last, for_operator=True)


def _of_tenant(tenant: str) -> Caller:
    """The caller, narrowed to the tenant that the request names: an operation of another tenant is not found."""
    return replace(current_caller(), only=check_tenant(tenant))


def _details(caller: Caller, details: OperationDetails) -> operation_pb2.Operation:
    return encode_operation(details.operation, details.steps, for_operator=caller.operates)


def _encoded(
    caller: Caller, operation: Operation | None, planned: tuple[Planned, ...]
) -> operation_pb2.Operation | None:
    if operation is None:
        return None
    return encode_operation(operation, planned=planned, for_operator=caller.operates)


def _outcome(caller: Caller, outcome: Outcome) -> tuple[dict[str, Any], operation_pb2.Operation | None]:
    """The parts that every answer has, and the newest operation of its resource."""
    operation = _encoded(caller, outcome.operation, outcome.planned)
    parts = {"operation": operation, "replayed": outcome.replayed}
    return parts, _encoded(caller, outcome.last_operation, ()) or operation


def _instance_outcome(caller: Caller, outcome: Outcome) -> dict[str, Any]:
    parts, last = _outcome(caller, outcome)
    return parts | {"instance": None if outcome.instance is None else encode_instance(outcome.instance, last)}


def _binding_outcome(caller: Caller, outcome: Outcome) -> dict[str, Any]:
    parts, last = _outcome(caller, outcome)
    return parts | {"binding": None if outcome.binding is None else encode_binding(outcome.binding, last)}
