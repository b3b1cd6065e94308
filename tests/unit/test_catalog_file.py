"""A catalog file is taken whole or refused with every problem at its line."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from purveyor_server.config import dev_catalog
from purveyor_server.config.catalog import CatalogFile, load_catalog, parse_catalog
from purveyor_server.config.problems import ConfigError
from purveyor_server.domain.catalog import Catalog
from purveyor_server.domain.errors import PurveyorError, invalid
from purveyor_server.domain.model import Json, ProviderRef
from purveyor_server.domain.policies import (
    CleanupMode,
    CleanupPolicy,
    InventoryPolicy,
    LeasePolicy,
    OrphanMode,
    PlanState,
)

GOOD = """\
providers:
  main:
    kind: postgresql
    config: {host: db.example, password: {file: /run/secrets/pg}}
services:
  - id: s1
    name: database
    description: A database.
    bindable: true
    plan_updateable: true
    requires: [syslog_drain]
    defaults: {instance: {size: 1}}
    dashboard_client: {id: dash, secret: {env: DASH}, redirect_uri: "https://dash.example"}
    plans:
      - id: p1
        name: small
        description: Small.
        provider: main
        settings: {kind: shared}
        bindable: false
        limits: {operation: 90s, rollback: 2m}
        maximum_polling_duration: 600
        maintenance_info: {version: 1.2.3-rc.1+b5, description: Patches}
        schemas:
          service_instance:
            create:
              parameters:
                type: object
                properties: {size: {type: integer}, name: {type: string}}
                required: [name]
"""


def parse(text: str) -> CatalogFile:
    return parse_catalog(text.encode(), "c.yaml")


def problems(text: str | bytes) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse_catalog(text.encode() if isinstance(text, str) else text, "c.yaml")
    return [str(problem) for problem in caught.value.problems]


def test_every_field_arrives() -> None:
    file = parse(GOOD)
    service = file.services[0]
    plan = service.plans[0]

    assert (service.requires, service.defaults.instance) == (("syslog_drain",), {"size": 1})
    assert service.dashboard_client is not None
    assert service.dashboard_client.redirect_uri == "https://dash.example"
    assert plan.provider == ProviderRef("main", "postgresql", file.providers["main"].config)
    assert (plan.bindable, plan.plan_updateable, plan.free) == (False, True, True)
    assert (plan.limits.operation, plan.limits.rollback) == (timedelta(seconds=90), timedelta(minutes=2))
    assert plan.maximum_polling_duration == timedelta(minutes=10)
    assert plan.maintenance_info is not None
    assert plan.maintenance_info.version == "1.2.3-rc.1+b5"
    assert plan.schemas.instance_create is not None
    assert plan.schemas.instance_create["$schema"].endswith("2020-12/schema")
    assert Catalog(file.services).offer("s1", "p1").plan is plan


def test_every_problem_is_named_at_its_line_in_one_pass() -> None:
    text = """\
providers:
  main: {kind: postgresql, config: {password: hunter2}}
services:
  - id: s1
    name: database
    description: A database.
    bindable: "yes"
    requires: [everything]
    plans:
      - {id: p1, name: small, description: Small., provider: main}
      - {id: p1, name: small, description: Small., provider: other}
      - id: p2
        name: "two words"
        nme: x
        description: ""
        provider: main
        maintenance_info: {version: "1.2"}
        schemas:
          service_instance:
            create: {parameters: {type: objekt}}
            update: {parameters: {$ref: "https://elsewhere.example/s.json"}}
          service_binding:
            create: {parameters: {properties: {n: {type: integer}}}}
        defaults: {binding: {n: many}}
  - id: s1
    name: database
    description: Again.
    bindable: true
    plans: []
