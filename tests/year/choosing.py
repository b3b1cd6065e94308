"""What a caller who knows his instances would do next: most stories are to get somewhere."""

from __future__ import annotations

from tests.year import actions
from tests.year.actions import Action
from tests.year.ledger import Access, Ledger

PLANS = ("small", "large", "leased", "leased", "delayed", "manual")
BINDINGS = ("x", "y")
OPERATOR = 89  # and those from here on by operators
AFTER_FAILURE = 75  # what did not come to be may have been tried
SENSELESS = 92  # choices from here on are made whatever is there


def suited(ledger: Ledger, instance: str, choice: int, number: int) -> Action:
    """The action that `choice` (0..99) stands for when the callers know what `ledger` says; `number` (1..6) gives its details."""
    there = any(r.instance_id == instance and r.made and not r.gone for r in ledger.resources.values())
    bound = [a for a in ledger.accesses.values() if a.instance_id == instance and a.made and not a.gone]
    if choice >= SENSELESS:
        return _any(instance, choice - SENSELESS, number)
    if not there and choice >= AFTER_FAILURE:
        return (actions.Retry, actions.CleanUp, actions.Deprovision)[number % 3](instance)
    if not there:
        return actions.Provision(instance, PLANS[number - 1], number)
    return _next(instance, bound, choice, number)


def _next(instance: str, bound: list[Access], choice: int, number: int) -> Action:
    free = [name for name in BINDINGS if name not in {access.binding_id for access in bound}]
    known = bound[number % len(bound)].binding_id if bound else ""
    if choice < 35 and free:
        return actions.Bind(instance, free[number % len(free)], (0, 0, 5, 20, 40, 50)[number - 1])
    if choice < 45 and bound:
        return actions.Unbind(instance, known)
    if choice < 55 and bound:
        return actions.Renew(instance, known, (0, 0, 1, 20, 40, 100)[number - 1])
    if choice < 65 and bound:
        return actions.Rotate(instance, known)
    if choice < 82:
        return actions.Update(instance, number, ("", "", "small", "large", "leased", "")[number - 1])
    if choice >= OPERATOR:
        every: tuple[Action, ...] = (
            actions.Purge(instance),
            actions.Repair(instance),
            actions.Repair(instance),
            actions.Retry(instance),
            actions.Retry(instance),
            actions.CleanUp(instance),
        )
        return every[number - 1]
    return actions.Deprovision(instance, cascade=bool(bound) or number > 3)


def _any(instance: str, kind: int, number: int) -> Action:
    binding = BINDINGS[number % 2]
    every: tuple[Action, ...] = (
        actions.Cancel(instance),
        actions.Cancel(instance),
        actions.Cancel(instance),
        actions.Provision(instance, PLANS[number - 1], number),
        actions.Update(instance, number, "large"),
        actions.Bind(instance, binding),
        actions.Unbind(instance, binding),
        actions.Deprovision(instance, cascade=number > 3),
    )
    return every[kind]
