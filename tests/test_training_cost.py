"""Training's multiply-adds and bytes against the formulas of mest, written out."""

import pytest

from espalier.constraints import BLOCK_COLUMN, FILTER, NM, UNSTRUCTURED, BalancedKernels, PatternKernels, Sparse
from espalier.training_cost import EpochCost, Held, Layer, Widths, index_bits, train_bytes, train_macs

pytestmark = pytest.mark.tiny
SPARSE, DENSE, SHAPE = "conv.weight", "fc.weight", (40, 10, 3, 3)
LAYERS = {SPARSE: Layer(3600, 3600 * 64), DENSE: Layer(100, 100)}


def test_backward_costs_twice_the_forward_and_dead_weights_nothing() -> None:
    assert train_macs(LAYERS, [EpochCost(10, {})]) == 3 * 10 * (3600 * 64 + 100)
    epochs = [EpochCost(10, {SPARSE: 540}), EpochCost(8, {SPARSE: 360})]
    assert train_macs(LAYERS, epochs) == 3 * (10 * (540 * 64 + 100) + 8 * (360 * 64 + 100))


def test_dense_gradients_are_charged_where_they_are_read() -> None:
    """RigL's step of a mutation takes 2 f_S + f_D instead of 3 f_S; SNFS takes that always."""
    sparse, dense = 360 * 64 + 100, 3600 * 64 + 100
    assert train_macs(LAYERS, [EpochCost(100, {SPARSE: 360}, dense_samples=4)]) == 96 * 3 * sparse + 4 * (2 * sparse + dense)
    assert train_macs(LAYERS, [EpochCost(100, {SPARSE: 360}, dense_samples=100)]) == 100 * (2 * sparse + dense)


@pytest.mark.parametrize(
    ("constraint", "per_weight"),
    [
        (Sparse(UNSTRUCTURED, 10.0), 16),
        (Sparse(BLOCK_COLUMN.sized([4]), 10.0), 16 / 4),
        (Sparse(FILTER, 10.0), 16 / 90),
        (BalancedKernels(10.0), 16 / 9),
        (PatternKernels(40 / 9, "mest8", balanced=True), (16 + 3) / 4),
    ],
    ids=["unstructured", "block 4x1", "filter", "kernel", "pattern"],
)
def test_an_index_stands_for_a_group_and_a_pattern_takes_three_bits(constraint: Sparse, per_weight: float) -> None:
    assert index_bits(Held(constraint, SHAPE, 360), Widths()) == pytest.approx(360 * per_weight)
    assert index_bits(Held(constraint, SHAPE, 360), Widths(index=0, pointer=32)) == pytest.approx(
        41 * 32 + (90 * 3 if isinstance(constraint, PatternKernels) else 0)
    )


def test_memory_is_that_of_the_formulas() -> None:
    num, held, bits = 3600, 360, 32
    only = {SPARSE: LAYERS[SPARSE]}
    sparse = Sparse(UNSTRUCTURED, 10.0)
    assert train_bytes(only, {}, momenta=0) * 8 == 2 * num * bits
    mest = train_bytes(only, {SPARSE: Held(sparse, SHAPE, held)}, momenta=0) * 8
    assert mest == 2 * held * bits + held * 16
    rigl = train_bytes(only, {SPARSE: Held(sparse, SHAPE, held, dense=True)}, momenta=0) * 8
    assert rigl == held * bits + num * bits + held * 16
    assert train_bytes(only, {SPARSE: Held(sparse, SHAPE, held)}, momenta=1) * 8 == 3 * held * bits + held * 16
    assert train_bytes(only, {}, momenta=0, activations=50, widths=Widths(value=16)) * 8 == 2 * num * 16 + 2 * 50 * 16


@pytest.mark.parametrize("held", [{"conv9.weight": 1}, {SPARSE: 3601}], ids=["unknown layer", "too many"])
def test_what_a_layer_cannot_hold_is_refused(held: dict[str, int]) -> None:
    with pytest.raises(
        ValueError, match=r"conv9\.weight' is no layer .* it has conv\.weight, fc\.weight|cannot hold 3,601 weights; it has 3,600"
    ):
        train_macs(LAYERS, [EpochCost(1, held)])


def test_a_set_without_groups_is_refused() -> None:
    with pytest.raises(ValueError, match="NM has no groups to index"):
        index_bits(Held(NM(2, 4), SHAPE, 1800), Widths())  # type: ignore[arg-type]
