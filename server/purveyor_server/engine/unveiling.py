"""Secret parameters of a claimed operation, opened for its provider.

Guarantee: they are opened all or the operation does not go on: a provider never takes the mask for a value. What removes or
undoes what was made goes on with the mask when nothing can be opened: it works by names alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import msgspec
import structlog

from purveyor_server.domain.model import Json
from purveyor_server.domain.states import InstanceState, OperationState, Verb
from purveyor_server.domain.veils import put_back
from purveyor_server.engine.vault import PARAMETER, Sealing
from purveyor_server.store.contract import Claimed

_log = structlog.get_logger(__name__)
HELD = "a secret parameter cannot be unsealed"
_MAKING = frozenset({Verb.PROVISION, Verb.BIND})
_REMOVING = frozenset({Verb.DEPROVISION, Verb.UNBIND})


class VeiledError(Exception):
    """A secret parameter that is needed cannot be opened; the message says no more than that."""


class Parameters(Protocol):
    """A record with parameters: settings or a binding."""

    @property
    def parameters(self) -> dict[str, Json]:
        """With the mask where a secret is."""
        ...

    @property
    def sealed(self) -> dict[str, str]:
        """Places of secrets and their columns."""
        ...


class Unveiled:
    """Opened secret parameters by column; columns name owner and value, so that they are unique in the store."""

    def __init__(self, values: Mapping[str, Json], *, partly: bool = False) -> None:
        self._values = values
        self._partly = partly

    @property
    def values(self) -> tuple[Json, ...]:
        """What was opened."""
        return tuple(self._values.values())

    def parameters(self, record: Parameters) -> dict[str, Json]:
        """The record's parameters with the secrets in their places. Raises VeiledError."""
        if not record.sealed:
            return record.parameters
        found = {place: self._values[column] for place, column in record.sealed.items() if column in self._values}
        if len(found) < len(record.sealed) and not self._partly:
            raise VeiledError(HELD)
        return put_back(record.parameters, found)


def unveiled(claimed: Claimed, sealer: Sealing) -> Unveiled:
    """What of the claim's secrets are parameters, opened as far as they can be."""
    values: dict[str, Json] = {}
    for secret in claimed.secrets:
        if secret.name.startswith(PARAMETER):
            try:
                values[secret.name] = msgspec.json.decode(sealer.open(secret.owner, secret.name, secret.sealed))
            except Exception as error:  # noqa: BLE001 - whatever a sealer raises, the value is not to be had
                _log.warning("secret parameter cannot be opened", owner=secret.owner, error=type(error).__name__)
    return Unveiled(values, partly=_by_names(claimed))


def _by_names(claimed: Claimed) -> bool:
    """Whether what is to be done removes, undoes what was made, makes room for a removal, or is nothing at all."""
    operation = claimed.operation
    if claimed.instance.state is InstanceState.DEPROVISIONING or (operation.cancel_requested and not claimed.steps):
        return True
    if operation.verb is Verb.CLEANUP:
        return claimed.origin is None or claimed.origin.verb in _MAKING | _REMOVING
    back = operation.state is OperationState.ROLLING_BACK
    return operation.verb in _REMOVING or (back and operation.verb in _MAKING)
