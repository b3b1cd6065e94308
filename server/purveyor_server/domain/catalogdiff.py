"""What a new catalog changes, and how dangerous that is for what lives.

Guarantee: pure; a catalog compared with itself changes nothing; whatever differs is in some change. Danger is for what is
in use: a change that meets no instance is at most notable, but for a maintenance version that goes down.
Limit: whether a narrowed schema still takes the parameters that instances have is not seen here: `narrowed` is for who has
read them.
Source: DESIGN.md section 9.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping

import msgspec

from purveyor_server.domain.catalog import Plan, Service
from purveyor_server.domain.catalogchanges import Change, Contents, Kind, Level, Named, plan_name
from purveyor_server.domain.quotas import PlanKey, Used
from purveyor_server.domain.semver import precedence

NOBODY = Used()
Usage = Mapping[PlanKey, Used]


def diff(old: Contents, new: Contents, used: Usage) -> tuple[Change, ...]:
    """Every change, by subject; `used` is what there is of each plan, of those in no catalog too."""
    return tuple(sorted(_Comparison(old, new, used).changes(), key=lambda change: (change.subject, change.kind)))


def narrowed(plan: PlanKey, named: tuple[Named, ...], count: int) -> Change:
    """The change that a schema no longer takes the parameters of `count` instances, of which `named` are some."""
    return Change(
        kind=Kind.PLAN_NARROWED,
        level=Level.DANGEROUS,
        subject=f"plan/{plan_name(plan)}",
        sentence=f"the new schema no longer takes the parameters of {count} instances of the plan {plan.plan_id!r}",
        plans=(plan,),
        instances=count,
        named=named,
    )


class _Comparison:
    """Two catalogs and what is in use."""

    def __init__(self, old: Contents, new: Contents, used: Usage) -> None:
        self.old, self.new, self.used = old, new, used
        self.services = {service.id: service for service in new.services}
        self.before = {service.id: service for service in old.services}
        self.plans = _plans(new)
        self.plans_before = _plans(old)

    def changes(self) -> Iterator[Change]:
        yield from self._providers()
        for service in self.new.services:
            yield from self._service(service)
        for service in self.old.services:
            if service.id not in self.services:
                yield self._gone(service)
        for key, plan in self.plans.items():
            before = self.plans_before.get(key)
            yield from self._added(key, plan) if before is None else self._plan(key, before, plan)
            yield from self._origins(key, plan, before)
        for key, plan in self.plans_before.items():
            if key not in self.plans:
                yield from self._removed(key, plan)

    def _in_use(self, *keys: PlanKey) -> tuple[PlanKey, ...]:
        return tuple(key for key in keys if self._of(key).instances)

    def _of(self, key: PlanKey) -> Used:
        return self.used.get(key, NOBODY)

    def _change(self, kind: Kind, subject: str, sentence: str, *plans: PlanKey, bad: Level = Level.DANGEROUS) -> Change:
        """A change that is `bad` where a plan of it is in use, else notable."""
        found = self._in_use(*plans)
        return Change(
            kind=kind,
            level=bad if found else Level.NOTABLE,
            subject=subject,
            sentence=sentence,
            plans=found,
            instances=sum(self._of(key).instances for key in found),
            bindings=sum(self._of(key).bindings for key in found),
        )

    def _note(self, kind: Kind, subject: str, sentence: str, level: Level = Level.NOTABLE) -> Change:
        return Change(kind=kind, level=level, subject=subject, sentence=sentence)

    # Providers.

    def _providers(self) -> Iterator[Change]:
        old, new = self.old, self.new
        for name, ref in new.providers.items():
            before, subject = old.providers.get(name), f"provider/{name}"
            if before is None:
                yield self._note(Kind.PROVIDER_ADDED, subject, f"the provider {name!r} is new", Level.HARMLESS)
                continue
            if before.kind != ref.kind:
                text = f"the provider {name!r} is of the kind {ref.kind!r} and was of {before.kind!r}"
                yield self._change(Kind.PROVIDER_KIND, subject, text, *self._made_by(name), bad=Level.REFUSED)
            elif before.config != ref.config:
                text = f"the provider {name!r} is configured anew: what exists keeps the configuration that made it"
                yield self._note(Kind.PROVIDER_CONFIG, subject, text)
            if old.inventories.get(name) != new.inventories.get(name):
                yield self._note(Kind.PROVIDER_INVENTORY, subject, f"other rules for sweeps of the provider {name!r}")
        for name in old.providers.keys() - new.providers.keys():
            text = f"the provider {name!r} is removed"
            yield self._change(Kind.PROVIDER_REMOVED, f"provider/{name}", text, *self._made_by(name))

    def _made_by(self, provider: str) -> list[PlanKey]:
        return [key for key, plan in self.plans_before.items() if plan.provider.name == provider]

    # Services.

    def _service(self, service: Service) -> Iterator[Change]:
        before, subject = self.before.get(service.id), f"service/{service.id}"
        if before is None:
            yield self._note(Kind.SERVICE_ADDED, subject, f"the service {service.name!r} is new", Level.HARMLESS)
            return
        keys = [PlanKey(service.id, plan.id) for plan in before.plans]
        if before.name != service.name:
            stranger = not {plan.id for plan in before.plans} & {plan.id for plan in service.plans}
            text = f"the service {service.id!r} is called {service.name!r} and was called {before.name!r}"
            if stranger:
                text += ", with no plan in common: an id is never given to another thing"
                yield self._change(Kind.SERVICE_ID_REUSED, subject, text, *keys, bad=Level.REFUSED)
            else:
                yield self._change(Kind.SERVICE_RENAMED, subject, text, *keys)
        if before.visible_to != service.visible_to:
            text = f"other tenants may see the service {service.name!r}"
            yield self._note(Kind.SERVICE_VISIBILITY, subject, text)
        if fields := _differing(before, service, {"id", "name", "plans", "visible_to"}):
            yield self._note(Kind.SERVICE_DETAILS, subject, f"changed: {fields}", Level.HARMLESS)

    def _gone(self, service: Service) -> Change:
        keys = [PlanKey(service.id, plan.id) for plan in service.plans]
        heir = next((other.id for other in self.new.services if other.name == service.name), None)
        if heir is not None:
            text = f"the name {service.name!r} of the service {service.id!r} is given to the service {heir!r}"
            return self._change(Kind.SERVICE_NAME_REUSED, f"service/{service.id}", text, *keys)
        text = f"the service {service.name!r} is removed"
        return self._change(Kind.SERVICE_REMOVED, f"service/{service.id}", text, *keys)

    # Plans.

    def _added(self, key: PlanKey, plan: Plan) -> Iterator[Change]:
        subject = f"plan/{plan_name(key)}"
        other = next((k for k in self.plans_before if k.plan_id == key.plan_id and k != key), None)
        if other is not None:
            text = (
                f"the plan id {key.plan_id!r} was one of the service {other.service_id!r}: it is never given to another"
            )
            yield self._change(Kind.PLAN_ID_REUSED, subject, text, other, bad=Level.REFUSED)
        elif self._in_use(key):
            text = f"the plan {plan.name!r} was removed, comes back, and has instances from before"
            yield self._change(Kind.PLAN_RETURNED, subject, text, key)
        else:
            yield self._note(Kind.PLAN_ADDED, subject, f"the plan {plan.name!r} is new", Level.HARMLESS)

    def _removed(self, key: PlanKey, plan: Plan) -> Iterator[Change]:
        subject = f"plan/{plan_name(key)}"
        yield self._change(Kind.PLAN_REMOVED, subject, f"the plan {plan.name!r} is removed", key)
        service = self.services.get(key.service_id)
        heir = next((other.id for other in service.plans if other.name == plan.name), None) if service else None
        if heir is not None:
            text = f"the name {plan.name!r} of the plan {plan.id!r} is given to the plan {heir!r}"
            yield self._change(Kind.PLAN_NAME_REUSED, subject, text, key)

    def _plan(self, key: PlanKey, before: Plan, plan: Plan) -> Iterator[Change]:
        subject, name = f"plan/{plan_name(key)}", plan.name
        old, new = before.provider, plan.provider
        if old.kind != new.kind:
            text = f"the plan {name!r} is made by a {new.kind} and was made by a {old.kind}: that is another plan"
            yield self._change(Kind.PLAN_ID_REUSED, subject, text, key, bad=Level.REFUSED)
        elif old.name != new.name:
            text = f"the plan {name!r} is made by the provider {new.name!r} and was made by {old.name!r}"
            yield self._change(Kind.PLAN_PROVIDER, subject, text, key)
        if before.name != name:
            text = f"the plan {plan.id!r} is called {name!r} and was called {before.name!r}"
            yield self._change(Kind.PLAN_RENAMED, subject, text, key)
        if before.bindable and not plan.bindable:
            yield self._unbindable(key, plan)
        yield from self._maintenance(key, before, plan)
        yield from self._notes(subject, before, plan)

    def _unbindable(self, key: PlanKey, plan: Plan) -> Change:
        bound = self._of(key).bindings
        text = f"the plan {plan.name!r} cannot be bound any more and has {bound} bindings"
        made = self._change(Kind.PLAN_UNBINDABLE, f"plan/{plan_name(key)}", text, key)
        return made if bound else msgspec.structs.replace(made, level=Level.NOTABLE)

    def _maintenance(self, key: PlanKey, before: Plan, plan: Plan) -> Iterator[Change]:
        subject, old, new = f"plan/{plan_name(key)}", before.maintenance_info, plan.maintenance_info
        if old == new:
            return
        if new is None and old is not None:
            text = f"the plan {plan.name!r} has no maintenance version any more and had {old.version}"
            yield self._change(Kind.MAINTENANCE_DROPPED, subject, text, key)
        elif new is not None and old is not None and precedence(new.version) < precedence(old.version):
            text = f"the maintenance version of the plan {plan.name!r} goes down from {old.version} to {new.version}"
            yield self._note(Kind.MAINTENANCE_LOWERED, subject, text, Level.REFUSED)
        elif new is not None:
            text = f"the plan {plan.name!r} is at maintenance version {new.version}: its instances can be upgraded"
            yield self._note(Kind.MAINTENANCE_RAISED, subject, text)

    def _notes(self, subject: str, before: Plan, plan: Plan) -> Iterator[Change]:
        """What is worth a look and endangers nothing."""
        name = plan.name
        watched = (
            ("state", Kind.PLAN_STATE, f"the plan {name!r} is {plan.state} and was {before.state}"),
            ("settings", Kind.PLAN_SETTINGS, f"what the plan {name!r} makes is other: what exists stays as it is"),
            ("schemas", Kind.PLAN_SCHEMAS, f"other parameters are taken by the plan {name!r}"),
            ("transitions_from", Kind.PLAN_TRANSITIONS, f"other plans may become the plan {name!r}"),
            ("visible_to", Kind.PLAN_VISIBILITY, f"other tenants may see the plan {name!r}"),
            ("lease", Kind.PLAN_LIFE, f"new bindings of the plan {name!r} live otherwise"),
            ("cleanup", Kind.PLAN_LIFE, f"remains of the plan {name!r} are removed otherwise"),
        )
        for field, kind, sentence in watched:
            if getattr(before, field) != getattr(plan, field):
                yield self._note(kind, subject, sentence)
        judged = {"id", "name", "provider", "maintenance_info", *(field for field, _, _ in watched)}
        if before.bindable and not plan.bindable:
            judged.add("bindable")
        if fields := _differing(before, plan, judged):
            yield self._note(Kind.PLAN_DETAILS, subject, f"changed: {fields}", Level.HARMLESS)

    def _origins(self, key: PlanKey, plan: Plan, before: Plan | None) -> Iterator[Change]:
        """Plans that are named as origins and that nobody knows: misspelt, or removed long ago."""
        said = before.transitions_from or () if before is not None else ()
        for origin in plan.transitions_from or ():
            named = PlanKey(key.service_id, origin)
            if origin in said or named in self.plans or named in self.plans_before or self._in_use(named):
                continue
            near = difflib.get_close_matches(origin, [k.plan_id for k in self.plans if k.service_id == key.service_id])
            hint = f": is {near[0]!r} meant?" if near else ""
            text = f"the plan {plan.name!r} takes instances of {origin!r}, which no catalog and no instance knows{hint}"
            yield self._note(Kind.TRANSITION_UNKNOWN, f"plan/{plan_name(key)}", text)


def _plans(contents: Contents) -> dict[PlanKey, Plan]:
    return {PlanKey(service.id, plan.id): plan for service in contents.services for plan in service.plans}


def _differing(before: msgspec.Struct, after: msgspec.Struct, judged: set[str]) -> str:
    """Names of fields that differ and are judged nowhere else."""
    names = (name for name in before.__struct_fields__ if name not in judged)
    return ", ".join(name for name in names if getattr(before, name) != getattr(after, name))
