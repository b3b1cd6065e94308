"""The judge: what must never be, and what must be in the end.

Guarantee: it looks at the backend itself, at what callers were told, and at the public answers of the broker; it knows none of
the broker's rules. What it finds is a sentence with the simulated time.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from purveyor_server.domain.model import Binding, Instance
from purveyor_server.domain.states import BindingState, Drift, InstanceState
from purveyor_server.kit.clock import Clock
from tests.year.actions import FreezeName
from tests.year.backend import Backend, Thing
from tests.year.catalogs import INVENTORY
from tests.year.house import SWEEP
from tests.year.ledger import Access, Ledger, Resource
from tests.year.provider import INSTANCE_KINDS, LOGIN

SKEW = timedelta(minutes=2)  # how much the clocks of broker and backend may differ
UNDER_WAY = timedelta(minutes=1)  # in which a call that was announced before a freeze has begun
CUSTODY = frozenset({"quarantine", "release", "reclaim"})
AFTER_SWEEP = timedelta(hours=6)  # in which what a sweep has begun is done
ORPHAN_AGE = 2 * (INVENTORY.grace + 2 * INVENTORY.every) + timedelta(days=1)  # seen, quarantined, reaped
AFTER_TROUBLE = 2 * SWEEP  # in which what stood still is done


class Excuses:
    """Times in which nobody can expect the broker to keep its times: it is dead, stopped, or its backend is away."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._spans: list[tuple[datetime, datetime]] = []
        self._open: dict[str, datetime] = {}

    def begin(self, why: str) -> None:
        """From now on."""
        self._open.setdefault(why, self._clock.now())

    def end(self, why: str) -> None:
        """Until now, and what it takes to catch up."""
        if why in self._open:
            self.add(self._open.pop(why), self._clock.now() + AFTER_TROUBLE)

    def add(self, begin: datetime, end: datetime) -> None:
        """From `begin` to `end`."""
        self._spans.append((begin, end))

    def unexcused(self, begin: datetime, now: datetime) -> timedelta:
        """How much of the time from `begin` until now nothing excuses."""
        spans = sorted([*self._spans, *((start, now) for start in self._open.values())])
        left, reached = timedelta(0), begin
        for start, end in spans:
            if start > reached:
                left += max(timedelta(0), min(start, now) - reached)
            reached = max(reached, end)
        return left + max(timedelta(0), now - reached)


