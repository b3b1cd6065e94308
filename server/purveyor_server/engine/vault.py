"""The secrets of one resource while its operation runs.

Guarantee: a secret is minted once, sealed, and committed by the STARTED command of its step before the step sees it; it is
opened only where a forward step or the credentials ask, so deletions work when nothing can be unsealed.
"""

from __future__ import annotations

from typing import Protocol

from purveyor_server.domain.digests import keyed_digest
from purveyor_server.domain.model import Json, SealedSecret, UniqueMark
from purveyor_server.domain.states import Make
from purveyor_server.kit.secret import Secret
from purveyor_server.providers.contract import Permanent, PlannedStep

CREDENTIALS = "credentials"
PARAMETER = ":parameter/"  # columns of secret parameters begin so


class Sealing(Protocol):
    """Seals and opens secrets, bound to their row and column."""

    def seal(self, owner: str, name: str, clear: bytes) -> bytes:
        """Seal `clear` for column `name` of row `owner`."""
        ...

    def open(self, owner: str, name: str, sealed: bytes) -> bytes:
        """Open what `seal` made; raises when it was made for another place or with another key."""
        ...


class Vault:
    """Sealed secrets of `owner` (a uid), by `piece/label`."""

    def __init__(self, sealer: Sealing, digest_key: bytes, owner: str, sealed: tuple[SealedSecret, ...]) -> None:
        self._sealer = sealer
        self._digest_key = digest_key
        self._owner = owner
        self._sealed = {secret.name: secret.sealed for secret in sealed if secret.owner == owner}

    def mint(self, target: PlannedStep) -> tuple[SealedSecret, ...]:
        """Fresh secrets that the step's piece needs and that are not there yet."""
        if target.make is not Make.ENSURE:
            return ()
        names = [f"{target.piece.name}/{label}" for label in target.piece.mints]
        return tuple(self.seal(name, Secret.mint().reveal().encode()) for name in names if name not in self._sealed)

    def seal(self, name: str, clear: bytes) -> SealedSecret:
        """Seal and keep a value."""
        sealed = self._sealer.seal(self._owner, name, clear)
        self._sealed[name] = sealed
        return SealedSecret(self._owner, name, sealed)

    def seal_all(self, piece: str, secrets: dict[str, Secret]) -> tuple[SealedSecret, ...]:
        """Seal what a piece gave as secrets."""
        return tuple(self.seal(f"{piece}/{label}", secret.reveal().encode()) for label, secret in secrets.items())

    def marks(self, provider: str, fields: frozenset[str], values: dict[str, Json]) -> tuple[UniqueMark, ...]:
        """Digests of the fields of credentials that no two bindings of a provider may share."""
        return tuple(
            UniqueMark(self._owner, f"{provider}/{field}", keyed_digest(self._digest_key, field, values[field]))
            for field in sorted(fields & values.keys())
        )

    def of_piece(self, piece: str) -> dict[str, Secret]:
        """Secrets of one piece by label."""
        prefix = f"{piece}/"
        return {name.removeprefix(prefix): self._open(name) for name in self._sealed if name.startswith(prefix)}

    def by_label(self) -> dict[str, Secret]:
        """Secrets of all pieces by label."""
        return {
            name.partition("/")[2]: self._open(name)
            for name in self._sealed
            if name != CREDENTIALS and not name.startswith(PARAMETER)
        }

    def _open(self, name: str) -> Secret:
        try:
            return Secret(self._sealer.open(self._owner, name, self._sealed[name]).decode())
        except Exception as error:
            message = "a secret of this resource cannot be unsealed"
            raise Permanent(message, type(error).__name__) from error
