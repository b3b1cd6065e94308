"""What may happen in a story, as values: printed, repeated, shrunk."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from tests.year.backend import Fault


class Action(msgspec.Struct, frozen=True):
    """Something that somebody does, or that befalls somebody."""


class Provision(Action, frozen=True):
    """A caller orders an instance."""

    instance: str
    plan: str = "small"
    size: int = 1


class Update(Action, frozen=True):
    """A caller changes an instance: another size, another plan ("" as it is)."""

    instance: str
    size: int
    plan: str = ""


class Deprovision(Action, frozen=True):
    """A caller gives an instance back."""

    instance: str
    cascade: bool = False


class Bind(Action, frozen=True):
    """A caller asks for credentials, for `days` (0: as the plan says)."""

    instance: str
    binding: str
    days: int = 0


class Unbind(Action, frozen=True):
    """A caller gives credentials back."""

    instance: str
    binding: str


class Renew(Action, frozen=True):
    """A caller asks for more time: for `days` from now (0: as the plan says)."""

    instance: str
    binding: str
    days: int = 0


class Rotate(Action, frozen=True):
    """A caller asks for a successor."""

    instance: str
    binding: str


class Cancel(Action, frozen=True):
    """A caller cancels the newest operation that he knows of an instance."""

    instance: str


class Use(Action, frozen=True):
    """Every application tries every credential that it ever got, and stays connected."""


class Wait(Action, frozen=True):
    """Nothing else happens for a while."""

    seconds: float


class Crash(Action, frozen=True):
    """The broker is killed, and started `down` seconds later."""

    down: float


class CutAtCommit(Action, frozen=True):
    """The broker is killed behind one of its next commits."""

    count: int


class Plant(Action, frozen=True):
    """The next such call to the backend goes wrong; `call` is `<kind>.<ensure|absent>` or `*`."""

    call: str
    fault: Fault


class Outage(Action, frozen=True):
    """The backend does not answer for so many seconds from now on."""

    seconds: float


class Litter(Action, frozen=True):
    """Something with our marker appears behind the broker's back; `of_gone`: it is marked for an instance that is no more."""

    kind: str
    of_gone: bool = False


class Flood(Action, frozen=True):
    """So many things with our marker appear at once that no sweep should believe it; the first flood of a story only."""


class Stranger(Action, frozen=True):
    """Something of somebody else appears: with no marker, or (`marked`) with that of another broker."""

    kind: str
    marked: bool = False


class Harm(StrEnum):
    """What a stranger's hand does to a thing of an instance."""

    DROP = "drop"
    CHANGE = "change"


class Tamper(Action, frozen=True):
    """A stranger's hand drops or changes the space of an instance."""

    instance: str
    harm: Harm


class Repair(Action, frozen=True):
    """An operator has every piece of an instance made again."""

    instance: str


class Purge(Action, frozen=True):
    """An operator has the broker forget an instance, whatever is left of it."""

    instance: str


class Apply(Action, frozen=True):
    """An operator has another catalog served, with these policies for plans in use."""

    catalog: str
    policies: tuple[str, ...] = ()


class Campaign(Action, frozen=True):
    """An operator has every instance of a plan moved to another plan ("": upgraded)."""

    plan: str
    to: str = ""


class Steering(StrEnum):
    """What an operator does to the newest campaign."""

    PAUSE = "pause"
    RESUME = "resume"
    ABORT = "abort"
    RETRY = "retry"


class Steer(Action, frozen=True):
    """An operator steers the newest campaign."""

    how: Steering


class Retry(Action, frozen=True):
    """An operator has the newest operation of an instance tried again."""

    instance: str


class CleanUp(Action, frozen=True):
    """An operator has what that one left removed."""

    instance: str


class FreezeName(StrEnum):
    """What an operator may stop."""

    ALL = "all"
    DELETES = "deletes"
    REAPING = "reaping"
    ROTATION = "rotation"
    PROVIDER = "provider:main"


class Freeze(Action, frozen=True):
    """An operator stops something."""

    name: FreezeName


class Thaw(Action, frozen=True):
    """An operator lets it go again."""

    name: FreezeName


Story = tuple[Action, ...]