"""
    assert [problem.split(": ", 2)[:2] for problem in problems(text)] == [
        ["c.yaml:2", "providers.main.config.password"],
        ["c.yaml:7", "services[0].bindable"],
        ["c.yaml:8", "services[0].requires[0]"],
        ["c.yaml:11", "services[0].plans[1].id"],
        ["c.yaml:11", "services[0].plans[1].name"],
        ["c.yaml:11", "services[0].plans[1].provider"],
        ["c.yaml:13", "services[0].plans[2].name"],
        ["c.yaml:14", "services[0].plans[2].nme"],
        ["c.yaml:15", "services[0].plans[2].description"],
        ["c.yaml:17", "services[0].plans[2].maintenance_info.version"],
        ["c.yaml:20", "services[0].plans[2].schemas.service_instance.create.parameters"],
        ["c.yaml:21", "services[0].plans[2].schemas.service_instance.update.parameters"],
        ["c.yaml:24", "services[0].plans[2].defaults.binding.n"],
        ["c.yaml:25", "services[1].id"],
        ["c.yaml:26", "services[1].name"],
        ["c.yaml:29", "services[1].plans"],
    ]


def test_duplicate_ids_name_the_line_of_the_first() -> None:
    second = GOOD[GOOD.index("  - id: s1") :].replace("name: database", "name: other").replace("id: dash", "id: d2")

    assert problems(GOOD + second) == [
        "c.yaml:31: services[1].id: the service id 's1' is taken already (line 6)",
        "c.yaml:40: services[1].plans[0].id: the plan id 'p1' is taken already (line 15)",
    ]


def test_a_key_that_stands_twice_is_refused_with_both_lines() -> None:
    twice = GOOD.replace("    name: database\n", "    name: database\n    id: s9\n")

    assert problems(twice) == ["c.yaml:8: services[0].id: stands twice (first on line 6)"]


def test_an_unknown_key_is_answered_with_the_nearest_one() -> None:
    assert problems(GOOD.replace("    bindable: true", "    bindabel: true")) == [
        "c.yaml:6: services[0].bindable: is required",
        "c.yaml:9: services[0].bindabel: is not a known key; did you mean 'bindable'?",
    ]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("{file: /run/secrets/pg}", "hunter2", "a secret is given by reference"),
        ("{host: db.example,", "{url: 'postgresql://u:hunter2@db', ", "a secret is given by reference"),
        ("secret: {env: DASH}", "secret: hunter2", "must be a table of keys and values"),
        ("secret: {env: DASH}", "secret: {text: hunter2}", "must be a reference to a secret"),
    ],
)
def test_a_literal_secret_is_refused_and_not_repeated(old: str, new: str, expected: str) -> None:
    (problem,) = problems(GOOD.replace(old, new))

    assert expected in problem
    assert "hunter2" not in problem


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ("{type: object, properties: {a: {minimum: x}}}", "is not a valid JSON Schema: properties/a/minimum"),
        ("{pattern: '('}", "is not a valid JSON Schema"),
        ("{$ref: '#/$defs/nowhere'}", "is not a valid JSON Schema"),
        ("{$schema: 'http://localhost:1/none'}", "$schema must name"),
        ("{$schema: 5}", "$schema must name"),
        ("{allOf: [{$ref: 'file:///etc/passwd'}]}", "refers to something outside itself: file:///etc/passwd"),
        ("{type: string}", "must allow an object"),
        ("{description: " + "x" * 66_000 + "}", "at most 65536 are allowed"),
    ],
)
def test_a_bad_schema_is_refused(schema: str, expected: str) -> None:
    text = GOOD[: GOOD.index("              parameters:")] + f"              parameters: {schema}\n"

    (problem,) = problems(text)

    assert problem.startswith("c.yaml:27: services[0].plans[0].schemas.service_instance.create.parameters: ")
    assert expected in problem


@pytest.mark.parametrize("draft", ["draft-04", "draft-06", "draft-07"])
def test_older_drafts_are_taken(draft: str) -> None:
    schema = f"$schema: http://json-schema.org/{draft}/schema#"

    file = parse(GOOD.replace("parameters:\n", f"parameters:\n                {schema}\n"))

    assert file.services[0].plans[0].schemas.instance_create is not None


def test_defaults_of_the_service_are_checked_below_those_of_the_plan() -> None:
    bad = GOOD.replace("{size: 1}", "{size: big}")

    assert problems(bad) == [
        'c.yaml:15: services[0].plans[0].defaults.instance.size: does not fit the plan\'s own schema: "big" is not of type "integer"'
    ]
    assert places(bad.replace("settings:", "defaults: {instance: {size: 2}}\n        settings:")) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: [", "c.yaml:1: is not YAML"),
        ("a: 1\n---\nb: 2\n", "c.yaml:2: is not YAML"),
        ("[" * 5000, "nested deeper than 64 levels"),
        ("a: &a [*a]", "nested deeper than 64 levels"),
        (b"\xff", "is not UTF-8"),
        (b"#" * 1_048_577, "larger than 1048576 bytes"),
        ("a: !!python/object:os.system {}", "c.yaml:1: a: the tag"),
        ("- 1", "must be a table of keys and values"),
        ("", "services: is required"),
        ("a: .inf", "must be a finite number"),
        ("<<: {a: 1}", "merge keys"),
    ],
)
def test_what_is_no_catalog_is_named(text: str | bytes, expected: str) -> None:
    assert any(expected in problem for problem in problems(text))


def test_aliases_cannot_grow_a_small_file_into_a_large_one() -> None:
    lines = ["a0: &a0 [x]"] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)]

    assert "more than 200000 values" in problems("\n".join(lines))[0]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: No such file"):
        load_catalog(tmp_path / "none.yaml")


def test_what_a_provider_refuses_is_named_at_its_entry() -> None:
    def check(ref: ProviderRef) -> None:
        raise invalid("config.host", "must resolve")

    with pytest.raises(ConfigError) as caught:
        parse_catalog(GOOD.encode(), "c.yaml", check)

    assert [str(problem) for problem in caught.value.problems] == [
        "c.yaml:2: providers.main: config.host: must resolve"
    ]


def test_settings_that_a_provider_refuses_are_named_at_the_plan() -> None:
    def check_settings(ref: ProviderRef, settings: Json) -> None:
        raise invalid("kind", f"{settings['kind']!r} is not known")

    with pytest.raises(
        ConfigError, match=r"c\.yaml:19: services\[0\]\.plans\[0\]\.settings: kind: 'shared' is not known"
    ):
        parse_catalog(GOOD.encode(), "c.yaml", None, check_settings)


def test_the_built_in_catalog_is_good() -> None:
    file = parse_catalog(dev_catalog(), "built-in")

    assert [plan.name for plan in file.services[0].plans] == [
        "shared-small",
        "shared-large",
        "schema-small",
        "dedicated-small",
    ]
    assert all(plan.plan_updateable for plan in file.services[0].plans)


lines = GOOD.splitlines()


@given(
    st.integers(0, len(lines) - 1), st.sampled_from(["", "  ", "- ", "? ", "{", "&a ", "*a", "!x ", "'", "\t", ": "])
)
def test_a_damaged_file_is_refused_in_words_or_taken(number: int, damage: str) -> None:
    """Whatever is damaged: a catalog or a ConfigError that names the file, never another exception."""
    text = "\n".join([*lines[:number], damage + lines[number][2:], *lines[number + 1 :]])

    assert all(place.startswith("c.yaml") for place in places(text))


def places(text: str) -> list[str]:
    try:
        parse(text)
    except ConfigError as refusal:
        return [problem.place for problem in refusal.problems]
    return []


HIDDEN = GOOD.replace(
    "        bindable: false\n",
    "        bindable: false\n        visible_to: {tenants: [acme], labels: {tier: gold}}\n",
)


def test_a_plan_is_seen_by_named_tenants_and_by_labels() -> None:
    file = parse(HIDDEN)
    catalog = Catalog(file.services, 3, "whole", {"rich": {"tier": "gold", "x": "y"}, "poor": {"tier": "tin"}})

    for tenant in ("acme", "rich"):
        assert catalog.seen_by(tenant).offer("s1", "p1").plan.id == "p1"
    for tenant in ("poor", "nobody"):
        hidden = catalog.seen_by(tenant)
        assert hidden.services == ()  # a service without plans is none
        with pytest.raises(PurveyorError) as refused:
            hidden.offer("s1", "p1")
        with pytest.raises(PurveyorError) as unknown:
            Catalog(()).offer("s1", "p1")
        assert (refused.value.reason, refused.value.message) == (unknown.value.reason, unknown.value.message)


def test_what_is_hidden_does_not_show_in_etags() -> None:
    seen, other = parse(HIDDEN), parse(HIDDEN.replace("[acme]", "[acme, beta]"))
    assert Catalog(seen.services).seen_by("acme").etag == Catalog(other.services).seen_by("acme").etag
    assert Catalog(seen.services).seen_by("poor").etag == Catalog(other.services).seen_by("poor").etag
    changed = parse(HIDDEN.replace("Small.", "Smaller."))
    assert Catalog(seen.services).seen_by("poor").etag == Catalog(changed.services).seen_by("poor").etag
    assert Catalog(seen.services).seen_by("acme").etag != Catalog(changed.services).seen_by("acme").etag


def test_without_restrictions_everybody_sees_the_one_catalog() -> None:
    catalog = Catalog(parse(GOOD).services, 1, "e")
    assert catalog.seen_by("a") is catalog.seen_by("b") is catalog


@pytest.mark.parametrize(
    "bad", ["{tenants: [Acme]}", "{tenants: [a, a]}", "{labels: {tier: 1}}", "{label: {}}", "everybody"]
)
def test_a_bad_visibility_is_named(bad: str) -> None:
    found = problems(GOOD.replace("        bindable: false\n", f"        bindable: false\n        visible_to: {bad}\n"))
    assert any("visible_to" in problem for problem in found)


def test_a_default_of_a_secret_parameter_is_refused() -> None:
    secret = GOOD.replace("size: {type: integer}", "size: {type: integer, writeOnly: true}")

    (problem,) = problems(secret)

    assert "defaults.instance.size: is marked as secret" in problem
    parse(secret.replace("    defaults: {instance: {size: 1}}\n", ""))


def test_the_life_of_a_plan_and_of_what_it_makes() -> None:
    entry = """        bindable: false
        state: retired
        transitions: {from: [p0]}
        binding_rotatable: true
        bindings: {ttl: 30d, max_ttl: 90d, renew_before: 7d, overlap: 2h, rotate_every: 14d, auto_rotate: true}
        cleanup: {mode: delayed, delay: 1h}
