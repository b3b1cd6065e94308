"""The provider `directory`: a folder with a quota per instance, a token file per binding, on a disk of the broker's host.

Guarantee: nothing but the root folder is needed, no right beyond the broker's own OS user; names and markers carry no tenant text.
Limit: a quota is what was promised and what `observe` measures; the operating system enforces none without an administrator
(project quotas), so a consumer can write more, and is then reported as DRIFTED. An update below what is used is refused.
"""

from __future__ import annotations

import grp
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from purveyor_server.domain.errors import invalid
from purveyor_server.domain.model import Json
from purveyor_server.domain.states import Make, Verb
from purveyor_server.kit.secret import Secret
from purveyor_server.providers.contract import (
    Ability,
    Credentials,
    Done,
    Known,
    NotYet,
    Observed,
    Outputs,
    Owned,
    Permanent,
    PlannedStep,
    ProviderEnvironment,
    RightsMissing,
    Schemas,
    Work,
)
from purveyor_server.providers.directory.custody import Custodian
from purveyor_server.providers.directory.disk import DATA, TOKENS, Disk
from purveyor_server.providers.directory.failures import explained
from purveyor_server.providers.directory.observation import list_owned, observe
from purveyor_server.providers.directory.pieces import FolderPiece, TokenPiece
from purveyor_server.providers.directory.settings import DirectoryConfig, PlanSettings
from purveyor_server.providers.strict import read_configuration

THREADS = 4  # calls to the disk at once
_TEXT = {"type": "string", "minLength": 1}
_COUNT = {"type": "integer", "minimum": 1}


def _object(*required: str, **properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


class DirectoryProvider:
    """Folders below one root. Raises PurveyorError(INVALID_REQUEST) for a bad `config`."""

    contract = "directory/1"
    abilities = frozenset(
        {
            *(Ability.BIND, Ability.UPDATE, Ability.EXPIRY, Ability.OBSERVE, Ability.LIST_OWNED),
            *(Ability.QUARANTINE, Ability.RECLAIM),
        }
    )
    schemas = Schemas(
        settings=PlanSettings.model_json_schema(),
        outputs={
            "folder": _object(folder=_TEXT, quota_bytes=_COUNT, quota_files=_COUNT),
            "token": _object(folder=_TEXT, token=_TEXT),
        },
        credentials=_object("path", "token_file", "token", path=_TEXT, token_file=_TEXT, token=_TEXT),
        secret_fields=frozenset({"token"}),
        unique_fields=frozenset({"token", "token_file"}),
    )

    def __init__(self, config: Mapping[str, Json], environment: ProviderEnvironment, disk: type[Disk] = Disk) -> None:
        self._config = read_configuration(DirectoryConfig, config)
        root = self._config.root or _own_root(environment)
        self._disk = disk(root, self._config.mode_bits, _group(self._config.group))
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="directory")
        self._folder = FolderPiece(self._disk, self._threads)
        self._token = TokenPiece(self._disk, self._threads)
        self._custodian = Custodian(self._disk, self._threads, environment.store_id)

    async def check(self) -> None:
        """Raise Unreachable or RightsMissing unless the root can be worked with. Changes nothing."""
        with explained("check"), self._disk.opened():
            if not os.access(self._disk.path, os.R_OK | os.W_OK | os.X_OK):
                raise RightsMissing(f"the broker's OS user needs rwx on the folder {self._disk.path}")

    def plan(self, work: Work, done: Mapping[str, Outputs]) -> Sequence[PlannedStep]:  # noqa: ARG002 - the protocol's
        """One step each."""
        match work.verb:
            case Verb.PROVISION | Verb.UPDATE:
                return [PlannedStep(self._folder)]
            case Verb.DEPROVISION:
                return [PlannedStep(self._folder, Make.ABSENT)]
            case Verb.BIND:
                return [PlannedStep(self._token)]
            case Verb.UNBIND:
                return [PlannedStep(self._token, Make.ABSENT)]
        raise Permanent("a clean-up follows the plan of its origin")

    def credentials(
        self,
        work: Work,  # noqa: ARG002 - the protocol's
        done: Mapping[str, Outputs],
        secrets: Mapping[str, Secret],
    ) -> Credentials:
        """Where the data is, where the token file is, and the token."""
        found = done["token"]
        home = Path(self._disk.path, str(found["folder"]))
        token_file = str(home / TOKENS / str(found["token"]))
        values: dict[str, Json] = {
            "path": str(home / DATA),
            "token_file": token_file,
            "token": secrets["token"].reveal(),
        }
        return Credentials(values)

    async def observe(self, instance: Known) -> Observed:
        """Look at the folder; changes nothing."""
        return await observe(self._disk, self._threads, instance)

    def list_owned(self, store_id: str) -> AsyncIterator[Owned]:
        """Folders and token files with the marker of `store_id`."""
        return list_owned(self._disk, self._threads, store_id)

    async def quarantine(self, owned: Owned) -> None:
        """Its data, or the token file, has another name: nobody finds it."""
        await self._custodian.quarantine(owned)

    async def release(self, owned: Owned) -> None:
        """Where it was before."""
        await self._custodian.release(owned)

    async def reclaim(self, owned: Owned) -> Done | NotYet:
        """Exactly that folder or token file, while it carries the marker."""
        return await self._custodian.reclaim(owned)

    async def close(self) -> None:
        """Let go of the threads; one that is at work ends by itself. The folders stay."""
        self._threads.shutdown(wait=False)


def _own_root(environment: ProviderEnvironment) -> str:
    root = Path(environment.data_dir, "folders")
    root.mkdir(mode=0o700, exist_ok=True)
    return str(root)


def _group(name: str) -> int | None:
    if not name:
        return None
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise invalid("group", f"there is no OS group {name!r}") from None
