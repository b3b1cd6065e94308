"""The blocking surface as a user's type checker sees it; `mypy` runs over this file, nothing runs it."""

from __future__ import annotations

from datetime import timedelta
from typing import assert_type

from purveyor import (
    ActiveBinding,
    Binding,
    Catalog,
    Credentials,
    Instance,
    OperationStatus,
    SyncAdminClient,
    SyncClient,
    SyncOperationHandle,
)
from purveyor.admin_values import AuditRecord, BrokerStatus, Freeze
from purveyor.blocking import BlockingIterator


def order() -> str:
    """Every method with the type that it promises."""
    with SyncClient("unix:/run/purveyor/broker.sock", tenant="team-a", timeout=timedelta(seconds=10)) as client:
        assert_type(client, SyncClient)
        assert_type(client.tenant, str)
        assert_type(client.catalog(), Catalog)
        provision = client.provision("postgresql", "shared-small", parameters={"extensions": ["citext"]}, wait=5)
        assert_type(provision, SyncOperationHandle[Instance])
        for status in provision:
            assert_type(status, OperationStatus)
        instance = provision.result(timeout=timedelta(minutes=5))
        assert_type(instance, Instance)
        bound = client.bind(instance.instance_id, ttl=timedelta(hours=1)).result()
        assert_type(bound, ActiveBinding)
        assert_type(bound.credentials, Credentials)
        assert_type(client.credentials(instance.instance_id, bound.binding_id), Credentials)
        assert_type(client.binding(instance.instance_id, bound.binding_id), Binding)
        assert_type(list(client.instances("state = READY")), list[Instance])
        with client.bindings(instance.instance_id) as bindings:
            assert_type(bindings, BlockingIterator[Binding])
        assert_type(client.update(instance.instance_id, plan="shared-large"), SyncOperationHandle[Instance])
        assert_type(client.unbind(instance.instance_id, bound.binding_id).result(), Binding | None)
        assert_type(client.deprovision(instance.instance_id), SyncOperationHandle[Instance | None])
        assert_type(client.operation(provision.id), SyncOperationHandle[Instance | Binding | None])
        assert_type(client.cancel(provision.id), OperationStatus)
        assert_type(provision.cancel(), OperationStatus)
        client.provision("postgresql", "x", wait="5")  # type: ignore[arg-type] # a wrong type is found
        return bound.credentials.text("uri")


def look() -> BrokerStatus:
    """The operators' one."""
    with SyncAdminClient() as admin:
        assert_type(admin.audit(), BlockingIterator[AuditRecord])
        assert_type(admin.thaw("all", "over"), tuple[Freeze | None, int])
        return admin.status()
