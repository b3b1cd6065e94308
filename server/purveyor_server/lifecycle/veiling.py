"""Secret parameters at the door: sealed before anything is stored, put back for the provider alone.

Guarantee: a record, and with it every event, answer and log line, holds MASK where a secret parameter was; the value is
sealed under the uid of its instance or binding. Its column is named by a keyed digest of the value, so equal values are
equal settings, and nobody without the store's key can try guesses.
Limit: what was replaced by an update stays sealed in the store until the instance is deleted: its undo may need it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import structlog

from purveyor_server.domain.catalog import JsonSchema
from purveyor_server.domain.digests import keyed_digest
from purveyor_server.domain.errors import Violation
from purveyor_server.domain.model import Binding, Json, Operation, SealedSecret
from purveyor_server.domain.parameters import refuse
from purveyor_server.domain.veils import put_back, secret_places, take_out, top_of
from purveyor_server.engine.vault import PARAMETER
from purveyor_server.kit.hiding import MASK
from purveyor_server.lifecycle.ports import Opener
from purveyor_server.lifecycle.running import Parts
from purveyor_server.security.sealing import SealError
from purveyor_server.store.contract import Decision, Reads

_log = structlog.get_logger(__name__)


class Veiled(msgspec.Struct, frozen=True):
    """Parameters as they may be shown, the columns of what was taken out of them by place, and what is to be stored."""

    shown: dict[str, Json]
    columns: dict[str, str] = {}
    rows: tuple[SealedSecret, ...] = ()
    clear: dict[str, Json] = {}  # by column; for what is not stored


def veil(parts: Parts, owner: str, schemas: Sequence[JsonSchema | None], parameters: Mapping[str, Json]) -> Veiled:
    """Seal what the schemas mark, for the row `owner`. Raises INVALID_PARAMETERS for a value that is MASK itself."""
    places = secret_places(schemas, parameters)
    if not places:
        return Veiled(dict(parameters))
    shown, taken = take_out(parameters, places)
    refuse(
        tuple(
            Violation(
                f"parameters{place.replace('/', '.')}"[:300], "is what is shown instead of a secret: leave it out"
            )
            for place, value in taken.items()
            if value == MASK
        )
    )
    return _sealed(parts, owner, shown, taken)


def _column(parts: Parts, owner: str, place: str, value: Json) -> str:
    return PARAMETER + keyed_digest(parts.digest_key, "parameter", owner, place, value)[:32]


async def carried(parts: Parts, kept: Binding, owner: str) -> Veiled:
    """The parameters of a binding, its secret ones sealed anew for the row `owner`. Raises SealError."""
    clear = await opened(parts.store, parts.opener, kept.uid, kept.sealed)
    taken = {place: clear[column] for place, column in kept.sealed.items()}
    return _sealed(parts, owner, kept.parameters, taken)


def _sealed(parts: Parts, owner: str, shown: dict[str, Json], taken: Mapping[str, Json]) -> Veiled:
    columns = {place: _column(parts, owner, place, value) for place, value in taken.items()}
    clear = {columns[place]: value for place, value in taken.items()}
    rows = tuple(
        SealedSecret(owner, column, parts.opener.seal(owner, column, msgspec.json.encode(value)))
        for column, value in clear.items()
    )
    return Veiled(shown, columns, rows, clear)


def merged(kept: Mapping[str, str], sent: Mapping[str, Json], columns: Mapping[str, str]) -> dict[str, str]:
    """Columns after an update: those of keys that were not sent, and those of what was."""
    return {place: column for place, column in kept.items() if top_of(place) not in sent} | dict(columns)


def unveil(parameters: Mapping[str, Json], columns: Mapping[str, str], clear: Mapping[str, Json]) -> dict[str, Json]:
    """The parameters with what is known in `clear` (by column) put back."""
    return put_back(parameters, {place: clear[column] for place, column in columns.items() if column in clear})


async def stored_clear(parts: Parts, operation: Operation | None) -> dict[str, Json]:
    """Clear values by column that a preview needs besides those of its request; none when they cannot be opened."""
    settings = None if operation is None else operation.was or operation.want
    if operation is None or settings is None:
        return {}
    try:
        return await opened(parts.store, parts.opener, operation.instance_uid, settings.sealed)
    except SealError as error:
        _log.warning("secret parameters cannot be opened", instance_uid=operation.instance_uid, error=str(error))
        return {}


async def binding_clear(parts: Parts, decision: Decision) -> dict[str, Json]:
    """Clear values by column for the preview of work on a binding that is there; none when they cannot be opened."""
    clear, binding = await stored_clear(parts, decision.operation), decision.binding
    if binding is None:
        return clear
    try:
        return clear | await opened(parts.store, parts.opener, binding.uid, binding.sealed)
    except SealError as error:
        _log.warning("secret parameters cannot be opened", binding_uid=binding.uid, error=str(error))
        return clear


async def opened(store: Reads, opener: Opener, owner: str, columns: Mapping[str, str]) -> dict[str, Json]:
    """Clear values by column. Raises SealError, also for one that is not there."""
    clear = {}
    for column in columns.values():
        secret = await store.secret(owner, column)
        if secret is None:
            raise SealError("a secret parameter is not stored")
        clear[column] = msgspec.json.decode(opener.open(owner, column, secret.sealed))
    return clear
