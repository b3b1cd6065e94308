"""Who may enter, what is checked before anything is looked up, and what the door answers around the rules."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from purveyor.v1 import admin_service_pb2, broker_service_pb2, options_pb2
from purveyor_server.domain.catalog import Visibility
from purveyor_server.domain.errors import PurveyorError, Reason
from purveyor_server.domain.etags import etag_of
from purveyor_server.domain.model import Identity, MaintenanceInfo
from purveyor_server.domain.principal import EVERY_ROLE
from purveyor_server.domain.states import BindingState, OperationState
from purveyor_server.lifecycle.contract import Listing
from purveyor_server.lifecycle.door import (
    ADMIN_ACTIONS,
    MAKING,
    OPERATION_ACTIONS,
    OPERATOR_ACTIONS,
    ROLES,
    Action,
    Door,
)
from purveyor_server.providers.registry import ProviderMissingError
from purveyor_server.store.contract import SYSTEM, Accept, Decision, Page, Situation
from tests.fakes.broker import CREDENTIALS, Broker, bind, deprovision, open_broker, provision, unbind, update
from tests.fakes.situations import INSTANCE, LOCAL, TENANT, catalog, plan, somebody

OTHER = somebody(subject="other", tenants=frozenset({"others"}))
VIEWER = somebody(subject="viewer", roles=frozenset({"VIEWER"}))


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Broker]:
    async with open_broker(tmp_path) as opened:
        yield opened


async def reason(call: Any) -> PurveyorError:
    with pytest.raises(PurveyorError) as refused:
        await call
    return refused.value


async def ready(lab: Broker, **changes: Any) -> None:
    await lab.end((await lab.door.provision(LOCAL, provision(**changes))).operation)


async def bound(lab: Broker) -> None:
    await ready(lab)
    await lab.end((await lab.door.bind(LOCAL, bind())).operation)


def test_roles_are_those_of_the_contract() -> None:
    services = [
        broker_service_pb2.DESCRIPTOR.services_by_name["BrokerService"],
        admin_service_pb2.DESCRIPTOR.services_by_name["AdminService"],
    ]
    declared = {
        m.name: options_pb2.Role.Name(m.GetOptions().Extensions[options_pb2.required_role])
        for service in services
        for m in service.methods
    }
    assert {str(action) for action in Action} == set(declared)
    for action, roles in ROLES.items():
        assert declared[action].removeprefix("ROLE_") in roles
    assert {name.removeprefix("ROLE_") for name in options_pb2.Role.keys()} - {"UNSPECIFIED"} == EVERY_ROLE  # noqa: SIM118 - an enum wrapper


async def test_a_viewer_changes_nothing(lab: Broker) -> None:
    await bound(lab)
    for call in (
        lab.door.provision(VIEWER, provision("new")),
        lab.door.update(VIEWER, update(parameters={})),
        lab.door.deprovision(VIEWER, deprovision()),
        lab.door.bind(VIEWER, bind()),
        lab.door.unbind(VIEWER, unbind()),
        lab.door.get_credentials(VIEWER, TENANT, INSTANCE, "app"),
        lab.door.cancel_operation(VIEWER, "any"),
    ):
        assert (await reason(call)).reason is Reason.PERMISSION_DENIED
    assert (await lab.door.get_instance(VIEWER, TENANT, INSTANCE)).usable


async def test_another_tenant_cannot_tell_what_exists(lab: Broker) -> None:
    await ready(lab)
    found = [await reason(lab.door.get_instance(OTHER, TENANT, name)) for name in (INSTANCE, "nothing-here")] + [
        await reason(lab.door.deprovision(OTHER, deprovision(name))) for name in (INSTANCE, "nothing-here")
    ]
    assert {(error.reason, error.message) for error in found} == {
        (Reason.PERMISSION_DENIED, f"GetInstance needs the role VIEWER in the tenant {TENANT!r}"),
        (Reason.PERMISSION_DENIED, f"Deprovision needs the role CONSUMER in the tenant {TENANT!r}"),
    }
    listed = await lab.door.list_operations(LOCAL, Listing(tenant=TENANT))
    known = listed.items[0].operation.operation_id
    errors = [await reason(lab.door.get_operation(OTHER, name)) for name in (known, known[:-1] + "0")]
    assert {error.reason for error in errors} == {Reason.OPERATION_NOT_FOUND}


async def test_speaking_for_somebody_needs_a_platform(lab: Broker) -> None:
    plain = somebody(roles=EVERY_ROLE - {"PLATFORM"})
    sent = provision(originating_identity=Identity("cloudfoundry", {"user_id": "u"}))
    assert (await reason(lab.door.provision(plain, sent))).reason is Reason.PERMISSION_DENIED
    made = await lab.door.provision(LOCAL, sent)
    assert made.instance is not None
    assert made.instance.originating_identity == sent.originating_identity


async def test_draining_refuses_writes_and_goes_on_reading(lab: Broker) -> None:
    await bound(lab)
    lab.door.drain()
    refused = await reason(lab.door.provision(LOCAL, provision("new")))
    assert (refused.reason, refused.retry_after) == (Reason.DRAINING, 1.0)
    assert (await lab.door.get_credentials(LOCAL, TENANT, INSTANCE, "app")) == CREDENTIALS


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"tenant": "No"}, "tenant"),
        ({"instance_id": "a/b"}, "instance_id"),
        ({"service_id": ""}, "service_id"),
        ({"plan_id": "a b"}, "plan_id"),
        ({"request_id": "a b"}, "request_id"),
        ({"wait": timedelta(seconds=-1)}, "wait"),
        ({"labels": {"ä": "x"}}, "labels"),
        ({"labels": {"a": "x" * 256}}, "labels.a"),
        ({"labels": {f"k{n}": "" for n in range(65)}}, "labels"),
        ({"context": {"a": float("nan")}}, "context"),
        ({"originating_identity": Identity("")}, "originating_identity.platform"),
    ],
)
async def test_bad_requests_name_their_field(lab: Broker, changes: dict[str, Any], field: str) -> None:
    refused = await reason(lab.door.provision(LOCAL, provision(**changes)))
    assert refused.reason is Reason.INVALID_REQUEST
    assert refused.violations[0].field == field
    assert await lab.store.instances(SYSTEM, TENANT, (), Page(10)) == ()


async def test_ids_chosen_by_the_server_are_replayed_by_request_id(lab: Broker) -> None:
    first = await lab.door.provision(LOCAL, provision("", request_id="r"))
    again = await lab.door.provision(LOCAL, provision("", request_id="r"))
    assert first.instance is not None
    assert again.instance is not None
    assert (again.replayed, again.instance.uid) == (True, first.instance.uid)


async def test_unknown_service_plan_and_version(lab: Broker) -> None:
    for changes, expected in (
        ({"service_id": "nope"}, Reason.UNKNOWN_SERVICE),
        ({"plan_id": "nope"}, Reason.UNKNOWN_PLAN),
        ({"maintenance_info": MaintenanceInfo("9.9.9")}, Reason.MAINTENANCE_INFO_CONFLICT),
        ({"parameters": {"size": 0}}, Reason.INVALID_PARAMETERS),
    ):
        assert (await reason(lab.door.provision(LOCAL, provision(**changes)))).reason is expected


async def test_a_missing_provider_stops_new_work_only(lab: Broker) -> None:
    await bound(lab)
    lab.plans.missing = ProviderMissingError("gone")
    assert (await reason(lab.door.provision(LOCAL, provision("new")))).reason is Reason.WRONG_STATE
    assert (await reason(lab.door.bind(LOCAL, bind("new")))).reason is Reason.WRONG_STATE
    assert (await lab.door.unbind(LOCAL, unbind())).operation
    lab.plans.missing = None
    assert (await lab.door.bind(LOCAL, bind("new"))).operation


async def test_validate_only_checks_and_stores_nothing(lab: Broker) -> None:
    shown = await lab.door.provision(LOCAL, provision(validate_only=True, request_id="r"))
    assert shown.operation is not None
    assert (shown.operation.operation_id, shown.operation.instance_uid) == ("", "")
    assert shown.planned == (("provision-one", "ensure", False), ("provision-two", "ensure", True))
    assert (await reason(lab.door.get_instance(LOCAL, TENANT, INSTANCE))).reason is Reason.INSTANCE_NOT_FOUND
    bad = provision(validate_only=True, parameters={"size": 0})
    assert (await reason(lab.door.provision(LOCAL, bad))).reason is Reason.INVALID_PARAMETERS
    await ready(lab)
    for call, steps in (
        (lab.door.update(LOCAL, update(parameters={"size": 5}, validate_only=True)), "update-one"),
        (lab.door.bind(LOCAL, bind(validate_only=True)), "bind-one"),
        (lab.door.deprovision(LOCAL, deprovision(validate_only=True)), "deprovision-one"),
    ):
        outcome = await call
        assert outcome.planned[0].name == steps
        assert outcome.operation is not None
        assert outcome.operation.operation_id == ""
    listed = await lab.door.list_operations(LOCAL, Listing(tenant=TENANT))
    assert len(listed.items) == 1


async def test_update_of_plans(lab: Broker) -> None:
    await ready(lab)
    changed = await lab.door.update(LOCAL, update(plan_id="large"))
    assert changed.operation is not None
    assert changed.operation.want is not None
    assert changed.operation.want.plan_id == "large"
    await lab.end(changed.operation)
    lab.catalog.append(catalog(plan("small"), plan("large", plan_updateable=False)))
    assert (await reason(lab.door.update(LOCAL, update(plan_id="small")))).reason is Reason.PLAN_NOT_UPDATABLE
    assert (await reason(lab.door.update(LOCAL, update(plan_id="nope")))).reason is Reason.UNKNOWN_PLAN
    lab.plans.said = frozenset()
    assert (await reason(lab.door.update(LOCAL, update(parameters={"size": 3})))).reason is Reason.PLAN_NOT_UPDATABLE


async def test_context_changes_only_where_the_service_allows_it(lab: Broker) -> None:
    await ready(lab)
    assert (await reason(lab.door.update(LOCAL, update(context={"a": 1})))).violations[0].field == "context"
    lab.catalog.append(catalog(allow_context_updates=True))
    changed = await lab.door.update(LOCAL, update(context={"a": 1}, request_id="r"))
    assert changed.instance is not None
    assert changed.instance.context == {"a": 1}
    assert (await lab.door.update(LOCAL, update(context={"a": 1}, request_id="r"))).replayed


async def test_the_etag_of_what_was_read_opens_the_door_once(lab: Broker) -> None:
    await ready(lab)
    etag = etag_of(await lab.door.get_instance(LOCAL, TENANT, INSTANCE))
    await lab.door.update(LOCAL, update(labels={"a": "b"}, etag=etag))
    assert (await reason(lab.door.update(LOCAL, update(labels={"a": "c"}, etag=etag)))).reason is Reason.ETAG_MISMATCH


async def test_wait_ends_with_the_operation(lab: Broker) -> None:
    waiting = asyncio.create_task(lab.door.provision(LOCAL, provision(wait=timedelta(seconds=30))))
    await lab.accepted()
    listed = await lab.door.list_operations(LOCAL, Listing(tenant=TENANT))
    await lab.end(listed.items[0].operation)
    outcome = await waiting
    assert outcome.operation is not None
    assert outcome.operation.state is OperationState.SUCCEEDED
    assert outcome.instance is not None
    assert outcome.instance.usable


async def test_wait_is_cut_to_the_deadline_of_the_call(lab: Broker) -> None:
    hurried = replace(LOCAL, deadline=timedelta(milliseconds=260))
    outcome = await lab.door.provision(hurried, provision(wait=timedelta(hours=1)))
    assert outcome.operation is not None
    assert not outcome.operation.done
    details = await lab.door.wait_operation(
        replace(LOCAL, deadline=timedelta(0)), outcome.operation.operation_id, timedelta(hours=1)
    )
    assert not details.operation.done


async def test_credentials_live_with_the_active_binding(lab: Broker) -> None:
    await ready(lab)
    begun = await lab.door.bind(LOCAL, bind())
    assert begun.credentials is None
    early = await reason(lab.door.get_credentials(LOCAL, TENANT, INSTANCE, "app"))
    assert (early.reason, early.metadata["state"]) == (Reason.CREDENTIALS_NOT_AVAILABLE, "BINDING")
    await lab.end(begun.operation)
    assert (await lab.door.bind(LOCAL, bind())).credentials == CREDENTIALS
    assert await lab.door.get_credentials(LOCAL, TENANT, INSTANCE, "app") == CREDENTIALS
    await lab.door.unbind(LOCAL, unbind())
    late = await reason(lab.door.get_credentials(LOCAL, TENANT, INSTANCE, "app"))
    assert late.reason is Reason.CREDENTIALS_NOT_AVAILABLE


async def test_credentials_are_for_the_creator_and_for_readers(lab: Broker) -> None:
    await bound(lab)
    consumer = somebody(subject="colleague", roles=frozenset({"CONSUMER", "VIEWER"}))
    assert (
        await reason(lab.door.get_credentials(consumer, TENANT, INSTANCE, "app"))
    ).reason is Reason.PERMISSION_DENIED
    again = await lab.door.bind(consumer, bind())
    assert (again.replayed, again.credentials) == (True, None)
    creator = somebody(roles=frozenset({"CONSUMER", "VIEWER"}))
    assert await lab.door.get_credentials(creator, TENANT, INSTANCE, "app") == CREDENTIALS


async def test_tombstones_are_shown_when_asked_for(lab: Broker) -> None:
    await bound(lab)
    await lab.end((await lab.door.unbind(LOCAL, unbind())).operation)
    assert (await reason(lab.door.get_binding(LOCAL, TENANT, INSTANCE, "app"))).reason is Reason.BINDING_NOT_FOUND
    shown = await lab.door.get_binding(LOCAL, TENANT, INSTANCE, "app", show_deleted=True)
    assert shown.state is BindingState.DELETED
    await lab.end((await lab.door.deprovision(LOCAL, deprovision())).operation)
    assert (await reason(lab.door.get_instance(LOCAL, TENANT, INSTANCE))).reason is Reason.INSTANCE_NOT_FOUND
    gone = await lab.door.get_instance(LOCAL, TENANT, INSTANCE, show_deleted=True)
    assert gone.deleted_at is not None
    assert gone.last_operation in await lab.door.newest_operations(LOCAL, [gone])


async def test_watch_shows_the_present_then_the_newest_then_ends(lab: Broker) -> None:
    made = await lab.door.provision(LOCAL, provision())
    assert made.operation is not None
    stream = lab.door.watch_operation(LOCAL, made.operation.operation_id, True, timedelta(seconds=30))
    first, silent = await anext(stream)
    assert (first.operation.state, silent) == (OperationState.PENDING, False)
    lab.hub.progress(made.operation.operation_id, 40.0, "half way")
    moved, _ = await anext(stream)
    assert (moved.operation.percent, moved.operation.sentence) == (40.0, "half way")
    await lab.end(made.operation)
    states = [details.operation.state async for details, _ in stream]
    assert states[-1] is OperationState.SUCCEEDED
    assert len(lab.hub) == 0


async def test_watch_of_what_has_ended_is_one_message(lab: Broker) -> None:
    made = await lab.door.provision(LOCAL, provision())
    await lab.end(made.operation)
    assert made.operation is not None
    seen = [item async for item in lab.door.watch_operation(LOCAL, made.operation.operation_id)]
    assert len(seen) == 1
    assert (await reason(anext(lab.door.watch_operation(LOCAL, "nothing")))).reason is Reason.OPERATION_NOT_FOUND


async def test_watch_beats_when_nothing_happens(tmp_path: Path) -> None:
    async with open_broker(tmp_path, shortest_heartbeat=0.01) as lab:
        made = await lab.door.provision(LOCAL, provision())
        assert made.operation is not None
        stream = lab.door.watch_operation(LOCAL, made.operation.operation_id, heartbeat=timedelta(0))
        assert [(await anext(stream))[1] for _ in range(3)] == [False, True, True]
        await stream.aclose()  # type: ignore[attr-defined] # a generator
        assert len(lab.hub) == 0


async def test_a_store_that_is_behind_takes_removals_only(tmp_path: Path) -> None:
    """Refused before it is queued: it would wait as long as everything before it."""
    gate = threading.Event()

    def held(_situation: Situation) -> Decision:
        gate.wait(10)
        return Decision()

    async with open_broker(tmp_path, max_lag=0.0) as lab:
        await ready(lab)
        assert lab.store.lag == 0.0
        behind = asyncio.create_task(lab.store.accept(Accept(SYSTEM, TENANT, INSTANCE, held)))
        await asyncio.sleep(0)  # it is queued
        try:
            assert lab.store.lag > 0.0
            for ask in (
                lab.door.provision(LOCAL, provision("another")),
                lab.door.update(LOCAL, update(parameters={"size": 2})),
                lab.door.bind(LOCAL, bind()),
            ):
                refused = await reason(ask)
                assert refused.reason is Reason.TOO_MANY_OPERATIONS
                assert refused.retry_after
                assert refused.metadata["scope"] == "store"
            removal = asyncio.create_task(lab.door.deprovision(LOCAL, deprovision()))
            await asyncio.sleep(0)
        finally:
            gate.set()
        assert (await removal).operation is not None
        await behind
        assert lab.store.lag == 0.0


async def test_a_hidden_plan_is_as_if_it_did_not_exist(lab: Broker) -> None:
    hidden = plan("secret", visible_to=Visibility(frozenset({"others"})))
    lab.catalog.append(catalog(plan("small", plan_updateable=True), hidden))
    await ready(lab)
    errors = [
        await reason(lab.door.provision(LOCAL, provision("new", plan_id=name))) for name in ("secret", "nothing")
    ] + [await reason(lab.door.update(LOCAL, update(plan_id=name))) for name in ("secret", "nothing")]
    assert {(error.reason, error.message.replace("secret", "nothing")) for error in errors} == {
        (Reason.UNKNOWN_PLAN, "the catalog has no plan with the id 'nothing'")
    }
    assert [offer.plan.id for offer in (await lab.door.get_catalog(LOCAL, TENANT)).offers] == ["small"]
    assert [offer.plan.id for offer in (await lab.door.get_catalog(LOCAL, "others")).offers] == ["small", "secret"]
    made = await lab.door.provision(LOCAL, provision("new", tenant="others", plan_id="secret"))
    assert made.instance is not None


async def test_an_instance_keeps_a_plan_that_is_hidden_later(lab: Broker) -> None:
    await ready(lab)
    lab.catalog.append(catalog(plan("small", visible_to=Visibility(frozenset({"others"})))))
    await lab.end((await lab.door.update(LOCAL, update(parameters={"size": 3}))).operation)
    await lab.end((await lab.door.bind(LOCAL, bind())).operation)
    assert (await reason(lab.door.provision(LOCAL, provision("new")))).reason is Reason.UNKNOWN_SERVICE


def test_a_broker_that_is_late_takes_removals_and_nothing_new() -> None:
    late = [1.0]
    door = Door(lambda: late[0], 0.5)
    for action in Action:
        if action in OPERATOR_ACTIONS or action in OPERATION_ACTIONS or action in ADMIN_ACTIONS:
            continue
        if action in MAKING:
            with pytest.raises(PurveyorError) as refused:
                door.enter(LOCAL, action, TENANT)
            assert (refused.value.reason, refused.value.metadata["scope"]) == (Reason.TOO_MANY_OPERATIONS, "process")
            assert refused.value.retry_after
        else:
            door.enter(LOCAL, action, TENANT)
    late[0] = 0.5
    door.enter(LOCAL, Action.PROVISION, TENANT)
