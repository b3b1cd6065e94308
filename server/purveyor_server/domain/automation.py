"""What the broker may do to an instance by itself.

Guarantee: the one place that says so; every loop asks here before it acts. Credentials end when they end, whatever is paused: a
time that was promised to be the last is no automatism.
"""

from __future__ import annotations

from purveyor_server.domain.model import Instance

AUTOMATION = "AUTOMATION"  # the precondition that a refusal for its sake names


def why_left_alone(instance: Instance) -> str:
    """Why no loop may change it (rotate, upgrade, move, repair, delete), "" when one may."""
    pause = instance.reconcile_paused
    return "" if pause is None else f"reconciliation is paused by {pause.principal}: {pause.reason}"


def why_kept(instance: Instance) -> str:
    """Why no loop may delete it, "" when one may."""
    if instance.deletion_protected:
        return "it is protected from deletion"
    if instance.adopted:
        return "it is adopted: it was there before the broker"
    return why_left_alone(instance)
