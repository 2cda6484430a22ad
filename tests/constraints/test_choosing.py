import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from espalier.constraints.choosing import densest, favoured, largest_in_rows

SCORES = st.sampled_from([0.0, 0.5, 1.0, 1.0000001, 2.0, 1e-30, 1e30])


@given(st.integers(1, 6), st.data())
@settings(max_examples=100, deadline=None)
def test_each_row_keeps_its_largest_and_ties_the_lower_index(width: int, data: st.DataObject) -> None:
    rows = data.draw(st.lists(st.lists(SCORES, min_size=width, max_size=width), min_size=1, max_size=5))
    num_keep = data.draw(st.integers(1, width))
    kept = largest_in_rows(torch.tensor(rows, dtype=torch.float64), num_keep)
    for row, mask in zip(rows, kept, strict=True):
        assert mask.nonzero().flatten().tolist() == sorted(sorted(range(width), key=lambda index: (-row[index], index))[:num_keep])


@given(st.lists(st.tuples(SCORES, st.sampled_from([1.0, 2.0, 7.0])), min_size=1, max_size=30), st.floats(0, 120))
@settings(max_examples=200, deadline=None)
def test_the_densest_are_kept_until_the_budget_is_spent(groups: list[tuple[float, float]], budget: float) -> None:
    density = torch.tensor([entry for entry, _ in groups], dtype=torch.float64)
    cost = torch.tensor([entry for _, entry in groups], dtype=torch.float64)
    expected, spent = set(), 0.0
    for index in sorted(range(len(groups)), key=lambda index: (-groups[index][0], index)):
        spent += groups[index][1]
        if spent > budget:
            break
        expected.add(index)
    assert set(densest(density, cost, budget).nonzero().flatten().tolist()) == expected


def test_only_the_bucket_in_which_the_budget_ends_is_sorted(monkeypatch: pytest.MonkeyPatch) -> None:
    sorted_sizes = []
    argsort = torch.Tensor.argsort

    def watched(tensor: torch.Tensor, **knobs: bool) -> torch.Tensor:
        sorted_sizes.append(tensor.numel())
        return argsort(tensor, **knobs)

    monkeypatch.setattr(torch.Tensor, "argsort", watched)
    density = torch.rand(100_000, generator=torch.Generator().manual_seed(0))
    assert int(densest(density, torch.ones(100_000, dtype=torch.float64), 25_000).sum()) == 25_000
    assert sorted_sizes[0] < 2_000


def test_the_best_of_each_layer_is_favoured() -> None:
    assert [part.tolist() for part in favoured([torch.tensor([1.0, 3.0, 3.0]), torch.tensor([0.0])])] == [
        [1.0, torch.inf, 3.0],
        [torch.inf],
    ]


def test_counts_and_nan_are_refused() -> None:
    with pytest.raises(ValueError, match="cannot keep 4 of 3 groups a row, 0 scores are NaN"):
        largest_in_rows(torch.rand(2, 3), 4)
    with pytest.raises(ValueError, match="cannot keep 1 of 1 groups a row, 1 scores are NaN"):
        largest_in_rows(torch.tensor([[torch.nan]]), 1)
    with pytest.raises(ValueError, match="1 of 2 scores are NaN"):
        densest(torch.tensor([torch.nan, 1.0]), torch.ones(2, dtype=torch.float64), 1)
    with pytest.raises(ValueError, match="1 scores of groups are NaN"):
        favoured([torch.tensor([torch.nan])])
