"""Which steps a verb takes, by the kind of the plan.

Guarantee: pure; of the kinds only `shared` can become `dedicated` (see `moving`), with a pivot; every other update has none, since
each of its pieces can be set back. A deprovision of which nothing tells the kind takes the steps of every kind.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, assert_never

from purveyor_server.domain.states import Make, Verb
from purveyor_server.providers.contract import Permanent, Piece, PlannedStep, Work
from purveyor_server.providers.postgresql.host import Cluster as Server
from purveyor_server.providers.postgresql.moving import InBoth, Moved, Old
from purveyor_server.providers.postgresql.settings import SchemaSettings, kinds_of, read_as


class Cluster(NamedTuple):
    """The pieces of one instance's own server, and of its database in there."""

    final_backup: Piece
    server: Piece
    cluster_settings: Piece
    cluster_files: Piece
    group: Piece
    database: Piece
    schema: Piece
    extensions: Piece
    login: Piece
    logins: Piece
    data: Piece
    verified: Piece
    itself: Server


class Pieces(NamedTuple):
    """Every piece that there is; `cluster` makes those of an instance's own server, None where those are not offered."""

    group: Piece
    database: Piece
    schema: Piece
    extensions: Piece
    common_database: Piece
    own_schema: Piece
    standstill: Piece
    adopted: Piece
    taken: Piece
    login: Piece
    cluster: Callable[[str], Cluster] | None


def plan_steps(pieces: Pieces, work: Work) -> list[PlannedStep]:
    """The steps of `work`. Raises Permanent for an update to another kind."""
    match work.verb:
        case Verb.PROVISION:
            adopting = [] if work.adopt is None else [PlannedStep(pieces.taken, pivot=True)]
            return [*(PlannedStep(piece) for piece in _provision(pieces, work)), *adopting]
        case Verb.UPDATE:
            if moves(work):
                return _move(pieces, work)
            _check_kind(work)
            return [PlannedStep(piece) for piece in _update(pieces, work)]
        case Verb.DEPROVISION:
            backup = _final_backup(pieces, work)
            return [*backup, *(PlannedStep(piece, Make.ABSENT) for piece in _deprovision(pieces, work))]
        case Verb.BIND:
            return [PlannedStep(_login(pieces, work))]
        case Verb.UNBIND:
            return [PlannedStep(_login(pieces, work), Make.ABSENT)]
        case Verb.CLEANUP | Verb.REPAIR | Verb.RENEW | Verb.REISSUE:
            raise Permanent("a clean-up, a repair or a renewal follows the plan of another verb")
    assert_never(work.verb)


def _provision(pieces: Pieces, work: Work) -> list[Piece]:
    if work.adopt is not None and kinds_of(work) != ("shared",):
        raise Permanent("only plans of the kind shared can adopt a database")
    match kinds_of(work):
        case ("schema",):
            return [pieces.group, pieces.common_database, pieces.own_schema]
        case ("dedicated",):
            own = _own(pieces, work)
            server = (own.cluster_files, own.cluster_settings, own.server)
            return [*server, own.group, own.database, own.schema, own.extensions]
    # The last step is only there when extensions are asked for: it costs a session.
    asked = work.want is not None and work.want.parameters.get("extensions")
    database = pieces.database if work.adopt is None else pieces.adopted
    return [pieces.group, database, pieces.schema, *([pieces.extensions] if asked else [])]


def _update(pieces: Pieces, work: Work) -> list[Piece]:
    match kinds_of(work):
        case ("schema",):  # its settings are those of its logins: they are applied to those that are made from now on
            return [pieces.own_schema]
        case ("dedicated",):
            own = _own(pieces, work)
            return [own.extensions, own.cluster_settings, own.server, own.database]
    return [pieces.extensions, pieces.database]  # extensions first: they may refuse, and then nothing was changed


def moves(work: Work) -> bool:
    """Whether an update takes the instance from the shared server into one of its own."""
    kinds = [side.plan.get("kind") for side in (work.was, work.want) if side is not None]
    return work.verb is Verb.UPDATE and kinds == ["shared", "dedicated"]


def _move(pieces: Pieces, work: Work) -> list[PlannedStep]:
    own = _own(pieces, work)
    there = (own.cluster_files, own.cluster_settings, own.server, own.group, own.logins, own.database)
    within = (own.verified, own.schema, own.extensions)
    new = [*map(Moved, there), pieces.standstill, own.data, *map(Moved, within)]
    gone = [
        PlannedStep(Old(pieces.database), Make.ABSENT, pivot=True),
        PlannedStep(Old(pieces.group), Make.ABSENT),
    ]
    return [*map(PlannedStep, new), *gone]


def _deprovision(pieces: Pieces, work: Work) -> list[Piece]:
    kinds = kinds_of(work)
    if kinds == ("dedicated",):
        own = _own(pieces, work)
        return [own.server, own.cluster_files]
    steps = []
    if "dedicated" in kinds and pieces.cluster is not None:
        own = pieces.cluster(work.instance_uid)
        steps += [own.server, own.cluster_files]
    if "schema" in kinds:
        steps.append(pieces.own_schema)
    if "shared" in kinds:
        steps.append(pieces.database)
    group = pieces.group
    if kinds == ("shared",) and pieces.cluster is not None:  # what a move that was not undone to its end has left
        own = pieces.cluster(work.instance_uid)
        group = InBoth(group, own.cluster_files, own.itself)
    return [*steps, group]


def _final_backup(pieces: Pieces, work: Work) -> list[PlannedStep]:
    """The one thing that a deprovision makes."""
    asked = kinds_of(work) == ("dedicated",) and work.was is not None and work.was.plan.get("final_backup")
    return [PlannedStep(_own(pieces, work).final_backup)] if asked else []


def _own(pieces: Pieces, work: Work) -> Cluster:
    if pieces.cluster is None:
        raise Permanent("dedicated servers are not offered", "configure `dedicated` in the provider's config")
    return pieces.cluster(work.instance_uid)


def _login(pieces: Pieces, work: Work) -> Piece:
    kinds = kinds_of(work)
    if kinds == ("dedicated",):
        return _own(pieces, work).login
    if work.verb is Verb.UNBIND and kinds == ("shared",) and pieces.cluster is not None:
        own = pieces.cluster(work.instance_uid)
        return InBoth(pieces.login, own.login, own.itself)
    return pieces.login


def _check_kind(work: Work) -> None:
    sides = [side.plan for side in (work.want, work.was) if side is not None]
    if len({side.get("kind") for side in sides}) > 1:
        kinds = " to ".join(str(plan.get("kind")) for plan in reversed(sides))
        raise Permanent(
            f"an instance cannot move from {kinds}: only from shared to dedicated; make a new one and copy the data"
        )
    schemas = [read_as(SchemaSettings, side) for side in sides if side.get("kind") == "schema"]
    if len({settings.database for settings in schemas}) > 1:
        raise Permanent("a schema cannot move to another database: make a new one and copy the data")
