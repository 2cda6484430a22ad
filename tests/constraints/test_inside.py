import io
import itertools

import pytest
import torch
from torch import Tensor

from espalier.constraints import (
    COLUMN,
    FILTER,
    UNSTRUCTURED,
    Binary,
    Codebook,
    Constraint,
    Inside,
    Pinned,
    PowerOfTwo,
    Sparse,
    Structure,
    Support,
    Target,
    UniformLevels,
)

A = Target("a")


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def mask(*shape: int, share: float = 0.5, seed: int = 1) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < share


@pytest.mark.tiny
@pytest.mark.parametrize("structure", [UNSTRUCTURED, FILTER, COLUMN], ids=lambda structure: structure.name)
@pytest.mark.parametrize("rate", [2.0, 4.0])
def test_a_sparse_set_inside_a_support_is_the_exact_projection(structure: Structure, rate: float) -> None:
    weight, free = normal(4, 3), mask(4, 3)
    inside = Inside(Support({A: free}, "unstructured"), Sparse(structure, rate))
    projected = inside.project({A: weight})[A]
    groups = structure.groups(weight.shape)
    num_keep = Sparse(structure, rate).count(weight.shape)[0]
    nearest = float("inf")
    for kept in itertools.combinations(range(len(groups)), num_keep):
        chosen = torch.zeros(12, dtype=torch.bool).index_fill(0, groups[list(kept)].flatten(), True).view(4, 3)
        nearest = min(nearest, (weight * ~(chosen & free)).square().sum().item())
    assert (weight - projected).square().sum().item() == pytest.approx(nearest, rel=1e-6)
    assert torch.equal(inside.project({A: projected})[A], projected)
    frozen = inside.freeze({A: weight})
    assert isinstance(frozen, Support)
    assert frozen.structure == structure.name
    assert not (frozen.masks[A] & ~free).any()
    assert torch.equal(frozen.project({A: weight})[A], projected)


@pytest.mark.parametrize("inner", [Binary(), UniformLevels(3, False), PowerOfTwo(2, True)], ids=["binary", "uniform", "pow2"])
def test_levels_see_only_the_entries_that_are_free(inner: Constraint) -> None:
    weight, free = normal(6, 5), mask(6, 5)
    inside = Inside(Support({A: free}, "unstructured"), inner)
    projected = inside.project({A: weight})[A]
    assert torch.equal(projected[free], inner.project({A: weight[free]})[A])
    assert not projected[~free].any()
    assert torch.equal(inside.project({A: projected})[A], projected)
    frozen = inside.freeze({A: weight})
    assert isinstance(frozen, Pinned)
    assert torch.equal(frozen.project({A: normal(6, 5, seed=9)})[A], projected)


def test_pinned_entries_stay_and_the_rest_takes_levels() -> None:
    weight, pinned = normal(6, 5), mask(6, 5)
    values = torch.full((6, 5), 0.125)
    projected = Inside(Pinned({A: values}, {A: pinned}), Binary()).project({A: weight})[A]
    assert (projected[pinned] == 0.125).all()
    assert torch.equal(projected[~pinned], Binary().project({A: weight[~pinned]})[A])


def test_a_target_without_free_entries_is_left_as_held() -> None:
    weight = normal(3)
    inside = Inside(Support({A: torch.zeros(3, dtype=torch.bool)}, "filter"), UniformLevels(3, False))
    assert inside.project({A: weight})[A].tolist() == [0.0, 0.0, 0.0]


def test_a_kept_weight_that_is_zero_stays_in_the_mask() -> None:
    frozen = Inside(Support({A: torch.tensor([True, True, True, False])}, "unstructured"), Sparse(UNSTRUCTURED, 2)).freeze(
        {A: torch.tensor([0.0, 5.0, 0.0, 9.0])}
    )
    assert isinstance(frozen, Support)
    assert frozen.masks[A].tolist() == [True, True, False, False]


def test_frozen_sets_intersect() -> None:
    first, second = mask(4, 4, seed=1), mask(4, 4, seed=2)
    weight = normal(4, 4)
    both = Inside(Support({A: first}, "filter"), Support({A: second}, "filter")).freeze({A: weight})
    assert isinstance(both, Support)
    assert torch.equal(both.masks[A], first & second)
    held = Inside(Support({A: first}, "filter"), Pinned({A: weight}, {A: second})).freeze({A: weight})
    assert torch.equal(held.free(A), first & ~second)
    assert torch.equal(held.project({A: weight + 1})[A], torch.where(first, torch.where(second, weight, weight + 1), 0.0))


def test_pruning_after_pinning_is_refused() -> None:
    inside = Inside(Pinned({A: torch.ones(4)}, {A: torch.tensor([True, False, False, False])}), Sparse(UNSTRUCTURED, 2))
    assert inside.project({A: torch.tensor([0.0, 3.0, 2.0, 1.0])})[A].tolist() == [1.0, 3.0, 2.0, 0.0]
    with pytest.raises(ValueError, match="prune first, quantize afterwards"):
        inside.freeze({A: torch.ones(4)})


def test_round_trip_without_pickle() -> None:
    levels = Codebook({A: torch.tensor([-1.0, 1.0])})
    saved = Inside(Support({A: mask(4)}, "unstructured"), levels)
    file = io.BytesIO()
    torch.save(saved.state_dict(), file)
    file.seek(0)
    other = Inside(Support({}, ""), Codebook({}))
    other.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(other.project({A: normal(4)})[A], saved.project({A: normal(4)})[A])


@pytest.mark.parametrize(
    ("structure", "kept"), [(UNSTRUCTURED, 6), (COLUMN, 8), (FILTER, 4)], ids=lambda value: getattr(value, "name", value)
)
@pytest.mark.parametrize("decayed", [0.0, 1e-32])
def test_free_weights_that_decayed_stay_free(structure: Structure, kept: int, decayed: float) -> None:
    """Weight decay drives weights of dead units to zero, or until their square is; a step took others, held at zero, for them."""
    free = torch.tensor([[False, True, False, True]] * 4)
    weight = torch.full((4, 4), decayed)
    weight[3, 3] = 1.0
    frozen = Inside(Support({A: free}, "unstructured"), Sparse(structure, 16 / 6 if structure is UNSTRUCTURED else 2.0)).freeze({A: weight})
    assert isinstance(frozen, Support)
    assert int(frozen.masks[A].sum()) == kept
    assert not (frozen.masks[A] & ~free).any()
    assert frozen.masks[A][3, 3]
