"""Quotas: which limit holds where, what is refused and what never is, and how it is said."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace
from structlog.testing import capture_logs

from purveyor_server.app.upkeep import check_counters
from purveyor_server.config.problems import ConfigError
from purveyor_server.config.sources import load
from purveyor_server.domain.errors import PurveyorError, Reason
from purveyor_server.domain.quotas import (
    UNLIMITED,
    WHOLE,
    Limits,
    PlanKey,
    Quotas,
    Standard,
    Usage,
    Used,
    check_limits,
    check_new_binding,
    check_new_instance,
    limits_of,
)
from purveyor_server.domain.states import InstanceState
from purveyor_server.kit.clock import ManualClock
from purveyor_server.lifecycle.bind import decide_bind
from purveyor_server.lifecycle.contract import Update
from purveyor_server.lifecycle.deprovision import decide_deprovision
from purveyor_server.lifecycle.ports import LifecycleSettings
from purveyor_server.lifecycle.provision import decide_provision
from purveyor_server.lifecycle.update import Target, decide_update
from purveyor_server.store.contract import Writes
from purveyor_server.store.sqlite.migrate import known, migrate
from purveyor_server.store.sqlite.settings import SqliteSettings
from purveyor_server.store.sqlite.store import open_store
from tests.fakes import rules
from tests.fakes.situations import CATALOG, INSTANCE, LARGE, TENANT, instance, settings, situation
from tests.store_contract import records
from tests.store_contract.records import write

SMALL = PlanKey("db", "small")
BIG = PlanKey("db", "large")


def refused(call: Any, *arguments: Any) -> PurveyorError:
    with pytest.raises(PurveyorError) as caught:
        call(*arguments)
    assert caught.value.reason is Reason.QUOTA_EXCEEDED
    assert caught.value.retry_after is None
    return caught.value


def bounded(**limits: int) -> LifecycleSettings:
    return LifecycleSettings(quotas=Quotas(Standard(Limits(**limits))))


def test_what_an_operator_set_goes_before_the_tenants_settings_and_those_before_the_general_ones() -> None:
    general = Standard(Limits(10, 20, 5), Limits(3))
    quotas = Quotas(general, {"acme": Standard(Limits(bindings=7))})
    set_by_operator = Usage(set={WHOLE: Limits(50), SMALL: Limits(UNLIMITED)})

    assert limits_of(quotas, Usage(), "other", WHOLE) == Limits(10, 20, 5)
    assert limits_of(quotas, Usage(), "acme", WHOLE) == Limits(10, 7, 5)
    assert limits_of(quotas, set_by_operator, "acme", WHOLE) == Limits(50, 7, 5)
    assert limits_of(quotas, set_by_operator, "acme", SMALL) == Limits(UNLIMITED)
    assert limits_of(quotas, set_by_operator, "acme", BIG) == Limits(3)


def test_the_refusal_names_whose_quota_it_is_and_how_much_is_used() -> None:
    quotas = Quotas(Standard(Limits(2, 2, 1), Limits(1, 1)))
    usage = Usage({SMALL: Used(1, 1)}, instance_bindings=1)

    of_plan = refused(check_new_instance, quotas, usage, "acme", SMALL)
    assert of_plan.quota_subject == "tenant/acme/service/db/plan/small/instances"
    assert of_plan.metadata == {
        "tenant": "acme", "quota": "instances", "limit": "1", "used": "1", "service_id": "db", "plan_id": "small",
    }  # fmt: skip
    whole = refused(check_new_instance, quotas, Usage({BIG: Used(2)}), "acme", SMALL)
    assert whole.quota_subject == "tenant/acme/instances"
    assert whole.message == "the tenant 'acme' has 2 of at most 2 instances"
    of_instance = refused(check_new_binding, quotas, usage, "acme", BIG, "orders")
    assert of_instance.quota_subject == "tenant/acme/instance/orders/bindings"
    assert of_instance.metadata["quota"] == "bindings_per_instance"


def test_a_provision_above_the_quota_is_refused_and_its_repetition_is_not() -> None:
    full = Usage({SMALL: Used(1)})
    ask = rules.provision_ask(settings=bounded(instances=1))

    assert refused(decide_provision, situation(usage=full), ask).metadata["limit"] == "1"
    assert decide_provision(situation(usage=Usage()), ask).instance is not None
    made = instance(digest="d1")
    assert decide_provision(situation(made, usage=full), ask).replayed


def test_a_fresh_attempt_takes_the_place_of_what_failed() -> None:
    failed = instance(InstanceState.FAILED, digest="d1")
    ask = rules.provision_ask(settings=bounded(instances=1))
    assert decide_provision(situation(failed, usage=Usage({SMALL: Used(1)})), ask).writes.instances


def test_a_bind_above_the_quota_is_refused_and_removals_never_are() -> None:
    made = instance()
    none = LifecycleSettings(quotas=Quotas(Standard(Limits(0, 0, 0), Limits(0, 0))))
    full = situation(made, usage=Usage({SMALL: Used(1, 1)}, instance_bindings=1))

    assert refused(decide_bind, full, rules.bind_ask(settings=none)).metadata["quota"] == "bindings"
    assert decide_deprovision(full, rules.deprovision_ask(settings=none)).operation is not None


def test_an_update_to_another_plan_needs_room_there_and_others_do_not() -> None:
    made = instance()
    to_large = rules.update_ask(
        request=Update(tenant=TENANT, instance_id=INSTANCE, plan_id="large"),
        target=Target(rules.BOOK.get(LARGE.digest), CATALOG.offer("db", "large")),
        settings=LifecycleSettings(quotas=Quotas(Standard(Limits(0), Limits(1)))),
    )
    full = situation(made, usage=Usage({SMALL: Used(1), BIG: Used(1)}))
    room = situation(made, usage=Usage({SMALL: Used(1)}))

    assert refused(decide_update, full, to_large).metadata["plan_id"] == "large"
    assert decide_update(room, to_large).writes.instances[0].in_flight == settings("large")


@pytest.mark.parametrize("limits", [Limits(-2), Limits(bindings=10**12), Limits(bindings_per_instance=10_001)])
def test_limits_that_make_no_sense_are_refused(limits: Limits) -> None:
    with pytest.raises(PurveyorError, match="must be -1"):
        check_limits(limits)


def test_settings_of_quotas(tmp_path: Path) -> None:
    file = tmp_path / "purveyor.toml"
    file.write_text(
        'catalog = "c.yaml"\n[quotas]\ninstances_per_tenant = 10\nbindings_per_instance = 5\ninstances_per_plan = 3\n'
        "[tenants.acme.quotas]\ninstances = -1\nbindings_per_plan = 7\n"
    )
    quotas = load(file, {}).tenant_quotas
    assert limits_of(quotas, Usage(), "other", WHOLE) == Limits(10, None, 5)
    assert limits_of(quotas, Usage(), "acme", WHOLE) == Limits(UNLIMITED, None, 5)
    assert limits_of(quotas, Usage(), "acme", SMALL) == Limits(3, 7)

    file.write_text('catalog = "c.yaml"\n[quotas]\ninstances_per_tenant = -2\n[tenants.acme.quotas]\nbinding = 1\n')
    with pytest.raises(ConfigError) as caught:
        load(file, {})
    assert sorted(str(problem) for problem in caught.value.problems) == [
        "quotas.instances_per_tenant: must be greater than or equal to -1",
        "tenants.acme.quotas.binding: is not a known key",
    ]


def test_the_migration_counts_what_is_there(tmp_path: Path) -> None:
    migrations, path = known(), tmp_path / "store.db"
    connection = sqlite3.connect(path, isolation_level=None)
    migrate(connection, tuple(one for one in migrations if one.number < number_of("quotas")))
    moving = records.instance(instance_id="moving", in_flight=replace(records.SETTINGS, plan_id="plan-2"))
    for made in (moving, records.instance(), records.instance(instance_id="gone", state=InstanceState.DELETED)):
        put(connection, "instances", made, service_id="service-1", plan_id="plan-1")
    put(connection, "bindings", records.binding(moving), instance_uid=moving.uid, binding_id="app")

    migrate(connection, migrations)

    assert connection.execute("SELECT * FROM usage ORDER BY plan_id").fetchall() == [
        ("acme", "service-1", "plan-1", 1, 1),
        ("acme", "service-1", "plan-2", 1, 0),
    ]


def number_of(name: str) -> int:
    return next(one.number for one in known() if one.name.endswith(f"_{name}.sql"))


def put(connection: sqlite3.Connection, table: str, record: Any, **columns: str) -> None:
    values = columns | {
        "uid": record.uid, "tenant": record.tenant, "instance_id": record.instance_id, "state": str(record.state),
        "last_operation": "", "created_at": "0", "updated_at": "0",
    }  # fmt: skip
    names, marks = ", ".join(values), ", ".join("?" * (len(values) + 1))
    body = msgspec.json.encode(record)
    connection.execute(f"INSERT INTO {table} ({names}, body) VALUES ({marks})", (*values.values(), body))


async def test_counters_that_are_wrong_are_put_right_with_a_line(tmp_path: Path) -> None:
    path, clock = tmp_path / "store.db", ManualClock(records.START)
    store = await open_store(path, clock=clock, settings=SqliteSettings())
    for tenant in ("acme", "other"):
        await write(store, Writes(instances=(records.instance(tenant),)), tenant)
    with sqlite3.connect(path) as hand:
        hand.execute("UPDATE usage SET instances = 7 WHERE tenant = 'acme'")
        hand.execute("INSERT INTO usage VALUES ('acme', 'service-1', 'plan-9', 3, 1)")

    with capture_logs() as lines:
        wrong, again = await check_counters(store), await check_counters(store)

    assert (wrong, again) == (2, 0)
    assert [(line["tenant"], line["counters"], line["log_level"]) for line in lines] == [("acme", 2, "error")]
    await store.close()
