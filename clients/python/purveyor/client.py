"""The asyncio client.

Guarantee: every change carries a request id, made here unless given, and kept over every repetition: one call of a method
is at most one effect. A failure of a call is a typed `PurveyorError`; `error.request_id` sends the same change again.
Limit: one client belongs to one event loop.
"""

from __future__ import annotations

from contextlib import aclosing
from os import PathLike
from typing import TYPE_CHECKING
from uuid import uuid4

from purveyor import addresses, decode, encode, requests
from purveyor.catalogs import follow_catalog
from purveyor.connection import Limits
from purveyor.events import follow_events, question
from purveyor.inventories import InventoryCalls
from purveyor.leasing import LeaseCalls
from purveyor.lookup import Lookup
from purveyor.opened import OpenedClient
from purveyor.operations import OperationHandle
from purveyor.outcomes import Outcomes
from purveyor.pages import walk
from purveyor.places import FilePlace
from purveyor.v1 import broker_service_pb2 as messages
from purveyor.v1.operation_pb2 import OPERATION_VIEW_BASIC, OPERATION_VIEW_FULL

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable, Mapping

    from purveyor.credentials import Credentials
    from purveyor.places import EventPlace
    from purveyor.tls import Tls
    from purveyor.values import (
        ActiveBinding,
        Binding,
        Catalog,
        Event,
        EventKind,
        Instance,
        JsonInput,
        OperationStatus,
        Seconds,
    )


