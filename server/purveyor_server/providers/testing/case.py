"""What the author of a provider tells the contract suite: how to make the provider, what to ask of it, how to look at its backend.

Guarantee: only `factory`, `settings` and `listing` must be given. What a case does not give is not tested, and the table says
so: each optional method raises `NotOffered` with the reason.
Limit: the suite sees as much as `listing` does: what a listing leaves out can be left behind without anybody noticing.
"""

from __future__ import annotations

import secrets
from abc import ABC, abstractmethod
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import ClassVar, Protocol

from purveyor_server.domain.model import Json
from purveyor_server.kit.secret import Secret
from purveyor_server.providers.contract import Provider, ProviderEnvironment, ProviderFactory


class NotOffered(Exception):  # noqa: N818 - an answer, not a failure
    """The case (or the provider) does not offer what a topic needs; the text is the reason that the table prints."""


class ContractBroken(AssertionError):  # noqa: N818 - it reads as the verdict that it is
    """The provider does not keep the contract; the text says how."""


class Held(Protocol):
    """One outside call that the backend has received and not yet carried out."""

    async def reached(self) -> None:
        """Return once a call is held."""
        ...

    async def release(self) -> None:
        """Let it be carried out; called once, also when nobody waits for its answer any more."""
        ...


class Environment:
    """A provider's host, as the broker would be: see `contract.ProviderEnvironment`."""

    def __init__(self, name: str, data_dir: Path, store_id: str) -> None:
        self.name = name
        self.store_id = store_id
        self._data_dir = data_dir

    @property
    def data_dir(self) -> str:
        """A folder of the provider's own."""
        self._data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        return str(self._data_dir)

    def reference(self, value: Json) -> Secret:
        """Resolve `{"file": path}`; tests use no environment variables."""
        return Secret(Path(value["file"]).read_text(encoding="utf-8").strip())


class Case(ABC):
    """One provider with one plan on one real backend. Subclass it; the attributes are what the suite asks for."""

    name: str = ""  # in the table; the class name when empty
    factory: ClassVar[ProviderFactory]  # what the entry point names
    settings: ClassVar[dict[str, Json]] = {}  # the plan's `settings`
    parameters: ClassVar[dict[str, Json]] = {}  # of an instance
    changed: ClassVar[dict[str, Json] | None] = None  # other parameters, for updates; None: cannot be updated
    bind_parameters: ClassVar[dict[str, Json]] = {}
    warms_up: ClassVar[bool] = (
        False  # the first instance makes things that stay by design; they are made before the first listing
    )
    every_way: ClassVar[bool] = (
        True  # after each death each way on; False: the ways take turns, where an instance takes long
    )
    parallel: ClassVar[int] = 4  # instances at once where the suite makes many
    patience: ClassVar[float] = 30.0  # seconds for one verb, for settle, and for a listing to come to rest

    def __init__(self, folder: Path) -> None:
        self.folder = folder  # of this test alone; the backend may live here

    @property
    def config(self) -> dict[str, Json]:
        """The provider's configuration, as in the catalog."""
        return {}

    def environment(self, store_id: str) -> ProviderEnvironment:
        """The provider's host."""
        return Environment(type(self).__name__.lower(), self.folder / "data", store_id)

    def open(self, store_id: str) -> Provider:
        """A provider that remembers nothing of earlier ones."""
        return type(self).factory(self.config, self.environment(store_id))

    @abstractmethod
    async def listing(self) -> object:
        """Everything in the backend that the provider can make or leave behind; compared with ==."""

    async def use(self, credentials: dict[str, Json]) -> None:  # noqa: ARG002 - for those who override it
        """Use what a binding got, as a consumer; raise anything when they do not give access."""
        raise NotOffered("the case gives no `use`")

    async def destroy(self, uid: str) -> None:  # noqa: ARG002 - as above
        """Take the instance away behind the provider's back, so that `observe` must say MISSING."""
        raise NotOffered("the case gives no `destroy`")

    async def stray(self) -> dict[str, Json]:
        """Make a thing that nobody manages, as it was before the broker came; what `Work.adopt` says to take it over."""
        raise NotOffered("the case gives no `stray`")

    def hold(self, piece: str) -> AbstractAsyncContextManager[Held]:  # noqa: ARG002 - as above
        """From here on the backend holds the next changing call of `piece` up; at the end of the context it is let go."""
        raise NotOffered("the case gives no `hold`: nothing delays an outside call")


def fresh_store_id() -> str:
    """An id that no other store has."""
    return secrets.token_hex(8)