class Judge:
    """Collects what is wrong; `store_id` is known after the first start."""

    def __init__(self, backend: Backend, ledger: Ledger, excuses: Excuses) -> None:
        self.wrong: list[str] = []
        self.store_id = ""
        self.orphans: dict[str, datetime] = {}  # what appeared behind the broker's back, by name: when
        self.flooded = False  # more appeared at once than is to be believed, and nobody has said go on
        self._crowd = 0  # the most things without an owner, since there were none
        self.reaped = 0
        self.logins = 0
        self._backend = backend
        self._ledger = ledger
        self._excuses = excuses
        self.frozen: dict[str, datetime] = {}  # freezes that were answered, since when
        backend.on_call = self._hears
        backend.on_remove = lambda thing: self._meets(thing, "removed")
        backend.on_disable = lambda thing: self._meets(thing, "made unusable")

    def say(self, what: str) -> None:
        """Note a violation."""
        self.wrong.append(f"{self._backend.clock.now():%Y-%m-%d %H:%M:%S}: {what}")

    # At every moment

    def _hears(self, what: str) -> None:
        """A call to the backend begins."""
        now = self._backend.clock.now()
        stops = (FreezeName.ALL, FreezeName.PROVIDER, *((FreezeName.REAPING,) if what in CUSTODY else ()))
        for name in stops:
            if name in self.frozen and now - self.frozen[name] > UNDER_WAY:
                self.say(f"{what} is called, and {name} is frozen since {self.frozen[name]}")

    def _meets(self, thing: Thing, what: str) -> None:
        """Something is about to be taken away: from whom?"""
        if not thing.marker or thing.marker.split(":")[1] != self.store_id:
            self.say(f"the stranger's {thing.kind} {thing.name} is {what}")
        elif thing.name in self.orphans:
            self._meets_orphan(thing, what)
        elif thing.kind == LOGIN:
            access = self._ledger.accesses.get(thing.uid)
            if access is not None and self._must_open(access, self._backend.clock.now()):
                self.say(f"the login of the live binding {access.instance_id}/{access.binding_id} is {what}")
        else:
            resource = self._ledger.resources.get(thing.uid)
            if resource is not None and resource.made and not resource.unwanted:
                self.say(f"the {thing.kind} of the live instance {resource.instance_id} is {what}")

    def _meets_orphan(self, thing: Thing, what: str) -> None:
        age = self._backend.clock.now() - self.orphans[thing.name]
        if self.flooded:
            self.say(f"the orphan {thing.name} is {what}, though there are {len(self.orphans)} and nobody said go on")
        if age < INVENTORY.grace:
            self.say(f"the orphan {thing.name} is {what} after {age}, before its grace is over")
        if what == "removed":
            self.reaped += 1
            del self.orphans[thing.name]

    def look_at_orphans(self) -> None:
        """Those that should be gone by now, had nothing stood in the way of sweeps."""
        crowd = sum(self._is_nobodys(thing) for thing in self._backend.things.values())
        self._crowd = max(self._crowd, crowd) if crowd else 0
        most = ORPHAN_AGE + 2 * INVENTORY.every * (self._crowd // INVENTORY.cap)  # each is two deeds
        for name, since in self.orphans.items():
            age = self._excuses.unexcused(since, self._backend.clock.now())
            if age > most:
                self.say(f"the orphan {name} is there for {age}, longer than its policy allows")

    def _is_nobodys(self, thing: Thing) -> bool:
        """Whether it may have to wait in one line with orphans."""
        record = self._ledger.resources.get(thing.uid) or self._ledger.accesses.get(thing.uid)
        return bool(thing.marker) and (record is None or not record.made or record.unwanted)

    def _must_open(self, access: Access, now: datetime) -> bool:
        """Whether this binding's credentials have to work."""
        resource = self._ledger.resources.get(access.instance_uid)
        if not access.made or access.unwanted or resource is None or resource.unwanted:
            return False
        if resource.harmed:
            return False
        if access.kept_until is not None and now < access.kept_until - SKEW:
            return True
        return access.ends is None or now < access.ends - SKEW

    def _must_not_open(self, access: Access, now: datetime) -> str:
        """Why this binding's credentials must not work any more."""
        if access.gone:
            return "is gone"
        return "has ended" if access.latest is not None and now > access.latest + SKEW else ""

    def use_everything(self) -> None:
        """Try every credential that was ever given."""
        now = self._backend.clock.now()
        for access in self._ledger.accesses.values():
            given = access.credentials
            if not given:
                continue
            opened = self._backend.log_in(given["username"], given["password"]) is not None
            self.logins += 1
            name = f"{access.instance_id}/{access.binding_id}"
            if opened and (why := self._must_not_open(access, now)):
                self.say(f"the credentials of {name} open a session, and the binding {why}")
            if not opened and not self._backend.down and self._must_open(access, now):
                self.say(f"the credentials of the live binding {name} open no session")

        self._look_at_sessions()
        self.look_at_orphans()

    def _look_at_sessions(self) -> None:
        """Sessions that should have been ended by a sweep, had nothing stood in its way."""
        for session in self._backend.sessions:
            access = self._ledger.accesses.get(session.uid)
            if session.closed_at is not None or access is None or access.latest is None or access.forgotten:
                continue
            late = self._excuses.unexcused(access.latest, self._backend.clock.now())
            if late > SWEEP + AFTER_SWEEP:
                self.say(f"a session of {access.instance_id}/{access.binding_id} stays open {late} after the end")

    # In the end

    def must_be_told(self, instance: Instance) -> None:
        """An instance that was harmed: if it still differs, its drift is told."""
        space = self._backend.things.get(_name("space", instance.uid))
        applied = instance.applied.parameters if instance.applied else {}
        differs = space is None or {key: value for key, value in space.settings.items() if key != "plan"} != applied
        if differs and instance.drift not in {Drift.DRIFTED, Drift.MISSING}:
            self.say(f"{instance.instance_id} is not as recorded, and its drift is {instance.drift}")

    def compare(self, instances: list[Instance], bindings: list[Binding]) -> None:
        """The records, the backend, and what was told, once nothing moves any more."""
        wanted: set[str] = set()
        for instance in instances:
            wanted |= self._compare_instance(instance)
        for binding in bindings:
            wanted |= self._compare_binding(binding)
        for thing in self._backend.things.values():
            ours = bool(thing.marker) and thing.marker.split(":")[1] == self.store_id
            if ours and thing.name not in wanted:
                self.say(f"the {thing.kind} {thing.name} is left over")
        self._compare_told({record.uid: record for record in instances}, {record.uid: record for record in bindings})

    def _compare_instance(self, instance: Instance) -> set[str]:
        names = {_name(kind, instance.uid) for kind in INSTANCE_KINDS}
        if instance.state is InstanceState.READY:
            for name in sorted(names):
                self._compare_thing(instance, name)
            return names
        if instance.state not in {InstanceState.FAILED, InstanceState.DELETED}:
            self.say(f"the instance {instance.instance_id} stays {instance.state}")
        elif instance.cleanup_required and not self._ledger.forgotten(instance.uid):
            self.say(f"the clean-up of {instance.instance_id} ({instance.state}) never ends")
        return set()

    def _compare_thing(self, instance: Instance, name: str) -> None:
        thing = self._backend.things.get(name)
        if thing is None:
            self.say(f"{instance.instance_id} is READY without its {name}")
            return
        assert instance.applied is not None
        shown = {key: value for key, value in thing.settings.items() if key != "plan"}
        if shown != instance.applied.parameters or thing.settings["plan"] != {"plan": instance.applied.plan_id}:
            self.say(f"{name} of {instance.instance_id} is {thing.settings}, recorded {instance.applied}")
        if thing.disabled:
            self.say(f"{name} of the READY {instance.instance_id} is unusable")

    def _compare_binding(self, binding: Binding) -> set[str]:
        name, where = _name(LOGIN, binding.uid), f"{binding.instance_id}/{binding.binding_id}"
        if binding.state is BindingState.ACTIVE:
            if name not in self._backend.things:
                self.say(f"the binding {where} is ACTIVE without its login")
            return {name}
        if binding.state not in {BindingState.FAILED, BindingState.DELETED}:
            self.say(f"the binding {where} stays {binding.state}")
        elif binding.cleanup_required and not self._ledger.forgotten(binding.uid):
            self.say(f"the clean-up of the binding {where} ({binding.state}) never ends")
        return set()

    def _compare_told(self, instances: dict[str, Instance], bindings: dict[str, Binding]) -> None:
        """What callers were told is what the records say; records of what is gone may be forgotten."""
        for uid, resource in self._ledger.resources.items():
            self._compare_resource(resource, instances.get(uid))
        for uid, access in self._ledger.accesses.items():
            state = bindings[uid].state if uid in bindings else None
            if access.gone and state not in {None, BindingState.DELETED}:
                self.say(f"the binding {access.binding_id} was told to be gone and is {state}")
            if self._must_open(access, self._backend.clock.now()) and state is not BindingState.ACTIVE:
                self.say(f"the binding {access.binding_id} was told to be there and is {state}")

    def _compare_resource(self, resource: Resource, record: Instance | None) -> None:
        name, state = resource.instance_id, record.state if record else None
        if resource.gone and state not in {None, InstanceState.DELETED}:
            self.say(f"{name} was told to be gone and is {state}")
        if not resource.made or resource.unwanted:
            return
        if record is not None and record.drift not in {Drift.IN_SYNC, Drift.UNKNOWN}:
            self.say(f"{name} is in order and said to be {record.drift}")
        if record is None or state is not InstanceState.READY or not record.usable:
            self.say(f"{name} was told to be there and is {state}")
            return
        applied = record.applied.parameters if record.applied else None
        if resource.parameters is not None and applied != resource.parameters:
            self.say(f"{name} has {applied}, told {resource.parameters}")


def _name(kind: str, uid: str) -> str:
    return f"pv_{kind}_{uid.replace('-', '')}"
