"""Topics: credentials are unique, they work, they end, and secrets are where secrets belong and nowhere else."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from structlog.testing import capture_logs

from purveyor_server.domain.model import Json
from purveyor_server.providers.contract import Ability
from purveyor_server.providers.testing.case import Case, ContractBroken
from purveyor_server.providers.testing.kit import Binding, Kit, opened, secrets_of

BINDINGS = 4  # at once
SHORTEST_SECRET = 8  # characters: a shorter text is found everywhere by chance


async def check_unique_credentials(case: Case) -> None:
    """The fields that the provider marks as unique differ between all bindings, of one instance and of two."""
    async with opened(case) as kit:
        kit.needs(Ability.BIND)
        one, two = await kit.provision(), await kit.provision()
        bindings = [await kit.bind(uid) for uid in (one, one, two)]
        fields = kit.provider.schemas.unique_fields
        if not fields:
            raise ContractBroken("schemas.unique_fields names nothing: two bindings could share their credentials")
        for field in sorted(fields):
            _all_different(field, [binding.values for binding in bindings])


def _all_different(field: str, credentials: Iterable[dict[str, Json]]) -> None:
    values = [msgspec.json.encode(one[field]) for one in credentials if field in one]  # a choice may leave one out
    if len(set(values)) < len(values):
        raise ContractBroken(f"two bindings got the same {field!r}, which schemas.unique_fields names")


async def check_binds_at_once(case: Case) -> None:
    """Several binds at the same moment all work, are all different, and can all be taken away at the same moment."""
    async with opened(case) as kit:
        kit.needs(Ability.BIND)
        uid = await kit.provision()
        before = await case.listing()
        bindings = await asyncio.gather(*(kit.bind(uid) for _ in range(BINDINGS)))
        for field in sorted(kit.provider.schemas.unique_fields):
            _all_different(field, [binding.values for binding in bindings])
        await asyncio.gather(*(kit.unbind(binding) for binding in bindings))
        await kit.same(before, "after binds and unbinds at the same moment")


async def check_access(case: Case) -> None:
    """Credentials give access; after the unbind they do not; a sibling's still do."""
    async with opened(case) as kit:
        kit.needs(Ability.BIND)
        uid = await kit.provision()
        ended, kept = await kit.bind(uid), await kit.bind(uid)
        for binding in (ended, kept):
            await case.use(binding.values)
        await kit.unbind(ended)
        if await _usable(case, ended):
            raise ContractBroken("credentials still give access after the unbind")
        await case.use(kept.values)


async def check_expiry(case: Case) -> None:
    """Credentials whose time is over give no access, without the broker's help; others do."""
    async with opened(case) as kit:
        kit.needs(Ability.EXPIRY)
        uid, now = await kit.provision(), datetime.now(UTC)
        await case.use((await kit.bind(uid, expires_at=now + timedelta(hours=1))).values)
        if await _usable(case, await kit.bind(uid, expires_at=now - timedelta(seconds=1))):
            raise ContractBroken("credentials give access after their expiry")


async def _usable(case: Case, binding: Binding) -> bool:
    try:
        await case.use(binding.values)
    except Exception:  # noqa: BLE001 - whatever a client raises, it did not come in
        return False
    return True


async def check_secrecy(case: Case) -> None:
    """Secrets are in `secrets` and in the credentials' secret fields, in no output, report, note, observation or log line."""
    with capture_logs() as logs:
        async with opened(case) as kit:
            uid = await kit.provision()
            if Ability.BIND in kit.provider.abilities:
                await kit.bind(uid)
            if Ability.UPDATE in kit.provider.abilities and case.changed is not None:
                await kit.update(kit.update_of(uid))
            told = [*_told(kit), *await _observed(kit, uid), *map(str, logs)]
            hidden = _hidden(kit)
            _check_marked(kit, hidden)
    for where, text in ((text.partition(":")[0], text) for text in told):
        if any(secret in text for secret in hidden):
            raise ContractBroken(f"a secret is in clear in {where[:80]}")


def _hidden(kit: Kit) -> set[str]:
    minted = {secret.reveal() for journal in kit.journals.values() for secret in secrets_of(journal).values()}
    given = {
        str(binding.values[field])
        for binding in kit.bindings.values()
        for field in kit.provider.schemas.secret_fields
        if field in binding.values
    }
    return {secret for secret in minted | given if len(secret) >= SHORTEST_SECRET}


def _told(kit: Kit) -> list[str]:
    outputs = [f"outputs: {found!r}" for found in kit.outputs.values()]
    outputs += [f"outputs of a bind: {found!r}" for found in kit.bound.values()]
    return outputs + [f"a report: {text}" for journal in kit.journals.values() for text in journal.said]


async def _observed(kit: Kit, uid: str) -> list[str]:
    told = []
    if Ability.OBSERVE in kit.provider.abilities:
        told.append(f"what observe says: {await kit.observe(uid)!r}")
    if Ability.LIST_OWNED in kit.provider.abilities:
        told.append(f"what list_owned says: {await kit.owned()!r}")
    return told


def _check_marked(kit: Kit, hidden: set[str]) -> None:
    """A credentials field that contains a secret is itself one."""
    marked = kit.provider.schemas.secret_fields
    for binding in kit.bindings.values():
        for field, value in binding.values.items():
            if field not in marked and any(secret in _text(value) for secret in hidden):
                raise ContractBroken(
                    f"the credentials field {field!r} holds a secret; schemas.secret_fields does not name it"
                )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else str(value)