"""
    (plan,) = parse(GOOD.replace("        bindable: false\n", entry)).services[0].plans

    assert (plan.state, plan.transitions_from) == (PlanState.RETIRED, ("p0",))
    assert plan.lease == LeasePolicy(days(30), days(90), days(7), timedelta(hours=2), days(14), auto_rotate=True)
    assert plan.cleanup == CleanupPolicy(CleanupMode.DELAYED, timedelta(hours=1))


@pytest.mark.parametrize(
    ("bindings", "key"),
    [
        ("{ttl: 2d, max_ttl: 1d}", "ttl"),
        ("{ttl: 2d, renew_before: 2d}", "renew_before"),
        ("{renew_before: 2d}", "renew_before"),
        ("{ttl: 2d, renew_before: 1d, auto_rotate: true}", "auto_rotate"),
        ("{rotate_every: 2d}", "rotate_every"),
    ],
)
def test_a_life_of_bindings_that_cannot_be_is_named(bindings: str, key: str) -> None:
    entry = f"        bindable: false\n        bindings: {bindings}\n"
    found = problems(GOOD.replace("        bindable: false\n", entry))
    assert [f"bindings.{key}: " in problem for problem in found] == [True]


def days(number: int) -> timedelta:
    return timedelta(days=number)


def test_what_a_sweep_may_do_is_said_of_the_provider() -> None:
    policy = "{policy: reap, every: 10m, grace: 2h, cap: 3, brake_percent: 5, brake_count: 7}"
    given = parse(GOOD.replace("    kind: postgresql\n", f"    kind: postgresql\n    inventory: {policy}\n"))

    wanted = InventoryPolicy(OrphanMode.REAP, timedelta(minutes=10), timedelta(hours=2), 3, 5.0, 7)
    assert given.inventories == {"main": wanted}
    assert parse(GOOD).inventories == {"main": InventoryPolicy()}
