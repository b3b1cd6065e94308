"""Tells a story: does what its actions say to a whole broker in simulated time, and has it judged.

Guarantee: a story is told to its end whatever is refused on the way; in the end everybody gives way (the backend is there,
nothing is frozen), and what the broker then has not finished within `PATIENCE` it never will.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Coroutine
from datetime import timedelta
from typing import Any

import msgspec

from purveyor_server.domain.errors import PurveyorError
from purveyor_server.domain.model import Binding, EventKind, Instance, Operation
from purveyor_server.domain.states import BindingState, InstanceState, Verb
from purveyor_server.lifecycle import contract
from purveyor_server.lifecycle.admin.purging import Aim
from purveyor_server.lifecycle.contract import Listing, Outcome
from purveyor_server.store.contract import Backlog, Commit
from tests.year import actions, catalogs
from tests.year.actions import Action
from tests.year.catalogs import LEASES, REF
from tests.year.house import DAY, House, Process
from tests.year.judge import AFTER_TROUBLE, Excuses, Judge
from tests.year.ledger import Ledger
from tests.year.operating import ACT, CALLER, Operator
from tests.year.strangers import Strangers

TENANT = "acme"
PATIENCE = 30 * DAY  # seconds in which everything has to end, once nothing stands in its way
HOUR = 3600.0
MOMENTS = 20
PARTS = 10  # of the quiet time; after each, operators look after alarms, and applications use what they have
DRIFT_TOLD = 25 * DAY  # seconds after which two looks have been taken at every instance


class Figures(Counter[str]):
    """What happened: operations, crashes, logins, calls, refusals by reason."""


class Teller:
    """One story, as it goes."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.ledger = Ledger()
        self.excuses = Excuses(house.backend.clock)
        self.judge = Judge(house.backend, self.ledger, self.excuses)
        self.strangers = Strangers(house.backend, self.ledger, self.judge, house.chance)
        self.figures = Figures()
        self.newest: dict[str, Operation] = {}  # the newest operation that a caller knows of, by instance id
        self.operator = Operator(house, self._ask, self.newest)
        self._renewing: set[str] = set()  # bindings whose end is being moved
        house.on_commit = self._heard
        house.on_start = self._catch_up
        house.on_die = lambda: self.excuses.begin("no broker")
        house.backend.on_trouble = self._excuse

    def _heard(self, commit: Commit) -> None:
        self.ledger.hear(commit.operations)
        for operation in commit.operations:
            if operation.verb is Verb.RENEW:
                (self._renewing.discard if operation.done else self._renewing.add)(operation.binding_uid)
        for event in commit.events:
            if event.kind is EventKind.BINDING:
                self._see(msgspec.json.decode(event.body, type=Binding))

    def _see(self, binding: Binding) -> None:
        """A binding, as watchers and readers are told of it."""
        at_work = binding.state in {BindingState.BINDING, BindingState.UNBINDING}
        busy = at_work or binding.uid in self._renewing
        lease = LEASES[binding.plan_id]
        self.ledger.see(binding, busy=busy, max_ttl=lease.max_ttl, overlap=lease.overlap)

    async def _catch_up(self, process: Process) -> None:
        """What was committed in the moment of a crash was not told: read it, as a caller does who comes back."""
        self.judge.store_id = process.store.store_id
        self.excuses.end("no broker")
        token = ""
        while True:
            page = await process.use_cases.list_operations(CALLER, Listing(tenant=TENANT, page_token=token))
            self.ledger.hear(details.operation for details in page.items)
            if not (token := page.next_page_token):
                break
        for binding in await self._pages(process.use_cases.list_bindings, Listing(tenant=TENANT, show_deleted=True)):
            self._see(binding)

    def _excuse(self, seconds: float) -> None:
        """The backend has failed, or does so for so long."""
        now = self.house.backend.clock.now()
        self.excuses.add(now, now + timedelta(seconds=seconds) + AFTER_TROUBLE)

    # Actions

    async def do(self, action: Action) -> None:
        """One action."""
        match action:
            case actions.Wait(seconds):
                await self.house.live(seconds)
                await self.look()
                await self.react()
                self.judge.use_everything()
            case actions.Crash(down):
                await self.house.crash(down)
            case actions.CutAtCommit(count):
                self.house.cut_at_commit(count)
            case actions.Plant(call, fault):
                self.house.backend.faults[call].append(fault)
            case actions.Outage(seconds):
                self.house.backend.go_away(seconds)
            case actions.Use():
                self.judge.use_everything()
            case actions.Freeze(name):
                self.excuses.begin(name)
                if await self._ask(self.house.process.admin.freeze(CALLER, name, ACT)) is not None:
                    self.judge.frozen.setdefault(name, self.house.backend.clock.now())
            case actions.Thaw(name):
                self.judge.frozen.pop(name, None)
                await self._ask(self.house.process.admin.thaw(CALLER, name, ACT))
                self.excuses.end(name)
            case actions.Litter() | actions.Flood() | actions.Stranger() | actions.Tamper():
                self.strangers.do(action)
            case actions.Apply() | actions.Campaign() | actions.Steer() | actions.Retry() | actions.CleanUp():
                await self.operator.do(action)
            case _:
                await self._verb(action)

    async def _verb(self, action: Action) -> None:
        match action:
            case actions.Provision(instance, plan, size):
                await self._provision(instance, plan, size)
            case actions.Update(instance, size, plan):
                await self._update(instance, size, plan)
            case actions.Deprovision(instance, cascade):
                await self._remove(instance, cascade=cascade)
            case actions.Bind(instance, binding, days):
                await self._bind(instance, binding, days)
            case actions.Unbind(instance, binding):
                await self._unbind(instance, binding)
            case actions.Renew(instance, binding, days):
                await self._renew(instance, binding, days)
            case actions.Rotate(instance, binding):
                await self._rotate(instance, binding)
            case actions.Repair(instance):
                await self._repair(instance)
            case actions.Purge(instance):
                await self._purge(instance)
            case actions.Cancel(instance) if instance in self.newest:
                operation_id = self.newest[instance].operation_id
                await self._ask(self.house.process.use_cases.cancel_operation(CALLER, operation_id))

    async def _ask(self, call: Coroutine[Any, Any, Any]) -> Any:
        """The answer; None when it was refused, or cut off."""
        try:
            return await self.house.ask(call)
        except PurveyorError as refusal:
            self.figures[f"refused {refusal.reason}"] += 1
            return None

    def _took(self, instance: str, outcome: Outcome | None) -> Operation | None:
        if outcome is None or outcome.operation is None:
            return None
        self.newest[instance] = outcome.operation
        return outcome.operation

    async def _provision(self, instance: str, plan: str, size: int) -> None:
        parameters = {"size": size}
        request = contract.Provision(
            tenant=TENANT,
            instance_id=instance,
            service_id=catalogs.SERVICE,
            plan_id=plan,
            parameters=parameters,
            body={"plan": plan, "size": size},
        )
        outcome = await self._ask(self.house.process.use_cases.provision(CALLER, request))
        operation = self._took(instance, outcome)
        if operation is not None and not outcome.replayed:
            self.ledger.wish(operation, parameters)

    async def _update(self, instance: str, size: int, plan: str) -> None:
        request = contract.Update(
            tenant=TENANT,
            instance_id=instance,
            parameters={"size": size},
            plan_id=plan or None,
            body={"plan": plan, "size": size},
        )
        outcome = await self._ask(self.house.process.use_cases.update(CALLER, request))
        operation = self._took(instance, outcome)
        if operation is not None and not outcome.replayed:
            self.ledger.wish(operation, {"size": size})

    async def _remove(self, instance: str, *, cascade: bool) -> None:
        request = contract.Deprovision(tenant=TENANT, instance_id=instance, cascade=cascade)
        await self._end(instance, "", self.house.process.use_cases.deprovision(CALLER, request))

    async def _unbind(self, instance: str, binding: str) -> None:
        request = contract.Unbind(tenant=TENANT, instance_id=instance, binding_id=binding)
        await self._end(instance, binding, self.house.process.use_cases.unbind(CALLER, request))

    async def _end(self, instance: str, binding: str, call: Coroutine[Any, Any, Outcome]) -> None:
        """A removal: from the moment of asking nobody may rely on what is to be removed, unless it is refused."""
        wanted = self.ledger.unwant(TENANT, instance, binding)
        try:
            self._took(instance, await self.house.ask(call))
        except PurveyorError as refusal:
            self.figures[f"refused {refusal.reason}"] += 1
            for record in wanted:
                record.unwanted = False

    async def _bind(self, instance: str, binding: str, days: int) -> None:
        ttl = timedelta(days=days) if days else None
        request = contract.Bind(
            tenant=TENANT, instance_id=instance, binding_id=binding, ttl=ttl, body={"binding": binding, "days": days}
        )
        outcome = await self._ask(self.house.process.use_cases.bind(CALLER, request))
        operation = self._took(instance, outcome)
        if operation is not None:
            self.ledger.access(operation)

    async def _renew(self, instance: str, binding: str, days: int) -> None:
        ttl = timedelta(days=days) if days else None
        request = contract.Renew(
            tenant=TENANT,
            instance_id=instance,
            binding_id=binding,
            ttl=ttl,
            allow_shorter=days == 1,
            body={"days": days, "now": self.house.now},
        )
        self._took(instance, await self._ask(self.house.process.use_cases.renew(CALLER, request)))

    async def _rotate(self, instance: str, binding: str) -> None:
        request = contract.Rotate(tenant=TENANT, instance_id=instance, binding_id=binding, body={})
        outcome = await self._ask(self.house.process.use_cases.rotate(CALLER, request))
        if (operation := self._took(instance, outcome)) is not None:
            self.ledger.access(operation)

    async def _repair(self, instance: str) -> None:
        request = contract.Repair(tenant=TENANT, instance_id=instance, reason=ACT.reason)
        self._took(instance, await self._ask(self.house.process.admin.repair(CALLER, request)))

    async def _purge(self, instance: str) -> None:
        """What is forgotten is an orphan from then on."""
        wanted = self.ledger.unwant(TENANT, instance)
        aim = Aim(TENANT, instance, even_if_in_use=True)
        try:
            found = await self.house.ask(self.house.process.admin.purge(CALLER, aim, ACT))
        except PurveyorError as refusal:
            self.figures[f"refused {refusal.reason}"] += 1
            for record in wanted:
                record.unwanted = False
        else:
            self.ledger.forget(TENANT, instance)
            self.figures["purged"] += found is not None

    # What callers look at

    async def look(self) -> None:
        """Callers fetch the credentials that they have not got yet."""
        for access in tuple(self.ledger.accesses.values()):
            if access.made and not access.gone and not access.credentials:
                about = (TENANT, access.instance_id, access.binding_id)
                found = await self._ask(self.house.process.use_cases.get_credentials(CALLER, *about))
                if found is not None and access.uid.replace("-", "") in found["username"]:
                    access.credentials = found

    async def react(self) -> None:
        """What the broker has raised the alarm about, an operator looks at, and has it go on: a list may well have shrunk here."""
        inventory = await self.house.process.store.inventory(REF.name)
        if inventory is None or inventory.brake is None:
            return
        self.figures["brakes"] += 1
        self.strangers.flooded, self.judge.flooded = True, False
        self.excuses.add(inventory.brake.at, self.house.clock.now() + AFTER_TROUBLE)
        await self._ask(self.house.process.admin.resume_sweep(CALLER, REF.name, ACT))

    # The end

    async def finish(self, quiet: float) -> None:
        """Everybody gives way; everything has to end; `quiet` seconds pass; then the records are compared."""
        self.house.spare()
        self.house.backend.go_away(0.0)
        self.house.backend.faults.clear()
        for name in actions.FreezeName:
            await self.do(actions.Thaw(name))
        await self._quiet()
        await self.operator.end_campaigns()
        await self._quiet()
        await self._mend()
        for _ in range(3):
            await self._quiet()
            if not await self._ask_again():
                break
        await self.look()
        await self.react()
        await self.do(actions.Use())
        for _ in range(PARTS):
            await self.house.live(quiet / PARTS)
            await self.react()
            await self.look()
            self.judge.use_everything()
        await self._quiet()
        await self.react()
        await self.do(actions.Use())
        await self.operator.check_campaigns(self.judge, self.ledger.moves)
        self.judge.compare(*await self._at_rest())

    async def _at_rest(self) -> tuple[list[Instance], list[Binding]]:
        """All records at one moment at which nothing is at work: a loop may have begun something just now."""
        moments = 0
        while True:
            await self._quiet()
            store = self.house.process.store
            head, moments = store.head, moments + 1
            found = await self._instances(), await self._bindings()
            if moments == MOMENTS or (store.head == head and await store.backlog() == Backlog(0, 0)):
                return found
            await self.house.live(HOUR)

    async def _mend(self) -> None:
        """What was harmed must have been told to be; then it is made again."""
        if not self.strangers.harmed:
            return
        await self.house.live(DRIFT_TOLD)
        for instance in await self._instances():
            if instance.uid in self.strangers.harmed and instance.state is InstanceState.READY:
                self.judge.must_be_told(instance)
                await self._repair(instance.instance_id)

    async def _quiet(self) -> None:
        """Until no operation is left and nothing is on its way."""
        end = self.house.now + PATIENCE
        while self.house.now < end:
            backlog = await self.house.process.store.backlog()
            if backlog == Backlog(0, 0) and not self.house.backend.late:
                return
            await self.house.live(HOUR / 4)
        page = await self._pages(self.house.process.use_cases.list_operations, Listing(tenant=TENANT))
        for details in page:
            if not (operation := details.operation).done:
                what = f"{operation.verb} of {operation.instance_id} is {operation.state}, {operation.waiting}"
                self.judge.say(f"{what}: {operation.waiting_detail}")

    async def _ask_again(self) -> bool:
        """Removals that failed are asked for again, as people do; whether there were any."""
        asked = False
        for binding in await self._bindings():
            kept = binding.state is BindingState.FAILED and binding.plan_id == "manual" and binding.cleanup_required
            if kept or binding.state in {BindingState.UNBINDING, BindingState.REVOCATION_BLOCKED}:
                await self._unbind(binding.instance_id, binding.binding_id)
                asked = True
        for instance in await self._instances():
            manual = instance.desired.plan_id == "manual" and instance.cleanup_required
            kept = instance.state is InstanceState.FAILED and manual
            if kept or instance.state is InstanceState.DELETE_FAILED:
                await self._remove(instance.instance_id, cascade=True)
                asked = True
        return asked

    async def _instances(self) -> list[Instance]:
        return await self._pages(self.house.process.use_cases.list_instances, Listing(tenant=TENANT, show_deleted=True))

    async def _bindings(self) -> list[Binding]:
        return await self._pages(self.house.process.use_cases.list_bindings, Listing(tenant=TENANT, show_deleted=True))

    async def _pages(self, read: Any, listing: Listing) -> list[Any]:
        found, token = [], ""
        while True:
            page = await read(CALLER, msgspec.structs.replace(listing, page_token=token))
            found += page.items
            if not (token := page.next_page_token):
                return found
