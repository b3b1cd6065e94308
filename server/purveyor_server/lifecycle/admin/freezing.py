"""Freeze and thaw.

Guarantee: once a freeze is answered no outside call that it holds begins; the record of it is in the same command.
"""

from __future__ import annotations

from purveyor_server.domain.errors import invalid
from purveyor_server.domain.freezes import RECOVERY, Freeze, check_name
from purveyor_server.lifecycle.admin.acts import enter, record, tell
from purveyor_server.lifecycle.admin.contract import Act, AdminParts
from purveyor_server.lifecycle.contract import Caller
from purveyor_server.lifecycle.door import Action


async def freeze(parts: AdminParts, caller: Caller, name: str, act: Act) -> Freeze:
    """Stop what `name` is about; the freeze that holds now. Raises INVALID_REQUEST."""
    reason = enter(parts, caller, Action.FREEZE, act)
    wanted = Freeze(_settable(name), reason, caller.subject, parts.clock.now())
    if act.validate_only:
        return wanted
    kept = await parts.store.freeze(wanted, record(parts, caller, Action.FREEZE, act, f"freeze/{name}"))
    tell(parts, caller, Action.FREEZE, act, f"freeze/{name}")
    return kept


async def thaw(parts: AdminParts, caller: Caller, name: str, act: Act) -> tuple[Freeze | None, int]:
    """Let go again; the freeze that was there, and how many operations go on. Raises INVALID_REQUEST."""
    enter(parts, caller, Action.THAW, act)
    _settable(name)
    if act.validate_only:
        return next((kept for kept in await parts.store.freezes() if kept.name == name), None), 0
    found = await parts.store.thaw(name, record(parts, caller, Action.THAW, act, f"freeze/{name}"))
    tell(parts, caller, Action.THAW, act, f"freeze/{name}")
    return found, await parts.store.unfreeze() if found is not None else 0


def _settable(name: str) -> str:
    if name == RECOVERY:
        raise invalid("name", "recovery is set by a restore and ended by `purveyor recover --finish`")
    return check_name(name)
