"""When the larger half of a layer's weights settles."""

import pytest
import torch

from espalier.methods.settling import Settling

pytestmark = pytest.mark.tiny


def noted(*weights: list[float]) -> Settling:
    settling = Settling()
    for epoch, row in enumerate(weights, start=1):
        weight = torch.tensor(row)
        settling.note(epoch, weight, weight != 0)
    return settling


def test_the_overlap_is_that_of_the_larger_halves() -> None:
    settling = noted([9, 8, 1, 1, 0, 0], [9, 1, 1, -8, 0, 0], [9, 0, 1, -8, 1, 0])
    assert settling.overlaps() == [0.5, 1.0, 1.0]
    assert settling.settled() == pytest.approx(2 / 3)


def test_a_mask_that_comes_back_settles_where_it_stays() -> None:
    assert noted([2, 1], [1, 2], [2, 1], [2, 1]).settled() == pytest.approx(3 / 4)
    assert noted([1, 2], [2, 1]).settled() == 1.0
    assert noted([2, 1], [3, 1]).settled() == 0.5
    assert Settling().settled() == 1.0


def test_a_restored_one_goes_on() -> None:
    first = noted([9, 8, 1, 1], [1, 8, 9, 1])
    second = Settling()
    second.load_state_dict(first.state_dict())
    for settling in (first, second):
        settling.note(3, torch.tensor([1.0, 8, 9, 1]), torch.ones(4, dtype=torch.bool))
    assert first.overlaps() == second.overlaps() == [0.5, 1.0, 1.0]
