"""Hands behind the broker's back: they leave orphans with our marker, things of others, and harm to what is ours.

Guarantee: what they do meets no judge; what becomes of it afterwards does.
"""

from __future__ import annotations

import random
import uuid

from tests.year.actions import Flood, Harm, Litter, Stranger, Tamper
from tests.year.backend import Backend, Thing
from tests.year.catalogs import INVENTORY
from tests.year.judge import Judge
from tests.year.ledger import Ledger

FLOOD = INVENTORY.brake_count + 2  # things
ELSEWHERE = "00000000-0000-7000-8000-00000000e15e"  # another broker's store


class Strangers:
    """Whoever has an account in the backend."""

    def __init__(self, backend: Backend, ledger: Ledger, judge: Judge, chance: random.Random) -> None:
        self.harmed: set[str] = set()  # uids of instances
        self.flooded = False
        self._backend = backend
        self._ledger = ledger
        self._judge = judge
        self._chance = chance

    def do(self, action: Litter | Flood | Stranger | Tamper) -> None:
        """One deed."""
        match action:
            case Litter(kind, of_gone):
                self.litter(kind, of_gone=of_gone)
            case Flood():
                self.flood()
            case Stranger(kind, marked):
                self.own(kind, marked=marked)
            case Tamper(instance, harm):
                self.tamper(instance, harm)

    def litter(self, kind: str, *, of_gone: bool) -> None:
        """Something with our marker that no record stands for. Not in a store that is as good as new: to that one, a marker is the
        proof that it was put back to an older state, and it deletes nothing."""
        if not self._ledger.resources:
            return
        gone = sorted(uid for uid, resource in self._ledger.resources.items() if resource.gone)
        uid = gone[-1] if of_gone and gone else self._uid()
        thing = self._make(kind, uid, self._judge.store_id)
        if thing is not None:
            self._judge.orphans[thing.name] = self._backend.clock.now()

    def flood(self) -> None:
        """Once only: what operators have let pass before may pass again."""
        if self.flooded or not self._ledger.resources:
            return
        self.flooded = self._judge.flooded = True
        for number in range(FLOOD):
            self.litter("login" if number % 2 else "space", of_gone=False)

    def own(self, kind: str, *, marked: bool) -> None:
        """Something that is nobody's business here."""
        self._make(kind, self._uid(), ELSEWHERE if marked else "")

    def tamper(self, instance: str, harm: Harm) -> None:
        """Harm the space of a live instance."""
        for uid, resource in self._ledger.resources.items():
            name = f"pv_space_{uid.replace('-', '')}"
            live = resource.instance_id == instance and resource.made and not resource.gone
            if not live or name not in self._backend.things:
                continue
            resource.harmed = True
            self.harmed.add(uid)
            if harm is Harm.DROP:
                del self._backend.things[name]
            else:
                self._backend.things[name].settings["size"] = 99

    def _make(self, kind: str, uid: str, store: str) -> Thing | None:
        name = f"pv_{kind}_{uid.replace('-', '')}"
        if name in self._backend.things:
            return None
        marker = f"purveyor:{store}:{uid}:1" if store else ""
        return self._backend.put(Thing(kind, name, uid, marker))

    def _uid(self) -> str:
        return str(uuid.UUID(int=self._chance.getrandbits(128), version=4))
