"""Asks of the rules about the times of bindings, as their use-cases prepare them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from msgspec.structs import replace

from purveyor_server.domain.policies import LeasePolicy
from purveyor_server.domain.states import Verb
from purveyor_server.kit.ids import new_id
from purveyor_server.lifecycle.contract import Renew, Rotate
from purveyor_server.lifecycle.renew import RenewAsk
from purveyor_server.lifecycle.rotate import RotateAsk
from tests.fakes.rules import BOOK, KNOWN, SETTINGS, order
from tests.fakes.situations import INSTANCE, TENANT

HOUR = timedelta(hours=1)
POLICY = LeasePolicy(ttl=HOUR, max_ttl=4 * HOUR, renew_before=HOUR / 4, overlap=HOUR / 2)
LEASED = replace(KNOWN, lease=POLICY, rotatable=True)


class OneBook:
    """A book with one page."""

    def __init__(self, plan: Any) -> None:
        self.plan = plan

    def get(self, digest: str) -> Any:
        return self.plan


def renew_ask(binding_id: str = "app", plan: Any = None, **sent: Any) -> RenewAsk:
    return RenewAsk(
        request=Renew(tenant=TENANT, instance_id=INSTANCE, binding_id=binding_id, **sent),
        order=order(Verb.RENEW, INSTANCE, binding_id),
        book=BOOK if plan is None else OneBook(plan),  # type: ignore[arg-type] # as much of a book as a rule needs
        settings=SETTINGS,
    )


def rotate_ask(binding_id: str = "app", old: str = "", **changes: Any) -> RotateAsk:
    sent = {name: changes.pop(name) for name in ("successor_id", "ttl", "overlap", "etag") if name in changes}
    fields: dict[str, Any] = {
        "request": Rotate(tenant=TENANT, instance_id=INSTANCE, binding_id=binding_id, **sent),
        "order": order(Verb.BIND, INSTANCE, sent.get("successor_id") or new_id()),
        "uid": new_id(),
        "digest": "d2",
        "settings": SETTINGS,
        "old": old,
        "plan": replace(KNOWN, rotatable=True),
    }
    return RotateAsk(**(fields | changes))