class Client(InventoryCalls, LeaseCalls, OpenedClient):
    """`async with Client("unix:/path", tenant="team-a") as client:`

    `address`: `unix:/path` or `host:port`; None = PURVEYOR_ADDRESS, else the socket of `purveyor serve --dev`. `timeout`,
    `retry_for`, `outage_limit`: seconds; see `connection.Limits`. `tls`: True for the authorities of the
    machine, False for a plain connection; None = PURVEYOR_TLS_*, else plain.
    `token`, `token_file`: who calls, sent over TLS, unix sockets and loopback alone; the file is read again when it changes;
    without both PURVEYOR_TOKEN, else PURVEYOR_TOKEN_FILE. Raises InvalidRequestError for a bad address.
    """

    address: str
    tenant: str
    _opening = "async with Client(...) as client:"

    def __init__(
        self,
        address: str | None = None,
        *,
        tenant: str = "default",
        tls: Tls | bool | None = None,
        token: str | None = None,
        token_file: str | PathLike[str] | None = None,
        timeout: Seconds = 30.0,
        retry_for: Seconds = 15.0,
        outage_limit: Seconds = 300.0,
    ) -> None:
        limits = Limits(
            call=encode.seconds("timeout", timeout) or 0.0,
            retry=encode.seconds("retry_for", retry_for) or 0.0,
            outage=encode.seconds("outage_limit", outage_limit) or 0.0,
        )
        super().__init__(addresses.resolve(address), limits, tls, token, token_file)
        self.tenant = tenant
        self._lookup = Lookup(self.catalog)
        self._outcomes = Outcomes(self)

    async def catalog(self) -> Catalog:
        """What may be ordered."""
        request = encode.request(messages.GetCatalogRequest, tenant=self.tenant)
        return decode.catalog((await self.connection.call(self.connection.stub.GetCatalog, request)).catalog)

    async def catalogs(self) -> AsyncGenerator[Catalog, None]:
        """What may be ordered, and again whenever it has changed, over restarts of the broker; never ends by itself."""
        async with aclosing(follow_catalog(self.connection, self.tenant)) as found:
            async for catalog in found:
                yield catalog

    async def provision(
        self,
        service: str,
        plan: str,
        *,
        instance_id: str | None = None,
        parameters: Mapping[str, JsonInput] | None = None,
        labels: Mapping[str, str] | None = None,
        context: Mapping[str, JsonInput] | None = None,
        maintenance_version: str | None = None,
        request_id: str | None = None,
        wait: Seconds | None = None,
        validate_only: bool = False,
    ) -> OperationHandle[Instance]:
        """Order an instance; its operation is stored on the server before this returns.

        `service`, `plan`: id or name. `instance_id`: None = a fresh UUID. `wait`: seconds that the server may wait for the
        end before it answers. The same id with the same request again never makes a second instance.
        Raises NotFoundError (service, plan), InvalidRequestError, AlreadyExistsError, AbortedError and the common ones.
        """
        service_id, plan_id = await self._lookup.plan(service, plan)
        request = encode.request(
            messages.ProvisionRequest,
            tenant=self.tenant,
            instance_id=str(uuid4()) if instance_id is None else instance_id,
            service_id=service_id,
            plan_id=plan_id,
            parameters=encode.struct("parameters", parameters),
            context=encode.struct("context", context),
            labels=labels,
            maintenance_info=requests.maintenance(maintenance_version),
            request_id=request_id or str(uuid4()),
            validate_only=validate_only,
            wait=encode.duration("wait", wait),
        )
        answer = await self._change(self.connection.stub.Provision, request, wait)
        return self._outcomes.provisioned(answer)

    async def update(
        self,
        instance_id: str,
        *,
        plan: str | None = None,
        parameters: Mapping[str, JsonInput] | None = None,
        labels: Mapping[str, str] | None = None,
        context: Mapping[str, JsonInput] | None = None,
        deletion_protected: bool | None = None,
        maintenance_version: str | None = None,
        etag: str = "",
        request_id: str | None = None,
        wait: Seconds | None = None,
        validate_only: bool = False,
    ) -> OperationHandle[Instance]:
        """Change an instance; None means unchanged. `parameters` are merged at the top level, None removes a key; `labels`
        replace the old ones whole, `{}` clears them. `plan`: id or name.
        """
        plan_id = (
            None if plan is None else await self._lookup.plan_of((await self.instance(instance_id)).service_id, plan)
        )
        request = encode.request(
            messages.UpdateInstanceRequest,
            tenant=self.tenant,
            instance_id=instance_id,
            plan_id=plan_id,
            parameters=encode.struct("parameters", parameters),
            context=encode.struct("context", context),
            labels=labels,
            deletion_protected=deletion_protected,
            maintenance_info=requests.maintenance(maintenance_version),
            etag=etag,
            request_id=request_id or str(uuid4()),
            validate_only=validate_only,
            wait=encode.duration("wait", wait),
        )
        if labels is not None and not labels:
            request.update_mask.CopyFrom(requests.mask_with_cleared_labels(request))
        return self._outcomes.updated(await self._change(self.connection.stub.UpdateInstance, request, wait))

    async def deprovision(
        self,
        instance_id: str,
        *,
        cascade: bool = False,
        allow_missing: bool = False,
        etag: str = "",
        request_id: str | None = None,
        wait: Seconds | None = None,
        validate_only: bool = False,
    ) -> OperationHandle[Instance | None]:
        """Give an instance back. `cascade` unbinds its bindings first. The result is the tombstone, None if there was
        nothing (`allow_missing`) or the id is in use again.
        """
        request = encode.request(
            messages.DeprovisionRequest,
            tenant=self.tenant,
            instance_id=instance_id,
            cascade=cascade,
            allow_missing=allow_missing,
            etag=etag,
            request_id=request_id or str(uuid4()),
            validate_only=validate_only,
            wait=encode.duration("wait", wait),
        )
        return self._outcomes.gone_instance(await self._change(self.connection.stub.Deprovision, request, wait))

    async def bind(
        self,
        instance_id: str,
        *,
        binding_id: str | None = None,
        parameters: Mapping[str, JsonInput] | None = None,
        labels: Mapping[str, str] | None = None,
        context: Mapping[str, JsonInput] | None = None,
        app_guid: str = "",
        ttl: Seconds | None = None,
        request_id: str | None = None,
        wait: Seconds | None = None,
        validate_only: bool = False,
    ) -> OperationHandle[ActiveBinding]:
        """Make an access to an instance; the result carries its credentials.

        `binding_id`: None = a fresh UUID. `ttl`: seconds that the credentials shall work, enforced by the backend.
        """
        request = encode.request(
            messages.BindRequest,
            tenant=self.tenant,
            instance_id=instance_id,
            binding_id=str(uuid4()) if binding_id is None else binding_id,
            parameters=encode.struct("parameters", parameters),
            context=encode.struct("context", context),
            labels=labels,
            bind_resource=requests.bind_resource(app_guid),
            ttl=encode.duration("ttl", ttl),
            request_id=request_id or str(uuid4()),
            validate_only=validate_only,
            wait=encode.duration("wait", wait),
        )
        answer = await self._change(self.connection.stub.Bind, request, wait)
        return self._outcomes.active_binding(answer)

    async def unbind(
        self,
        instance_id: str,
        binding_id: str,
        *,
        allow_missing: bool = False,
        etag: str = "",
        request_id: str | None = None,
        wait: Seconds | None = None,
        validate_only: bool = False,
    ) -> OperationHandle[Binding | None]:
        """Take a binding's access away, open sessions included. The result is its tombstone; None as in `deprovision`."""
        request = encode.request(
            messages.UnbindRequest,
            tenant=self.tenant,
            instance_id=instance_id,
            binding_id=binding_id,
            allow_missing=allow_missing,
            etag=etag,
            request_id=request_id or str(uuid4()),
            validate_only=validate_only,
            wait=encode.duration("wait", wait),
        )
        return self._outcomes.gone_binding(await self._change(self.connection.stub.Unbind, request, wait))

    async def _change(
        self, method: requests.Method[requests.Q, requests.A], request: requests.Q, wait: Seconds | None
    ) -> requests.A:
        """One mutating call."""
        return await self.connection.call(
            method, request, wait=encode.seconds("wait", wait) or 0.0, request_id=request.request_id
        )

    async def instance(self, instance_id: str, *, show_deleted: bool = False) -> Instance:
        """One instance. Raises NotFoundError."""
        request = encode.request(
            messages.GetInstanceRequest, tenant=self.tenant, instance_id=instance_id, show_deleted=show_deleted
        )
        return decode.instance((await self.connection.call(self.connection.stub.GetInstance, request)).instance)

    async def instances(
        self,
        filter: str = "",  # noqa: A002 - the contract's word
        *,
        show_deleted: bool = False,
        page_size: int = 0,
    ) -> AsyncGenerator[Instance, None]:
        """The tenant's instances, oldest first, fetched page by page. `filter`: see `ListInstancesRequest`."""
        request = encode.request(
            messages.ListInstancesRequest,
            tenant=self.tenant,
            filter=filter,
            show_deleted=show_deleted,
            page_size=page_size,
        )
        async for page in walk(self.connection, self.connection.stub.ListInstances, request):
            for found in page.instances:
                yield decode.instance(found)

    async def binding(self, instance_id: str, binding_id: str, *, show_deleted: bool = False) -> Binding:
        """One binding, without credentials. Raises NotFoundError."""
        request = encode.request(
            messages.GetBindingRequest,
            tenant=self.tenant,
            instance_id=instance_id,
            binding_id=binding_id,
            show_deleted=show_deleted,
        )
        return decode.binding((await self.connection.call(self.connection.stub.GetBinding, request)).binding)

    async def bindings(
        self,
        instance_id: str = "",
        filter: str = "",  # noqa: A002 - the contract's word
        *,
        show_deleted: bool = False,
        page_size: int = 0,
    ) -> AsyncGenerator[Binding, None]:
        """The bindings of an instance, or of the whole tenant, oldest first, fetched page by page."""
        request = encode.request(
            messages.ListBindingsRequest,
            tenant=self.tenant,
            instance_id=instance_id,
            filter=filter,
            show_deleted=show_deleted,
            page_size=page_size,
        )
        async for page in walk(self.connection, self.connection.stub.ListBindings, request):
            for found in page.bindings:
                yield decode.binding(found)

    async def credentials(self, instance_id: str, binding_id: str) -> Credentials:
        """The credentials of an ACTIVE binding. Raises NotFoundError, FailedPreconditionError when it has none."""
        request = encode.request(
            messages.GetCredentialsRequest, tenant=self.tenant, instance_id=instance_id, binding_id=binding_id
        )
        answer = await self.connection.call(self.connection.stub.GetCredentials, request)
        return decode.credentials(answer.credentials)

    async def operation(self, operation_id: str, *, steps: bool = False) -> OperationHandle[Instance | Binding | None]:
        """A handle on an operation that was started elsewhere or earlier; `handle.status` is its present state."""
        view = OPERATION_VIEW_FULL if steps else OPERATION_VIEW_BASIC
        request = encode.request(messages.GetOperationRequest, tenant=self.tenant, operation_id=operation_id, view=view)
        answer = await self.connection.call(self.connection.stub.GetOperation, request)
        return self._outcomes.any(decode.operation(answer.operation))

    async def operations(
        self,
        filter: str = "",  # noqa: A002 - the contract's word
        *,
        steps: bool = False,
        page_size: int = 0,
    ) -> AsyncGenerator[OperationStatus, None]:
        """The tenant's operations, oldest first, fetched page by page. `filter`: see `ListOperationsRequest`."""
        view = OPERATION_VIEW_FULL if steps else OPERATION_VIEW_BASIC
        request = encode.request(
            messages.ListOperationsRequest, tenant=self.tenant, filter=filter, page_size=page_size, view=view
        )
        async for page in walk(self.connection, self.connection.stub.ListOperations, request):
            for found in page.operations:
                yield decode.operation(found)

    async def events(
        self,
        start: str = "now",
        *,
        kinds: Iterable[EventKind | str] = (),
        instance_id: str = "",
        place: str | PathLike[str] | EventPlace | None = None,
        follow: bool = True,
    ) -> AsyncGenerator[Event, None]:
        """The changes of the tenant's instances, bindings and operations, each once and in order, over restarts of the broker.

        `start`: "now", "earliest", "snapshot" (what is there, a SYNCED event, then changes), or a resume token. `kinds`,
        `instance_id`: only these. `place`: a file, or an `EventPlace`, that keeps the place over restarts of the reader;
        `start` counts only while it is empty. Without `follow`, ends with what is there. Raises EventsLostError when the
        events behind the place are no longer kept.
        """
        request = question(self.tenant, start, kinds, instance_id, self.connection.limits.heartbeat)
        kept = FilePlace(place) if isinstance(place, str | PathLike) else place
        async with aclosing(follow_events(self.connection, request, kept, follow=follow)) as found:
            async for event in found:
                yield event

    async def cancel(
        self,
        operation_id: str,
        *,
        etag: str = "",
        request_id: str | None = None,
        wait: Seconds | None = None,
        validate_only: bool = False,
    ) -> OperationStatus:
        """Ask an operation to stop and undo what it did. Raises FailedPreconditionError from its pivot on."""
        request = encode.request(
            messages.CancelOperationRequest,
            tenant=self.tenant,
            operation_id=operation_id,
            etag=etag,
            request_id=request_id or str(uuid4()),
            validate_only=validate_only,
            wait=encode.duration("wait", wait),
        )
        answer = await self._change(self.connection.stub.CancelOperation, request, wait)
        return decode.operation(answer.operation)
