"""Short stretches of a story that chance alone would seldom put together: neglect, late renewals, moves that fail, unlucky orders.

Guarantee: a habit is a list of actions like any other; what it leads to is for chance and for the broker to say.
"""

from __future__ import annotations

from hypothesis import strategies as st

from tests.year.actions import (
    Action,
    Bind,
    Campaign,
    Crash,
    CutAtCommit,
    Flood,
    Freeze,
    FreezeName,
    Litter,
    Plant,
    Provision,
    Renew,
    Story,
    Thaw,
    Use,
    Wait,
)
from tests.year.backend import Fault
from tests.year.house import DAY

INSTANCES = st.sampled_from(["a", "b", "d", "e", "f"])  # mostly such as no other action of a story names
KINDS = st.sampled_from(["space", "login"])
MAKES = st.sampled_from(["role.ensure", "space.ensure"])
CUTS = st.integers(1, 6)
MOVES = st.sampled_from([("small", "large"), ("large", "small"), ("leased", "large"), ("delayed", "small")])
PLANS = st.sampled_from(["small", "large", "leased", "delayed", "manual"])


def weeks(least: int, most: int) -> st.SearchStrategy[Action]:
    """A wait of some days."""
    return st.integers(least, most).map(lambda days: Wait(days * DAY))


@st.composite
def neglect(draw: st.DrawFn) -> Story:
    """Something is left behind, something is stopped, nobody looks for weeks; then it is let go again, or not."""
    name = draw(st.sampled_from(sorted(FreezeName)))
    left = draw(st.one_of(st.builds(Litter, KINDS, st.booleans()), st.just(Flood())))
    ended: Story = (Thaw(name), draw(weeks(1, 12))) if draw(st.booleans()) else ()
    return (left, Freeze(name), draw(weeks(7, 20)), Use(), *ended)


@st.composite
def flood(draw: st.DrawFn) -> Story:
    """Too much appears at once, and nobody looks for weeks."""
    return (Flood(), draw(weeks(7, 20)))


@st.composite
def late_renewal(draw: st.DrawFn) -> Story:
    """An access is renewed shortly before its end, for as long as can be asked; it is used until long after, in the quiet time at the latest."""
    instance, plan = draw(INSTANCES), draw(st.sampled_from(["large", "leased"]))
    first = draw(st.sampled_from([0, 20, 40]))
    days = draw(st.sampled_from([0, 20, 40, 50, 100]))
    frozen: Story = (Freeze(FreezeName.ROTATION),) if draw(st.booleans()) else ()
    return (
        Provision(instance, plan),
        Wait(60.0),
        Bind(instance, "x", first),
        Wait(60.0),
        *frozen,
        draw(weeks(4, 16)),
        Renew(instance, "x", days),
        draw(weeks(1, 12)),
    )


@st.composite
def unlucky_order(draw: st.DrawFn) -> Story:
    """A call of an order is answered late or never, the next one is refused; or the broker dies meanwhile."""
    instance, plan = draw(INSTANCES), draw(PLANS)
    first = draw(st.sampled_from([Fault.LATE, Fault.SLOW, Fault.DEAF, Fault.LOST]))
    then = draw(st.sampled_from([Fault.REFUSED, Fault.REFUSED, Fault.GARBAGE]))
    make = draw(MAKES)
    broken: Action = draw(st.one_of(st.builds(CutAtCommit, CUTS), st.builds(Crash, st.just(5.0)), st.just(Use())))
    return (
        Plant(make, first),
        Plant(make, then),
        Provision(instance, plan),
        broken,
        Wait(draw(st.sampled_from([60.0, DAY]))),
    )


@st.composite
def unlucky_move(draw: st.DrawFn) -> Story:
    """A campaign whose calls fail, and a broker that dies about then."""
    instance, (source, target) = draw(INSTANCES), draw(MOVES)
    kinds = st.sampled_from([Fault.REFUSED, *sorted(Fault)])
    faults = draw(st.lists(st.builds(Plant, MAKES, kinds), max_size=2))
    cut: Story = (CutAtCommit(draw(st.integers(1, 16))),) if draw(st.booleans()) else ()
    return (
        Provision(instance, source),
        Wait(60.0),
        *faults,
        *cut,
        Campaign(source, target),
        draw(st.sampled_from([Wait(60.0), Wait(2 * DAY)])),
    )


HABITS: st.SearchStrategy[Story] = st.one_of(neglect(), flood(), late_renewal(), unlucky_order(), unlucky_move())
