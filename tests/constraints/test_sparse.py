import io
import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from espalier.constraints import COLUMN, FILTER, UNSTRUCTURED, Sparse, Target

A, B = Target("a"), Target("b")


@given(st.integers(1, 500), st.integers(1, 500))
def test_the_count_rounds_half_up_and_keeps_one(num_weights: int, kept: int) -> None:
    asked = min(kept, num_weights)
    assert Sparse(UNSTRUCTURED, num_weights / asked).count((num_weights,)) == (asked, num_weights)
    expected = max(1, math.floor(Fraction(num_weights) / kept + Fraction(1, 2)))
    assert Sparse(UNSTRUCTURED, kept).count((num_weights,))[0] == expected


@pytest.mark.parametrize("rate", [0.5, 0.0, -4.0, float("nan"), float("inf")])
def test_a_rate_that_is_none_is_refused(rate: float) -> None:
    with pytest.raises(ValueError, match=r"is not a pruning rate; it is all / kept and starts at 1 \(rate=4 keeps a quarter"):
        Sparse(FILTER, rate)


def test_each_target_is_projected_for_itself() -> None:
    weights = {A: torch.tensor([[1.0, 2.0], [3.0, 4.0]]), B: torch.tensor([[10.0, 0.0, 0.1]])}
    projected = Sparse(COLUMN, 2).project(weights)
    assert projected[A].tolist() == [[0.0, 2.0], [0.0, 4.0]]
    assert projected[B].tolist() == [[10.0, 0.0, pytest.approx(0.1)]]  # 3 / 2 rounds to 2


def test_rate_1_keeps_all() -> None:
    weight = torch.randn(4, 3)
    constraint = Sparse(UNSTRUCTURED, 1)
    assert torch.equal(constraint.project({A: weight})[A], weight)
    assert constraint.freeze({A: weight}).masks[A].all()


def test_the_mask_keeps_a_chosen_weight_that_is_zero() -> None:
    weight = torch.tensor([[0.0, 0.0], [0.0, 1.0]])
    frozen = Sparse(FILTER, 2).freeze({A: weight})
    assert frozen.masks[A].tolist() == [[False, False], [True, True]]
    all_zero = Sparse(UNSTRUCTURED, 2).freeze({A: torch.zeros(4)})
    assert all_zero.masks[A].tolist() == [True, True, False, False]
    assert all_zero.structure == "unstructured"


def test_freeze_keeps_what_project_keeps() -> None:
    weight = torch.randn(6, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    constraint = Sparse(FILTER, 3)
    projected = constraint.project({A: weight})
    assert torch.equal(constraint.freeze({A: weight}).project({A: weight})[A], projected[A])
    assert torch.equal(constraint.project(projected)[A], projected[A])


def test_state_round_trip_and_mismatch() -> None:
    file = io.BytesIO()
    torch.save(Sparse(FILTER, 4).state_dict(), file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    constraint = Sparse(FILTER, 1)
    constraint.load_state_dict(state)
    assert constraint.rate == 4
    with pytest.raises(ValueError, match="the checkpoint holds structure 'filter', this run asks for 'column'; start anew"):
        Sparse(COLUMN, 4).load_state_dict(state)


def test_an_unknown_score_is_refused_and_the_state_holds_it_only_where_it_is_not_the_default() -> None:
    with pytest.raises(ValueError, match=r"score='l1' ranks no groups; take energy .* or rms"):
        Sparse(FILTER, 2, score="l1")
    assert Sparse(FILTER, 2).state_dict() == {"kind": "sparse", "structure": "filter", "rate": 2.0}
    with pytest.raises(ValueError, match="the checkpoint holds score 'rms', this run asks for 'None'; start anew"):
        Sparse(FILTER, 2).load_state_dict(Sparse(FILTER, 2, score="rms").state_dict())
