"""What a provider may offer beyond making, binding and looking: each ability with the methods that it means.

Guarantee: a provider that does not name an ability is never asked for its methods; the facade guards them as all others.
None of them is a step of an operation: they are asked for by the broker's sweeps and by operators, and tell nothing but what
they did. To adopt is a PROVISION whose `Work.adopt` says what is taken over (see docs/providers.md); its method only looks.
Limit: whoever calls them holds no lease. A method must exclude running operations by the backend's own means, as `settle`
knows them, and be safe to repeat at any moment.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import msgspec

from purveyor_server.domain.model import Json
from purveyor_server.providers.contract import Done, NotYet, Owned, Work


@runtime_checkable
class Quarantining(Protocol):
    """Ability QUARANTINE."""

    async def quarantine(self, owned: Owned) -> None:
        """Make the thing unusable for everybody but the broker, and keep it whole; open sessions of it are ended.

        Idempotent; what is gone already is well. Raises MarkerChanged unless it carries the marker that `owned` tells of,
        Retryable while an operation of its uid is at work on it.
        """
        ...

    async def release(self, owned: Owned) -> None:
        """Take `quarantine` back. Idempotent, also for what never was in quarantine. Raises as `quarantine`."""
        ...


@runtime_checkable
class Reclaiming(Protocol):
    """Ability RECLAIM."""

    async def reclaim(self, owned: Owned) -> Done | NotYet:
        """Remove exactly this thing, for good: of that kind and name, with the marker of our store, that uid and revision.

        The marker is looked at again right before the removal, under the locks of its uid: a thing that got another marker
        meanwhile, or has none, is kept (MarkerChanged). Done when it is gone, also when it was. NotYet while an operation of
        its uid is at work, or when there is more to remove. What lies within it goes with it.
        """
        ...


@runtime_checkable
class Adopting(Protocol):
    """Ability ADOPT."""

    async def adoptable(self, source: Mapping[str, Json]) -> Owned | None:
        """Whether a PROVISION with `Work.adopt = source` could take that over now; changes nothing.

        None: it could. An Owned: it is there and carries a marker of our store; its uid tells whose it is. Raises Permanent for
        settings that are none, for what is not there, is another broker's, or the provider's own; RightsMissing with what an
        administrator should run first. The provision looks again: this is for an early and clear refusal.
        """
        ...


class RootRotated(msgspec.Struct, frozen=True):
    """Accounts whose credential is a new one, in the backend's names, and what was `left` out (it does not run); no secret."""

    accounts: tuple[str, ...]
    left: tuple[str, ...] = ()


@runtime_checkable
class RootRotating(Protocol):
    """Ability ROTATE_ROOT."""

    async def rotate_root(self) -> RootRotated:
        """Give the broker's own accounts in the backend new credentials; bindings keep working meanwhile.

        Safe to be cut off at every point: both credentials are kept until the new one has been seen to work. Raises Permanent
        (with what to do) for a credential that is kept where the provider cannot write.
        """
        ...


@runtime_checkable
class Reissuing(Protocol):
    """Ability REISSUE."""

    def reissues(self, work: Work) -> bool:
        """Whether the UPDATE `work`, once it is done, leaves bindings with credentials that no longer lead to the instance.

        Pure. Where it does, the broker runs the BIND plan of every active binding again, with the same uid and the same minted
        secrets, and gives out what `credentials` then says.
        """
        ...
