import io

import pytest
import torch

from espalier.constraints import Frozen, Pinned, Sparse, Support, Target, as_frozen, frozen_from_state, structure

A, B = Target("a.weight"), Target("b.weight", 0, 1, 3)
MASK = torch.tensor([[True, False], [False, True]])
SUPPORT = Support({A: MASK, B: MASK}, "unstructured")
PINNED = Pinned({A: torch.full((2, 2), 0.5), B: torch.zeros(2, 2)}, {A: MASK, B: MASK})
BOTH = pytest.mark.parametrize("frozen", [SUPPORT, PINNED], ids=["support", "pinned"])


def test_support_zeroes_outside_the_mask_and_leaves_the_rest() -> None:
    weight = torch.tensor([[1.0, 2.0], [3.0, -4.0]])
    assert SUPPORT.project({A: weight})[A].tolist() == [[1.0, 0.0], [0.0, -4.0]]
    assert SUPPORT.outside({A: weight}) == 2
    assert SUPPORT.free(A).tolist() == MASK.tolist()


def test_pinned_holds_entries_at_their_values() -> None:
    weight = torch.tensor([[1.0, 2.0], [3.0, 0.5]])
    assert PINNED.project({A: weight})[A].tolist() == [[0.5, 2.0], [3.0, 0.5]]
    assert PINNED.outside({A: weight}) == 1
    assert PINNED.free(A).tolist() == (~MASK).tolist()


@BOTH
def test_projection_is_idempotent_feasible_and_leaves_its_argument(frozen: Frozen) -> None:
    weights = {A: torch.randn(2, 2), B: torch.randn(2, 2)}
    before = weights[A].clone()
    projected = frozen.project(weights)
    assert torch.equal(weights[A], before)
    assert frozen.outside(projected) == 0
    assert all(torch.equal(again, projected[target]) for target, again in frozen.project(projected).items())
    assert frozen.freeze(weights) is frozen


@BOTH
def test_the_dtype_is_the_weights(frozen: Frozen) -> None:
    projected = frozen.project({A: torch.ones(2, 2, dtype=torch.bfloat16)})[A]
    assert projected.dtype == torch.bfloat16
    assert frozen.outside({A: projected}) == 0


def test_a_nan_outside_the_mask_is_counted() -> None:
    assert SUPPORT.outside({A: torch.full((2, 2), float("nan"))}) == 2


@BOTH
def test_round_trip_without_pickle(frozen: Frozen) -> None:
    file = io.BytesIO()
    torch.save(frozen.state_dict(), file)
    file.seek(0)
    rebuilt = frozen_from_state(torch.load(file, weights_only=True))
    weights = {A: torch.randn(2, 2), B: torch.randn(2, 2)}
    assert type(rebuilt) is type(frozen)
    assert all(torch.equal(weight, rebuilt.project(weights)[target]) for target, weight in frozen.project(weights).items())
    if isinstance(frozen, Support):
        assert isinstance(rebuilt, Support)
        assert rebuilt.structure == frozen.structure


@BOTH
def test_errors_name_target_and_shapes(frozen: Frozen) -> None:
    with pytest.raises(ValueError, match=r"holds nothing for c; it has a\.weight, b\.weight\[0:1:3\]"):
        frozen.project({Target("c"): torch.zeros(2, 2)})
    with pytest.raises(ValueError, match=r"shape \(2, 2\) for a\.weight, the weight \(3, 2\); use the model it came from"):
        frozen.project({A: torch.zeros(3, 2)})


def test_a_state_that_is_no_frozen_set() -> None:
    with pytest.raises(ValueError, match="'sparse' is no frozen set; there are support, pinned"):
        frozen_from_state(Sparse(structure("filter"), 2).state_dict())


def test_values_and_masks_must_agree() -> None:
    with pytest.raises(ValueError, match="give both for each target"):
        Pinned({A: torch.zeros(1)}, {})


def test_as_frozen_refuses_a_set_whose_choice_is_open() -> None:
    assert as_frozen(SUPPORT) is SUPPORT
    with pytest.raises(ValueError, match=r"Sparse is not frozen; call freeze\(weights\) first"):
        as_frozen(Sparse(structure("filter"), 2))


def test_what_pruning_left_is_told_apart_from_zeros() -> None:
    level, zero = torch.tensor([[0.0, 0.0], [0.5, 0.5]]), {A: torch.ones(2, 2, dtype=torch.bool)}
    assert SUPPORT.kept(A).tolist() == MASK.tolist()
    assert Pinned({A: level}, zero).kept(A).all()
    pruned = Pinned({A: level}, zero, {A: MASK})
    assert pruned.kept(A).tolist() == MASK.tolist()
    assert frozen_from_state(pruned.state_dict()).kept(A).tolist() == MASK.tolist()
    older = {key: value for key, value in pruned.state_dict().items() if key != "support"}
    assert frozen_from_state(older).kept(A).tolist() == [[False, False], [True, True]]
