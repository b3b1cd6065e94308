"""Which steps a verb takes, by the kind of the plan.

Guarantee: pure; an instance never changes its kind; an update has no pivot, since each of its pieces can be set back; a
deprovision of which nothing tells the kind takes the steps of every kind.
"""

from __future__ import annotations

from typing import NamedTuple, assert_never

from purveyor_server.domain.states import Make, Verb
from purveyor_server.providers.contract import Permanent, Piece, PlannedStep, Work
from purveyor_server.providers.postgresql.settings import SchemaSettings, kinds_of, read_as


class Pieces(NamedTuple):
    """Every piece that there is."""

    group: Piece
    database: Piece
    schema: Piece
    extensions: Piece
    common_database: Piece
    own_schema: Piece
    login: Piece


def plan_steps(pieces: Pieces, work: Work) -> list[PlannedStep]:
    """The steps of `work`. Raises Permanent for an update to another kind."""
    match work.verb:
        case Verb.PROVISION:
            return [PlannedStep(piece) for piece in _provision(pieces, work)]
        case Verb.UPDATE:
            _check_kind(work)
            return [PlannedStep(piece) for piece in _update(pieces, work)]
        case Verb.DEPROVISION:
            return [PlannedStep(piece, Make.ABSENT) for piece in _deprovision(pieces, work)]
        case Verb.BIND:
            return [PlannedStep(pieces.login)]
        case Verb.UNBIND:
            return [PlannedStep(pieces.login, Make.ABSENT)]
        case Verb.CLEANUP:
            raise Permanent("a clean-up follows the plan of its origin")
    assert_never(work.verb)


def _provision(pieces: Pieces, work: Work) -> list[Piece]:
    match kinds_of(work):
        case ("schema",):
            return [pieces.group, pieces.common_database, pieces.own_schema]
    # The last step is only there when extensions are asked for: it costs a session.
    asked = work.want is not None and work.want.parameters.get("extensions")
    return [pieces.group, pieces.database, pieces.schema, *([pieces.extensions] if asked else [])]


def _update(pieces: Pieces, work: Work) -> list[Piece]:
    match kinds_of(work):
        case ("schema",):  # its settings are those of its logins: they are applied to those that are made from now on
            return [pieces.own_schema]
    return [pieces.extensions, pieces.database]  # extensions first: they may refuse, and then nothing was changed


def _deprovision(pieces: Pieces, work: Work) -> list[Piece]:
    kinds = kinds_of(work)
    steps = []
    if "schema" in kinds:
        steps.append(pieces.own_schema)
    if "shared" in kinds:
        steps.append(pieces.database)
    return [*steps, pieces.group]


def _check_kind(work: Work) -> None:
    sides = [side.plan for side in (work.want, work.was) if side is not None]
    if len({side.get("kind") for side in sides}) > 1:
        raise Permanent("an instance cannot move to a plan of another kind: make a new one and copy the data")
    schemas = [read_as(SchemaSettings, side) for side in sides if side.get("kind") == "schema"]
    if len({settings.database for settings in schemas}) > 1:
        raise Permanent("a schema cannot move to another database: make a new one and copy the data")
