"""From the answer to a change to a handle that knows how to fetch what the change ends with.

Guarantee: what `result()` returns belongs to the incarnation (uid) that the operation worked on, never to a later one that
took over its id.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from purveyor import decode
from purveyor.errors import NotFoundError
from purveyor.operations import OperationHandle
from purveyor.values import OperationState, OperationStatus, Verb

if TYPE_CHECKING:
    from purveyor.client import Client
    from purveyor.v1 import broker_service_pb2 as messages
    from purveyor.values import ActiveBinding, Binding, Instance

NOTHING_TO_DO = OperationStatus(operation_id="", state=OperationState.SUCCEEDED, done=True, percent=100.0)


Answer: TypeAlias = (
    "messages.DeprovisionResponse | messages.UnbindResponse | messages.BindResponse | messages.RenewBindingResponse"
    " | messages.RotateBindingResponse"
)


def _status(answer: Answer) -> OperationStatus:
    return decode.operation(answer.operation) if answer.HasField("operation") else NOTHING_TO_DO


class Outcomes:
    """Makes handles for one client."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def provisioned(self, answer: messages.ProvisionResponse) -> OperationHandle[Instance]:
        """Ends with the instance."""
        status = decode.operation(answer.operation)
        return OperationHandle(self._client, status, self._live_instance, replayed=answer.replayed)

    def updated(self, answer: messages.UpdateInstanceResponse) -> OperationHandle[Instance]:
        """Ends with the instance."""
        status = decode.operation(answer.operation)
        return OperationHandle(self._client, status, self._live_instance, replayed=answer.replayed)

    def gone_instance(self, answer: messages.DeprovisionResponse) -> OperationHandle[Instance | None]:
        """Ends with the instance's tombstone."""
        return OperationHandle(self._client, _status(answer), self._old_instance, replayed=answer.replayed)

    def active_binding(
        self, answer: messages.BindResponse | messages.RotateBindingResponse
    ) -> OperationHandle[ActiveBinding]:
        """Ends with the binding and its credentials: those of the answer if it had them, else they are asked for."""

        async def fetch(status: OperationStatus) -> ActiveBinding:
            if answer.HasField("credentials"):
                return decode.active(decode.binding(answer.binding), decode.credentials(answer.credentials))
            return await self._with_credentials(decode.binding(answer.binding), status)

        return OperationHandle(self._client, _status(answer), fetch, replayed=answer.replayed)

    def renewed(self, answer: messages.RenewBindingResponse) -> OperationHandle[Binding]:
        """Ends with the binding; it is in the answer when there was nothing to do."""

        async def fetch(status: OperationStatus) -> Binding:
            if not status.operation_id:
                return decode.binding(answer.binding)
            return await self._live_binding(status)

        return OperationHandle(self._client, _status(answer), fetch, replayed=answer.replayed)

    def gone_binding(self, answer: messages.UnbindResponse) -> OperationHandle[Binding | None]:
        """Ends with the binding's tombstone."""
        return OperationHandle(self._client, _status(answer), self._old_binding, replayed=answer.replayed)

    def any(self, status: OperationStatus) -> OperationHandle[Instance | Binding | None]:
        """Ends with what the operation works on, live or a tombstone."""
        return OperationHandle(self._client, status, self._anything)

    async def _live_instance(self, status: OperationStatus) -> Instance:
        found = await self._client.instance(status.instance_id)
        if found.uid != status.instance_uid:
            raise _replaced("instance", status.instance_id)
        return found

    async def _live_binding(self, status: OperationStatus) -> Binding:
        found = await self._client.binding(status.instance_id, status.binding_id)
        if found.uid != status.binding_uid:
            raise _replaced("binding", status.binding_id)
        return found

    async def _with_credentials(self, known: Binding | None, status: OperationStatus) -> ActiveBinding:
        """Of the binding that the operation works on; without one, of the `known` one."""
        instance_id, binding_id, uid = status.instance_id, status.binding_id, status.binding_uid
        if known is not None and not status.operation_id:
            instance_id, binding_id, uid = known.instance_id, known.binding_id, known.uid
        found = await self._client.binding(instance_id, binding_id)
        secret = await self._client.credentials(instance_id, binding_id)
        if found.uid != uid:
            raise _replaced("binding", binding_id)
        return decode.active(found, secret)

    async def _old_instance(self, status: OperationStatus) -> Instance | None:
        if not status.instance_id:
            return None
        try:
            found = await self._client.instance(status.instance_id, show_deleted=True)
        except NotFoundError:
            return None
        return found if found.uid == status.instance_uid else None

    async def _old_binding(self, status: OperationStatus) -> Binding | None:
        if not status.binding_id:
            return None
        try:
            found = await self._client.binding(status.instance_id, status.binding_id, show_deleted=True)
        except NotFoundError:
            return None
        return found if found.uid == status.binding_uid else None

    async def _anything(self, status: OperationStatus) -> Instance | Binding | None:
        if status.verb == Verb.BIND:
            return await self._with_credentials(None, status)
        return await (self._old_binding(status) if status.binding_id else self._old_instance(status))


def _replaced(kind: str, name: str) -> NotFoundError:
    return NotFoundError(
        f"{kind} {name} was given back, and its id is in use again", reason=f"{kind.upper()}_NOT_FOUND"
    )
