"""The use-cases as this face calls them; `lifecycle.Lifecycle` has this shape."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from datetime import timedelta
from typing import Protocol

from purveyor_server.domain.catalog import Catalog
from purveyor_server.domain.model import Binding, Instance, Json, Operation
from purveyor_server.lifecycle.contract import (
    ZERO,
    Bind,
    Caller,
    Deprovision,
    Following,
    Listing,
    OperationDetails,
    Outcome,
    PageOf,
    Provision,
    Renew,
    Rotate,
    Told,
    Unbind,
    Update,
)
from purveyor_server.lifecycle.inventories import Part, Taken


class UseCases(Protocol):
    """One method per use-case; each raises `PurveyorError` with a reason and nothing else on purpose."""

    async def get_catalog(self, caller: Caller, tenant: str) -> Catalog: ...
    def watch_catalog(self, caller: Caller, tenant: str, heartbeat: timedelta) -> AsyncIterator[Catalog | None]: ...
    async def provision(self, caller: Caller, request: Provision) -> Outcome: ...
    async def update(self, caller: Caller, request: Update) -> Outcome: ...
    async def deprovision(self, caller: Caller, request: Deprovision) -> Outcome: ...
    async def bind(self, caller: Caller, request: Bind) -> Outcome: ...
    async def unbind(self, caller: Caller, request: Unbind) -> Outcome: ...
    async def renew(self, caller: Caller, request: Renew) -> Outcome: ...
    async def rotate(self, caller: Caller, request: Rotate) -> Outcome: ...
    async def view_instance(
        self,
        caller: Caller,
        tenant: str,
        instance_id: str,
        encode: Callable[[Instance, Operation | None], bytes],
        *,
        show_deleted: bool = False,
    ) -> bytes: ...
    async def list_instances(self, caller: Caller, listing: Listing) -> PageOf: ...
    async def sync_inventory(self, caller: Caller, stream: AsyncIterator[Part]) -> Taken: ...
    async def claim_instance(
        self, caller: Caller, tenant: str, instance_id: str, request_id: str = "", *, validate_only: bool = False
    ) -> tuple[Instance, int]: ...
    async def get_binding(
        self, caller: Caller, tenant: str, instance_id: str, binding_id: str, *, show_deleted: bool = False
    ) -> Binding: ...
    async def list_bindings(self, caller: Caller, listing: Listing) -> PageOf: ...
    async def newest_operations(
        self, caller: Caller, records: Sequence[Instance | Binding]
    ) -> dict[str, Operation]: ...
    async def get_credentials(
        self, caller: Caller, tenant: str, instance_id: str, binding_id: str
    ) -> dict[str, Json]: ...
    async def get_operation(self, caller: Caller, operation_id: str, full: bool = False) -> OperationDetails: ...  # noqa: FBT001, FBT002 - the shape of the lifecycle
    async def list_operations(self, caller: Caller, listing: Listing) -> PageOf: ...
    async def wait_operation(
        self,
        caller: Caller,
        operation_id: str,
        timeout: timedelta,  # noqa: ASYNC109 - how long the caller wants to wait
        full: bool = False,  # noqa: FBT001, FBT002 - the shape of the lifecycle
    ) -> OperationDetails: ...
    async def cancel_operation(
        self,
        caller: Caller,
        operation_id: str,
        *,
        etag: str = "",
        wait: timedelta = ZERO,
        validate_only: bool = False,
        request_id: str = "",
    ) -> OperationDetails: ...
    def watch_operation(
        self,
        caller: Caller,
        operation_id: str,
        full: bool = False,  # noqa: FBT001, FBT002 - the shape of the lifecycle
        heartbeat: timedelta = ZERO,
    ) -> AsyncIterator[tuple[OperationDetails, bool]]: ...
    def watch_events(self, caller: Caller, request: Following) -> AsyncIterator[Told]: ...
