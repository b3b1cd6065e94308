"""The public surface as a user's type checker sees it; `mypy` runs over this file, nothing runs it."""

from __future__ import annotations

from datetime import timedelta
from typing import assert_type

from purveyor import (
    ActiveBinding,
    Binding,
    Catalog,
    Client,
    Credentials,
    Failure,
    Instance,
    OperationFailedError,
    OperationHandle,
    OperationStatus,
)


async def order() -> str:
    """Every method with the type that it promises."""
    async with Client("unix:/run/purveyor/broker.sock", tenant="team-a", timeout=timedelta(seconds=10)) as client:
        assert_type(client, Client)
        assert_type(await client.catalog(), Catalog)
        parameters = {"extensions": ["citext"]}
        provision = await client.provision("postgresql", "shared-small", parameters=parameters, wait=5)
        assert_type(provision, OperationHandle[Instance])
        async for status in provision:
            assert_type(status, OperationStatus)
        instance = await provision.result(timeout=timedelta(minutes=5))
        assert_type(instance, Instance)
        bound = await (await client.bind(instance.instance_id, ttl=timedelta(hours=1))).result()
        assert_type(bound, ActiveBinding)
        assert_type(bound.credentials, Credentials)
        assert_type(await client.credentials(instance.instance_id, bound.binding_id), Credentials)
        assert_type(await client.binding(instance.instance_id, bound.binding_id), Binding)
        assert_type([item async for item in client.instances("state = READY")], list[Instance])
        assert_type([item async for item in client.bindings(instance.instance_id)], list[Binding])
        assert_type([item async for item in client.operations()], list[OperationStatus])
        assert_type(await client.update(instance.instance_id, plan="shared-large"), OperationHandle[Instance])
        gone = await client.unbind(instance.instance_id, bound.binding_id)
        assert_type(await gone.result(), Binding | None)
        assert_type(await client.deprovision(instance.instance_id, cascade=True), OperationHandle[Instance | None])
        assert_type(await client.operation(provision.id), OperationHandle[Instance | Binding | None])
        assert_type(await client.cancel(provision.id), OperationStatus)
        assert_type(await provision.cancel(), OperationStatus)
        return bound.credentials.text("uri")


def explain(error: OperationFailedError) -> tuple[str, Failure | None, dict[str, str]]:
    """What an error carries."""
    return error.reason, error.failure, error.metadata
