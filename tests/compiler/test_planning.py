import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from espalier.compiler.layouts import Map, Plain
from espalier.compiler.planning import Lifetime, planned

BORDERS = (((0, 0),) * 3, ((0, 0), (1, 1), (1, 1)))


@st.composite
def buffers(draw: st.DrawFn) -> list[Lifetime]:
    made = []
    for number in range(draw(st.integers(1, 12))):
        side, first = draw(st.integers(1, 6)), draw(st.integers(0, 10))
        layout = (
            Map(draw(st.sampled_from([16, 32])), (1, side, side), draw(st.sampled_from(BORDERS)))
            if draw(st.booleans())
            else Plain((1, side))
        )
        made.append(Lifetime(f"n{number}", layout, first, first + draw(st.integers(0, 4))))
    return made


@settings(max_examples=200, deadline=None)
@given(buffers())
def test_nothing_alive_overlaps_and_every_border_that_is_overwritten_is_zeroed(made: list[Lifetime]) -> None:
    plan = planned(made)
    for one, other in itertools.permutations(made, 2):
        apart = plan.places[one.name] + one.layout.floats <= plan.places[other.name]
        apart |= plan.places[other.name] + other.layout.floats <= plan.places[one.name]
        if one.meets(other):
            assert apart
        elif isinstance(one.layout, Map) and one.layout.border != BORDERS[0] and one.name not in plan.zeroed and not apart:
            assert isinstance(other.layout, Map)
            assert (plan.places[one.name], one.layout.geometry) == (plan.places[other.name], other.layout.geometry)
    assert all(plan.places[buffer.name] % 16 == 0 and plan.places[buffer.name] + buffer.layout.floats <= plan.floats for buffer in made)


def test_a_chain_needs_the_room_of_two_neighbours() -> None:
    chain = [Lifetime(f"n{step}", Plain((1, 160)), step, step + 1) for step in range(6)]
    assert planned(chain).floats == 320


def test_a_map_of_fewer_channels_has_its_border_elsewhere() -> None:
    border = BORDERS[1]
    chain = [
        Lifetime(f"n{number}", Map(channels, (1, 6, 6), border), number, number + 1) for number, channels in enumerate((32, 32, 16, 16))
    ]
    plan = planned(chain)
    assert plan.places["n0"] == plan.places["n2"]  # the smaller one lies in the larger one's place
    assert {"n0", "n2"} <= plan.zeroed
