"""New credentials for the accounts that the broker itself uses in a backend.

Guarantee: that it begins is on record before the provider is asked, and how it ended afterwards; no secret is in either.
Limit: the provider's own rotation is safe to be cut off; what it had done by then, a second one finds and finishes.
"""

from __future__ import annotations

from purveyor_server.domain.errors import Resource
from purveyor_server.domain.model import Json
from purveyor_server.lifecycle.admin.acts import enter, record, tell
from purveyor_server.lifecycle.admin.contract import Act, AdminParts
from purveyor_server.lifecycle.admin.inventories import abilities_of, find_provider, refused
from purveyor_server.lifecycle.contract import Caller
from purveyor_server.lifecycle.door import Action
from purveyor_server.providers.abilities import RootRotated
from purveyor_server.providers.contract import Ability, ProviderError
from purveyor_server.providers.registry import ProviderMissingError


async def rotate_root(parts: AdminParts, caller: Caller, provider: str, act: Act) -> RootRotated:
    """Rotate them. Raises INVALID_REQUEST, WRONG_STATE (it cannot, it refuses, or it does not answer, with what to do)."""
    enter(parts, caller, Action.ROTATE_ROOT_CREDENTIALS, act)
    ref = await find_provider(parts, provider)
    if Ability.ROTATE_ROOT not in abilities_of(parts, ref):
        text = f"the provider {provider!r} has no credentials of its own that can be rotated here"
        raise refused(text, Resource("provider", provider), "ROTATE_ROOT", provider=provider)
    if act.validate_only:
        return RootRotated(())
    resource = f"provider/{provider}"
    await parts.store.note(record(parts, caller, Action.ROTATE_ROOT_CREDENTIALS, act, resource, phase="begun"))
    try:
        rotated = await parts.backends.rotate_root(ref)
    except (ProviderError, ProviderMissingError) as error:
        said = error.message if isinstance(error, ProviderError) else str(error)
        noted = record(parts, caller, Action.ROTATE_ROOT_CREDENTIALS, act, resource, phase="ended", failure=said)
        await parts.store.note(noted)
        text = f"{said}: {error.detail}" if isinstance(error, ProviderError) and error.detail else said
        raise refused(text, Resource("provider", provider), "ROTATE_ROOT", provider=provider) from error
    facts: dict[str, Json] = {"accounts": list(rotated.accounts), "left": list(rotated.left)}
    noted = record(parts, caller, Action.ROTATE_ROOT_CREDENTIALS, act, resource, phase="ended", failure="", **facts)
    await parts.store.note(noted)
    tell(parts, caller, Action.ROTATE_ROOT_CREDENTIALS, act, resource)
    return rotated
