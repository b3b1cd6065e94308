"""The classifier of catalog changes: each kind with its level, and that whatever differs is told."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from purveyor_server.domain.catalog import Catalog, Plan, PlanSchemas, Service, Visibility
from purveyor_server.domain.catalogchanges import (
    Change,
    Contents,
    Kind,
    Level,
    Policy,
    PolicyMode,
    check_policies,
    parse_policy,
    unsettled,
    worst,
)
from purveyor_server.domain.catalogdiff import diff
from purveyor_server.domain.errors import PurveyorError, Reason
from purveyor_server.domain.model import MaintenanceInfo, ProviderRef
from purveyor_server.domain.policies import InventoryPolicy, LeasePolicy, PlanState
from purveyor_server.domain.quotas import PlanKey, Used
from purveyor_server.domain.semver import precedence
from tests.fakes.situations import REF, plan

SMALL, LARGE = PlanKey("db", "small"), PlanKey("db", "large")
OTHER = ProviderRef("other", "scripted")
STRANGER = ProviderRef("pg", "stranger")
USED = {SMALL: Used(3, 2)}


def contents(*plans: Plan, providers: tuple[ProviderRef, ...] = (REF,), **service: Any) -> Contents:
    fields = {"id": "db", "name": "db", "description": "db"} | service
    return Contents((Service(plans=plans, **fields),), {ref.name: ref for ref in providers})


def one(**changes: Any) -> Contents:
    return contents(plan("small", **changes), providers=(REF, OTHER))


def found(new: Contents, old: Contents | None = None, used: dict[PlanKey, Used] = USED) -> dict[Kind, Level]:
    return {change.kind: change.level for change in diff(old or one(), new, used)}


IN_USE = [
    (one(provider=STRANGER), Kind.PLAN_ID_REUSED, Level.REFUSED),
    (one(provider=OTHER), Kind.PLAN_PROVIDER, Level.DANGEROUS),
    (one(name="tiny"), Kind.PLAN_RENAMED, Level.DANGEROUS),
    (one(bindable=False), Kind.PLAN_UNBINDABLE, Level.DANGEROUS),
    (contents(plan("large"), providers=(REF, OTHER)), Kind.PLAN_REMOVED, Level.DANGEROUS),
    (contents(plan("new", name="small")), Kind.PLAN_NAME_REUSED, Level.DANGEROUS),
    (Contents((), {"pg": REF}), Kind.SERVICE_REMOVED, Level.DANGEROUS),
    (contents(plan("small"), name="database"), Kind.SERVICE_RENAMED, Level.DANGEROUS),
    (contents(plan("x"), name="database"), Kind.SERVICE_ID_REUSED, Level.REFUSED),
    (contents(plan("x"), id="new"), Kind.SERVICE_NAME_REUSED, Level.DANGEROUS),
    (contents(plan("small"), id="new"), Kind.PLAN_ID_REUSED, Level.REFUSED),
    (contents(plan("small", provider=OTHER), providers=(OTHER,)), Kind.PROVIDER_REMOVED, Level.DANGEROUS),
    (contents(plan("small"), providers=(STRANGER,)), Kind.PROVIDER_KIND, Level.REFUSED),
]


@pytest.mark.parametrize(("new", "kind", "level"), IN_USE, ids=[f"{kind}-{n}" for n, (_, kind, _) in enumerate(IN_USE)])
def test_danger_is_for_what_is_in_use(new: Contents, kind: Kind, level: Level) -> None:
    assert found(new)[kind] is level
    assert found(new, used={})[kind] is Level.NOTABLE
    change = next(change for change in diff(one(), new, USED) if change.kind is kind)
    assert (change.plans, change.instances) == ((SMALL,), 3)


NOTED = [
    (one(state=PlanState.DEPRECATED), Kind.PLAN_STATE, Level.NOTABLE),
    (one(settings={"disk": 2}), Kind.PLAN_SETTINGS, Level.NOTABLE),
    (one(schemas=PlanSchemas()), Kind.PLAN_SCHEMAS, Level.NOTABLE),
    (one(transitions_from=()), Kind.PLAN_TRANSITIONS, Level.NOTABLE),
    (one(transitions_from=("smal",)), Kind.TRANSITION_UNKNOWN, Level.NOTABLE),
    (one(visible_to=Visibility()), Kind.PLAN_VISIBILITY, Level.NOTABLE),
    (
        one(lease=LeasePolicy(rotate_every=None, ttl=None, overlap=LeasePolicy().overlap * 2)),
        Kind.PLAN_LIFE,
        Level.NOTABLE,
    ),
    (one(maintenance_info=MaintenanceInfo("1.0.0")), Kind.MAINTENANCE_RAISED, Level.NOTABLE),
    (one(description="another"), Kind.PLAN_DETAILS, Level.HARMLESS),
    (one(plan_updateable=False), Kind.PLAN_DETAILS, Level.HARMLESS),
    (contents(plan("small"), plan("new"), providers=(REF, OTHER)), Kind.PLAN_ADDED, Level.HARMLESS),
    (contents(plan("small"), providers=(REF, OTHER), tags=("a",)), Kind.SERVICE_DETAILS, Level.HARMLESS),
    (contents(plan("small"), providers=(REF, OTHER), visible_to=Visibility()), Kind.SERVICE_VISIBILITY, Level.NOTABLE),
    (contents(plan("small"), providers=(REF, replace(OTHER, config={"a": 1}))), Kind.PROVIDER_CONFIG, Level.NOTABLE),
    (replace(one(), inventories={"pg": InventoryPolicy(cap=1)}), Kind.PROVIDER_INVENTORY, Level.NOTABLE),
]


@pytest.mark.parametrize(("new", "kind", "level"), NOTED, ids=[f"{kind}-{n}" for n, (_, kind, _) in enumerate(NOTED)])
def test_what_endangers_nothing_is_told(new: Contents, kind: Kind, level: Level) -> None:
    changes = found(new)
    assert changes[kind] is level
    assert set(changes.values()) <= {Level.NOTABLE, Level.HARMLESS}


def test_a_maintenance_version_never_goes_down() -> None:
    old, lower = one(maintenance_info=MaintenanceInfo("2.0.0")), one(maintenance_info=MaintenanceInfo("2.0.0-rc.1"))
    assert found(lower, old, {})[Kind.MAINTENANCE_LOWERED] is Level.REFUSED
    assert found(one(), old)[Kind.MAINTENANCE_DROPPED] is Level.DANGEROUS
    assert found(one(maintenance_info=MaintenanceInfo("2.0.0+b2")), old) == {Kind.MAINTENANCE_RAISED: Level.NOTABLE}


def test_versions_are_in_the_order_of_their_specification() -> None:
    rising = [
        "1.0.0-alpha",
        "1.0.0-alpha.1",
        "1.0.0-alpha.beta",
        "1.0.0-beta.2",
        "1.0.0-beta.11",
        "1.0.0-rc.1",
        "1.0.0",
        "1.0.1",
        "1.10.0",
    ]
    assert all(precedence(low) < precedence(high) for low, high in itertools.pairwise(rising))
    assert precedence("1.0.0+a") == precedence("1.0.0+b")


def test_what_had_been_removed_and_lives_is_known() -> None:
    used = {LARGE: Used(1, 0)}
    assert found(contents(plan("small"), plan("large"), providers=(REF, OTHER)), used=used) == {
        Kind.PLAN_RETURNED: Level.DANGEROUS
    }
    assert Kind.TRANSITION_UNKNOWN not in found(one(transitions_from=("large",)), used=used)
    unbound = {SMALL: Used(3, 0)}
    assert found(one(bindable=False), used=unbound)[Kind.PLAN_UNBINDABLE] is Level.NOTABLE


def test_a_misspelt_origin_is_guessed() -> None:
    new = contents(plan("small"), plan("large", transitions_from=("smal",)), providers=(REF, OTHER))
    told = next(change for change in diff(one(), new, {}) if change.kind is Kind.TRANSITION_UNKNOWN)
    assert "is 'small' meant?" in told.sentence


def test_the_page_names_every_kind() -> None:
    page = (Path(__file__).parents[2] / "docs" / "catalog.md").read_text(encoding="utf-8")
    told = page.split("### What is dangerous")[1]
    assert not [kind for kind in Kind if str(kind) not in told]


# Properties.

NAMES = st.sampled_from(["a", "b", "c"])
PLANS = st.builds(
    lambda plan_id, name, kind, ref, state, bindable, version, origins: plan(
        plan_id,
        name=name,
        provider=ProviderRef(ref, kind),
        state=state,
        bindable=bindable,
        maintenance_info=MaintenanceInfo(version) if version else None,
        transitions_from=origins,
    ),
    NAMES,
    NAMES,
    st.sampled_from(["k1", "k2"]),
    NAMES,
    st.sampled_from([PlanState.ACTIVE, PlanState.DEPRECATED, PlanState.RETIRED]),
    st.booleans(),
    st.sampled_from(["", "1.0.0", "2.0.0"]),
    st.one_of(st.none(), st.tuples(NAMES)),
)
SERVICES = st.builds(
    lambda service_id, name, plans: Service(id=service_id, name=name, description="d", plans=tuple(plans)),
    NAMES,
    NAMES,
    st.lists(PLANS, max_size=3, unique_by=lambda made: made.id),
)
CONTENTS = st.builds(
    lambda services: Contents(
        tuple(services), {made.provider.name: made.provider for service in services for made in service.plans}
    ),
    st.lists(SERVICES, max_size=3, unique_by=lambda made: made.id),
)
USAGE = st.dictionaries(st.builds(PlanKey, NAMES, NAMES), st.builds(Used, st.integers(0, 3), st.integers(0, 3)))


@given(CONTENTS, USAGE)
def test_a_catalog_compared_with_itself_changes_nothing(same: Contents, used: dict[PlanKey, Used]) -> None:
    assert diff(same, same, used) == ()


def hidden(old: Contents, new: Contents, changes: tuple[Change, ...]) -> bool:
    """Whether something differs and nothing is told."""
    return old != new and not changes


@given(CONTENTS, CONTENTS, USAGE)
def test_whatever_differs_is_told_and_who_is_endangered_is_named(
    old: Contents, new: Contents, used: dict[PlanKey, Used]
) -> None:
    changes = diff(old, new, used)
    # The order of services and plans is nobody's business.
    assert not hidden(ordered(old), ordered(new), changes)
    for change in changes:
        assert change.level is not Level.DANGEROUS or change.plans
        assert all(used[key].instances for key in change.plans)
    gone = {key for key, of in used.items() if of.instances and key in keys(old) and key not in keys(new)}
    blocked = {plan for change in unsettled(changes, {}) for plan in change.plans}
    assert gone <= blocked
    settled = unsettled(changes, {plan: Policy() for change in changes for plan in change.plans})
    assert {change.level for change in settled} <= {Level.REFUSED}


def ordered(of: Contents) -> Contents:
    services = (replace(s, plans=tuple(sorted(s.plans, key=lambda made: made.id))) for s in of.services)
    return replace(of, services=tuple(sorted(services, key=lambda made: made.id)))


def keys(of: Contents) -> set[PlanKey]:
    return {PlanKey(service.id, made.id) for service in of.services for made in service.plans}


def test_a_classifier_that_hides_something_is_found() -> None:
    """Negative control."""
    assert hidden(ordered(one()), ordered(one(name="tiny")), ())
    assert not hidden(ordered(one()), ordered(one(name="tiny")), diff(one(), one(name="tiny"), USED))


# Policies.

GONE = diff(one(), contents(plan("large"), plan("old", state=PlanState.RETIRED)), USED)
LIVE = Catalog(contents(plan("large"), plan("old", state=PlanState.RETIRED)).services)


@pytest.mark.parametrize(
    ("policies", "words"),
    [
        (["db/smal=keep"], "is the name right?"),
        (["db/large=keep"], "is the name right?"),
        (["db/small=migrate:small"], "cannot be migrated to itself"),
        (["db/small=migrate:nowhere"], "has no plan 'nowhere'"),
        (["db/small=migrate:old"], "is retired"),
    ],
)
def test_a_policy_that_makes_no_sense_is_named(policies: list[str], words: str) -> None:
    with pytest.raises(PurveyorError) as refused:
        check_policies(dict(parse_policy(text) for text in policies), GONE, LIVE)
    assert refused.value.reason is Reason.INVALID_REQUEST
    assert refused.value.violations[0].field == f"policies[{policies[0].partition('=')[0]}]"
    assert words in refused.value.message


def test_migrations_in_a_circle_are_named() -> None:
    used = {SMALL: Used(1), LARGE: Used(1)}
    old, new = contents(plan("small"), plan("large")), contents(plan("small", name="x"), plan("large", name="y"))
    circle = {SMALL: Policy(PolicyMode.MIGRATE, "large"), LARGE: Policy(PolicyMode.MIGRATE, "small")}
    with pytest.raises(PurveyorError, match="is itself migrated"):
        check_policies(circle, diff(old, new, used), Catalog(new.services))


@pytest.mark.parametrize(
    "text", ["", "small=keep", "db/small", "db/small=drop", "db/small=migrate:", "db/=keep", "keep"]
)
def test_a_policy_that_cannot_be_read_is_shown(text: str) -> None:
    with pytest.raises(PurveyorError) as refused:
        parse_policy(text)
    assert repr(text) in refused.value.message


def test_policies_settle_dangers_and_no_refusal() -> None:
    assert worst(GONE) is Level.DANGEROUS
    assert unsettled(GONE, {SMALL: Policy()}) == ()
    stranger = diff(one(), one(provider=STRANGER), USED)
    assert [change.level for change in unsettled(stranger, {SMALL: Policy()})] == [Level.REFUSED]
