"""Clustered weights: feasible, never worse than equal distance, and means of what they stand for."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from espalier.constraints import Clusters, Inside, Pinned, Support, Target, UniformLevels

A = Target("a")
VALUES = st.lists(st.floats(-4, 4, width=32, allow_subnormal=False), min_size=1, max_size=30)


def error(weight: torch.Tensor, projected: torch.Tensor) -> float:
    return (weight - projected).double().square().sum().item()


@given(VALUES, st.integers(1, 3))
@settings(max_examples=30, deadline=None)
def test_projection_is_feasible_idempotent_and_no_worse_than_equal_distance(values: list[float], bits: int) -> None:
    weight, clusters = torch.tensor(values), Clusters(bits, False)
    projected = clusters.project({A: weight})[A]
    assert len(projected.unique()) <= 2**bits
    assert torch.equal(clusters.project({A: projected})[A], projected)
    assert torch.equal(clusters.project({A: weight})[A], projected)
    uniform = error(weight, UniformLevels(bits, False).project({A: weight})[A])
    assert error(weight, projected) <= uniform * (1 + 1e-5) + 1e-9


def test_each_value_is_the_mean_of_its_weights_and_the_nearest_one() -> None:
    weight = torch.randn(40, 50, generator=torch.Generator().manual_seed(0))
    clusters = Clusters(3, False)
    projected, book, index = (
        found[A] for found in (clusters.project({A: weight}), clusters.codebook({A: weight}), clusters.level_index({A: weight}))
    )
    assert torch.equal(book[index], projected)
    for value in book:
        assert weight[projected == value].double().mean().item() == pytest.approx(value.item(), abs=1e-6)
    assert torch.allclose((weight - projected).abs(), (weight.unsqueeze(2) - book).abs().min(2).values, atol=1e-6)


def test_well_parted_weights_get_the_best_clusters() -> None:
    weight = torch.tensor([-2.1, -2.0, -1.9, 0.4, 0.5, 0.6, 0.7])
    best = min(
        sum(error(part, part.mean()) for part in (weight[:cut], weight[cut:]))  # two clusters of a line are two intervals
        for cut in range(1, len(weight))
    )
    assert error(weight, Clusters(1, False).project({A: weight})[A]) == pytest.approx(best, rel=1e-5)


def test_inside_a_pruned_layer_the_kept_weights_alone_take_values() -> None:
    weight = torch.randn(10, 10, generator=torch.Generator().manual_seed(1))
    mask = torch.rand(10, 10, generator=torch.Generator().manual_seed(2)) < 0.4
    inside = Inside(Support({A: mask}, "unstructured"), Clusters(2, False))
    frozen = inside.freeze({A: weight})
    assert isinstance(frozen, Pinned)
    assert (frozen.values[A][~mask] == 0).all()
    assert len(frozen.values[A][mask].unique()) == 4
    assert frozen.outside(inside.project({A: weight})) == 0


def test_state_and_bad_input() -> None:
    clusters = Clusters(3, False)
    other = Clusters(1, False)
    other.load_state_dict(clusters.state_dict())
    weight = torch.randn(200, generator=torch.Generator().manual_seed(3))
    assert clusters.state_dict() == {"kind": "clusters", "bits": 3, "zero": False}
    assert torch.equal(other.project({A: weight})[A], clusters.project({A: weight})[A])
    for bits in (0, 9):
        with pytest.raises(ValueError, match=rf"bits={bits} with zero=False is no level set; bits run from 1 to 8"):
            Clusters(bits, False)
    for values in ([1.0, float("nan"), 2.0], []):
        with pytest.raises(ValueError, match=r"cannot fit levels to \d weights"):
            clusters.project({A: torch.tensor(values)})
    assert list(itertools.islice(clusters.codebook({A: torch.tensor([0.5, 0.5])})[A], 2)) == [0.5]
