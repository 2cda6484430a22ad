"""Mutation schedules: shares of any number of epochs."""

import pytest

from espalier.methods import MutationSchedule

pytestmark = pytest.mark.tiny
EM = MutationSchedule(1 / 32, [0.5625, 0.75], [0.02, 0.01, 0.0], [0.0, 0.0, 0.0])


def test_160_epochs_are_those_of_the_paper() -> None:
    assert [epoch for epoch in range(160) if EM.due(epoch, 160)] == list(range(0, 160, 5))
    assert EM.starts(160) == [0, 90, 120]
    assert [EM.phase(epoch, 160) for epoch in (0, 89, 90, 119, 120, 159)] == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize("epochs", [1, 2, 3, 7, 16, 30, 100])
def test_every_length_ends_in_the_last_phase_and_mutates_where_a_phase_begins(epochs: int) -> None:
    assert EM.phase(epochs - 1, epochs) == 2
    assert all(EM.due(start, epochs) for start in EM.starts(epochs))
    assert EM.due(0, epochs)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"interval": 0.0}, r"interval=0: .* above 0 and up to 1"),
        ({"decay": [0.75, 0.5]}, r"decay=\[0.75, 0.5\] should rise within 0 to 1"),
        ({"decay": [0.5, 1.0]}, r"should rise within 0 to 1"),
        ({"prune_above": [0.02]}, r"prune_above=\[0.02\] .* each of 3 phases"),
        ({"prune_above": [0.02, -0.01, 0.0]}, "share of 0 or more"),
        ({"grow_below": [0.05, 0.02, 0.01]}, "would end denser than asked"),
    ],
)
def test_a_schedule_that_makes_no_sense_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MutationSchedule(**{**vars(EM), **changes})
