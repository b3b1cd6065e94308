"""The provider: which pieces a verb is made of, what a binding gets, and what the backend says of an instance."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from purveyor_server.domain.model import Json
from purveyor_server.domain.names import outside_name
from purveyor_server.domain.states import Drift, Make, Verb
from purveyor_server.kit.secret import Secret
from purveyor_server.providers.contract import (
    Ability,
    Credentials,
    Known,
    Observed,
    Outputs,
    Owned,
    Permanent,
    PlannedStep,
    ProviderEnvironment,
    Schemas,
    Work,
)
from purveyor_server.providers.strict import read_configuration

from purveyor_newthing.backend import Backend
from purveyor_newthing.pieces import BOX, KEY, BoxPiece, KeyPiece, read_mark
from purveyor_newthing.settings import PlanSettings, ProviderConfig, size_of

TEXT = {"type": "string", "minLength": 1}
COUNT = {"type": "integer", "minimum": 1}


def _object(**properties: dict[str, Any]) -> dict[str, Any]:
    required = list(properties)
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


class NewthingProvider:
    """Boxes and their keys. Raises PurveyorError(INVALID_REQUEST) for a bad `config`."""

    # Raise the number when steps get other names or meanings: what is under way then waits for an operator.
    contract = "newthing/1"
    # REPLACE: leave out what your backend cannot do, add what it can (quarantine, reclaim, adopt: `providers.abilities`
    # of the server); the suite says what it does not test.
    abilities = frozenset(
        {Ability.BIND, Ability.UPDATE, Ability.EXPIRY, Ability.OBSERVE, Ability.LIST_OWNED},
    )
    # REPLACE: what the pieces and a binding give. Each secret in the credentials is named.
    schemas = Schemas(
        settings=PlanSettings.model_json_schema(),
        outputs={BOX: _object(box=TEXT, size=COUNT), KEY: _object(box=TEXT, key=TEXT)},
        credentials=_object(folder=TEXT, key=TEXT, token=TEXT),
        secret_fields=frozenset({"token"}),
        unique_fields=frozenset({"key", "token"}),
    )

    def __init__(
        self,
        config: Mapping[str, Json],
        environment: ProviderEnvironment,
        backend: type[Backend] = Backend,
    ) -> None:
        # REPLACE: nothing is connected to here, the broker may start while the backend is away.
        root = read_configuration(ProviderConfig, config).root or Path(environment.data_dir)
        self._backend = backend(root)
        self._box = BoxPiece(self._backend)
        self._key = KeyPiece(self._backend)

    async def check(self) -> None:
        """Raise Unreachable or RightsMissing unless the backend can be worked with; changes nothing."""
        await self._backend.check()

    def plan(self, work: Work, done: Mapping[str, Outputs]) -> Sequence[PlannedStep]:  # noqa: ARG002
        """The steps of `work`: pure, asked again after every step. Undo is derived from them."""
        match work.verb:
            case Verb.PROVISION | Verb.UPDATE:
                return [PlannedStep(self._box)]
            case Verb.DEPROVISION:  # everything that any plan of an instance can have made
                return [PlannedStep(self._box, Make.ABSENT)]
            case Verb.BIND:
                return [PlannedStep(self._key)]
            case Verb.UNBIND:
                return [PlannedStep(self._key, Make.ABSENT)]
        raise Permanent("a clean-up follows the plan of its origin")

    def credentials(
        self,
        work: Work,  # noqa: ARG002
        done: Mapping[str, Outputs],
        secrets: Mapping[str, Secret],
    ) -> Credentials:
        """What a binding gets, from the outputs of its pieces and the secrets that they mint. REPLACE."""
        key = str(done[KEY]["key"])
        values: dict[str, Json] = {
            "folder": str(self._backend.root),
            "key": key,
            "token": secrets["token"].reveal(),
        }
        return Credentials(values)

    async def observe(self, instance: Known) -> Observed:
        """Compare the backend with what is recorded; changes nothing. Raises when the backend is away."""
        await self._backend.check()
        name = outside_name(BOX, instance.uid)
        found = await self._backend.read(name)
        if found is None:
            return _observed(Drift.MISSING, [f"{name} does not exist"])
        size = size_of(instance.settings)
        differences = [] if found.size == size else [f"the size is {found.size}, not {size}"]
        for uid in instance.bindings:
            key = outside_name(KEY, uid)
            if await self._backend.read(key) is None:
                differences.append(f"{key} does not exist")
        return _observed(Drift.DRIFTED if differences else Drift.IN_SYNC, differences)

    async def list_owned(self, store_id: str) -> AsyncIterator[Owned]:
        """Everything in the backend that carries the marker of `store_id`."""
        for name in await self._backend.names():
            found = await self._backend.read(name)
            mark = read_mark(found.marker) if found is not None else None
            if found is not None and mark is not None and mark.store_id == store_id:
                yield Owned(KEY if found.box else BOX, name, mark.uid, mark.revision)

    async def close(self) -> None:
        """Let go of connections; what was made stays."""
        self._backend.close()


def _observed(drift: Drift, differences: list[str]) -> Observed:
    return Observed(drift, drift is not Drift.MISSING, datetime.now(UTC), tuple(differences))
