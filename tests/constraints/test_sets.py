"""Every sparsity set against its definition in plain loops, through one helper."""

import itertools
import math
from collections.abc import Callable, Hashable, Iterable
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sets import A, B, Position, all_of, check_set, choices, drawn, energy, groups_by_hand, nonzero

from espalier.constraints import (
    BLOCK_COLUMN,
    BLOCK_PUNCHED,
    BLOCK_ROW,
    CHANNEL,
    COLUMN,
    FILTER,
    KERNEL,
    KGS,
    NM,
    UNSTRUCTURED,
    VANILLA,
    BalancedKernels,
    BlockRowsColumns,
    Budget,
    CommonThreshold,
    FilterColumn,
    GlobalSparse,
    PatternKernels,
    Patterns,
    Sparse,
    Structure,
    SupportSet,
    Target,
    library,
)

Shape = tuple[int, ...]
SHAPES: dict[str, Shape] = {
    "linear": (4, 3),
    "conv1d": (3, 2, 2),
    "conv2d": (3, 2, 1, 2),
    "conv3d": (2, 3, 1, 1, 2),
    "depthwise": (4, 1, 1, 3),
    "ragged": (5, 3),
}


def column(position: Shape, shape: Shape) -> int:
    """Return the column of a weight in the GEMM matrix."""
    found = 0
    for index, size in zip(position[1:], shape[1:], strict=True):
        found = found * size + index
    return found


STRUCTURES: list[tuple[Structure, Callable[[Shape, Shape], Hashable]]] = [
    (UNSTRUCTURED, lambda position, _: position),
    (FILTER, lambda position, _: position[0]),
    (CHANNEL, lambda position, _: position[1]),
    (COLUMN, lambda position, _: position[1:]),
    (KERNEL, lambda position, _: position[:2]),
    (BLOCK_COLUMN.sized([2]), lambda position, _: (position[0] // 2, position[1:])),
    (BLOCK_ROW.sized([2, 2]), lambda position, shape: (position[0], column(position, shape) // 2)),
    (BLOCK_PUNCHED.sized([2, 2]), lambda position, _: (position[0] // 2, position[1] // 2, position[2:])),
    (KGS.sized([3, 2]), lambda position, _: (position[0] // 3, position[1] // 2, position[2:])),
    (VANILLA.sized([2, 2]), lambda position, _: (position[0] // 2, position[1] // 2)),
]
BY_STRUCTURE = pytest.mark.parametrize(("grouping", "key"), STRUCTURES, ids=[entry.label for entry, _ in STRUCTURES])


def halves(num_groups: int, rate: float) -> int:
    return max(1, math.floor(num_groups / rate + 0.5))


@pytest.mark.tiny
@BY_STRUCTURE
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("rate", [1.0, 2.0, 5.0])
def test_sparse(grouping: Structure, key: Callable[[Shape, Shape], Hashable], shape: Shape, rate: float) -> None:
    groups = groups_by_hand({A: shape}, lambda position: key(position, shape))
    made = Sparse(grouping, rate)
    assert made.count(shape) == (halves(len(groups), rate), len(groups))
    assert sorted(grouping.sizes(shape).tolist()) == sorted(map(float, map(len, groups)))
    check_set(made, drawn({A: shape}), choices(groups, halves(len(groups), rate)))


@BY_STRUCTURE
@pytest.mark.parametrize("shape", [(5, 3), (3, 3, 1, 2)], ids=str)
def test_rms_keeps_the_groups_of_largest_mean_over_real_weights(
    grouping: Structure, key: Callable[[Shape, Shape], Hashable], shape: Shape
) -> None:
    groups = groups_by_hand({A: shape}, lambda position: key(position, shape))
    weights, made = drawn({A: shape}), Sparse(grouping, 3, score="rms")
    check_set(made, weights, choices(groups, halves(len(groups), 3)), exact=False)
    ranked = sorted(groups, key=lambda group: energy(weights, group) / len(group), reverse=True)
    assert nonzero(made.freeze(weights).masks) == frozenset().union(*ranked[: halves(len(groups), 3)])


def test_rms_spares_a_dense_edge_group_that_energy_drops() -> None:
    weight = torch.tensor([[1.0], [1.0], [1.2]])  # blocks of two filters; the second has one real weight
    blocks = BLOCK_COLUMN.sized([2])
    assert Sparse(blocks, 2).project({A: weight})[A].flatten().tolist() == [1.0, 1.0, 0.0]
    assert Sparse(blocks, 2, score="rms").project({A: weight})[A].flatten().tolist() == pytest.approx([0.0, 0.0, 1.2])


def runs(shapes: dict[Target, Shape], n: int, m: int) -> Iterable[frozenset[Position]]:
    groups = groups_by_hand(shapes, lambda p: (p[0], p[1] // m, p[2:]))
    return all_of(choices([frozenset([place]) for place in sorted(group)], min(n, len(group))) for group in groups)


@pytest.mark.tiny
@pytest.mark.parametrize("shape", [(2, 4), (2, 6), (1, 7), (2, 4, 1, 2), (1, 5, 1, 1, 2)], ids=str)
def test_two_of_four(shape: Shape) -> None:
    check_set(NM(2, 4), drawn({A: shape}), runs({A: shape}, 2, 4))


@pytest.mark.parametrize(("n", "m"), [(1, 2), (1, 4), (4, 8), (3, 5)])
def test_n_of_m_per_gate(n: int, m: int) -> None:
    shapes = {A: (1, m + 1), B: (1, m)}
    check_set(NM(n, m), drawn(shapes), runs(shapes, n, m))


@pytest.mark.parametrize("rate", [1.0, 2.0, 3.0])
@pytest.mark.parametrize("shape", [(2, 4), (3, 3, 1, 2), (2, 3, 1, 1, 2)], ids=str)
def test_balanced_kernels(rate: float, shape: Shape) -> None:
    kernels = groups_by_hand({A: shape}, lambda position: position[:2])
    filters = [kernels[start : start + shape[1]] for start in range(0, len(kernels), shape[1])]
    check_set(BalancedKernels(rate), drawn({A: shape}), all_of(choices(each, halves(shape[1], rate)) for each in filters))


def patterns_of(name: str, kernel: tuple[int, int]) -> list[frozenset[Position]]:
    found = library(name).patterns
    return [frozenset((A, (*kernel, place // 3, place % 3)) for place in pattern) for pattern in found]


@pytest.mark.tiny
@pytest.mark.parametrize("name", ["corner4", "tee4", "std8", "mest8", "five13"])
def test_patterns(name: str) -> None:
    kernels = [patterns_of(name, (0, channel)) for channel in range(3)]
    check_set(Patterns(name), drawn({A: (1, 3, 3, 3)}), all_of(kernels))


@pytest.mark.parametrize("balanced", [False, True])
def test_patterns_and_kernels_at_once(balanced: bool) -> None:
    shape = (2, 2, 3, 3)
    kernels = [patterns_of("corner4", place) for place in itertools.product(range(2), range(2))]
    chosen = [*itertools.combinations(range(4), 2)] if not balanced else [*itertools.product((0, 1), (2, 3))]
    supports = [support for pair in chosen for support in all_of(kernels[index] for index in pair)]
    for seed in range(5):
        check_set(PatternKernels(2, "corner4", balanced), drawn({A: shape}, seed), supports)


@pytest.mark.parametrize("rounds", [0, 5])
@pytest.mark.parametrize("shape", [(4, 5), (3, 2, 1, 2), (3, 2, 1, 1, 2)], ids=str)
def test_filters_and_columns(rounds: int, shape: Shape) -> None:
    made = FilterColumn(4, rounds=rounds)
    rows = groups_by_hand({A: shape}, lambda position: position[0])
    columns = groups_by_hand({A: shape}, lambda position: position[1:])
    supports = [
        row & col for row in choices(rows, halves(len(rows), 2)) for col in choices(columns, halves(len(columns), 2))
    ]  # fmt: skip
    for seed in range(5):
        check_set(made, drawn({A: shape}, seed), supports, exact=False)


def test_choosing_anew_keeps_at_least_what_nesting_keeps_and_alternating_as_it_stands_changes_nothing() -> None:
    gained = 0
    for seed in range(30):
        weights = drawn({A: (6, 8)}, seed)
        nested, better = FilterColumn(4, rounds=0).project(weights), FilterColumn(4, rounds=5).project(weights)
        once = Sparse(FILTER, 2).project(Sparse(COLUMN, 2).project(weights))
        assert torch.equal(once[A], nested[A])
        assert torch.equal(Sparse(FILTER, 2).project(Sparse(COLUMN, 2).project(once))[A], once[A])
        kept, before = energy(weights, nonzero(better)), energy(weights, nonzero(nested))
        assert kept >= before * (1 - 1e-6)
        gained += kept > before * 1.001
    assert gained > 5


@pytest.mark.tiny
@pytest.mark.parametrize("grouping", [FILTER, COLUMN, BLOCK_COLUMN.sized([2])], ids=lambda grouping: grouping.label)
@pytest.mark.parametrize("floor", [False, True])
def test_global(grouping: Structure, floor: bool) -> None:
    shapes = {A: (3, 2), B: (4, 1, 2)}
    key = {entry.label: key for entry, key in STRUCTURES}[grouping.label]
    groups = groups_by_hand(shapes, lambda position: key(position, ()))
    supports = [
        support
        for support in choices(groups, halves(len(groups), 2))
        if not floor or {target for target, _ in support} == {A, B}
    ]  # fmt: skip
    for seed in range(5):
        weights = drawn(shapes, seed)
        weights[B] *= 0.1  # without the floor B would be emptied
        check_set(GlobalSparse(grouping, 2, floor), weights, supports)


def affordable(groups: list[frozenset[Position]], costs: dict[str, float], rate: float) -> list[frozenset[Position]]:
    def price(support: Iterable[Position]) -> float:
        return sum(costs[target.parameter] for target, _ in support)

    budget = sum(map(price, groups)) / rate
    unions = (frozenset().union(*chosen) for size in range(len(groups) + 1) for chosen in itertools.combinations(groups, size))
    return [support for support in unions if price(support) <= budget + 1e-9]


@pytest.mark.parametrize("floor", [False, True])
def test_budget_is_exact_where_all_groups_cost_the_same(floor: bool) -> None:
    shapes: dict[Target, Shape] = {A: (3, 4), B: (4, 2)}
    costs = {A.parameter: 1.0, B.parameter: 2.0}  # a filter costs 4 in both
    supports = affordable(groups_by_hand(shapes, lambda position: position[0]), costs, 2)
    floored = [support for support in supports if {target for target, _ in support} == {A, B}]
    for seed in range(5):
        check_set(Budget(FILTER, 2, costs, floor), drawn(shapes, seed), floored if floor else supports)


def test_budget_keeps_the_optimum_but_for_one_group() -> None:
    shapes: dict[Target, Shape] = {A: (4, 2), B: (3, 3)}
    costs = {A.parameter: 1.0, B.parameter: 5.0}
    groups = groups_by_hand(shapes, lambda position: position[0])
    supports = affordable(groups, costs, 2)
    short = 0
    for seed in range(20):
        weights = drawn(shapes, seed)
        made = Budget(FILTER, 2, costs, floor=False)
        check_set(made, weights, supports, exact=False)
        kept = nonzero(made.project(weights))
        most = max(energy(weights, support) for support in supports)
        ranked = sorted(groups, key=lambda group: energy(weights, group) / sum(costs[t.parameter] for t, _ in group), reverse=True)
        first_out = next(group for group in ranked if not group <= kept)
        assert energy(weights, kept) >= most - energy(weights, first_out) - 1e-6
        spent = sum(costs[target.parameter] for target, _ in kept)
        same_cost = [s for s in supports if sum(costs[target.parameter] for target, _ in s) <= spent + 1e-9]
        assert energy(weights, kept) == pytest.approx(max(energy(weights, support) for support in same_cost), rel=1e-5)
        short += energy(weights, kept) < most * 0.999
    assert short > 0, "greedy, not exact: the docstring says so"


SETS: list[SupportSet] = [
    *(Sparse(entry, 2) for entry, _ in STRUCTURES),
    NM(2, 4),
    NM(4, 8),
    BalancedKernels(2),
    Patterns("std8"),
    PatternKernels(2),
    PatternKernels(2, balanced=True),
    FilterColumn(4),
    BlockRowsColumns(8, (2, 4)),
    BlockRowsColumns(8, (2, 4), balanced=True),
    GlobalSparse(COLUMN, 2),
    Budget(COLUMN, 2, {A.parameter: 1.0}),
    CommonThreshold([FILTER, COLUMN], 2, {A.parameter: 1.0}),
]
BY_SET = pytest.mark.parametrize("made", SETS, ids=lambda made: f"{made.kind} {made.label}")


@BY_SET
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_dtypes_keep_what_float32_keeps(made: SupportSet, dtype: torch.dtype) -> None:
    weight = (drawn({A: (4, 9, 3, 3)})[A] * 300).to(dtype)  # squares overflow float16
    projected = made.project({A: weight})[A]
    assert projected.dtype == dtype
    assert torch.equal(projected != 0, made.project({A: weight.float()})[A] != 0)


@BY_SET
def test_ties_keep_the_lower_index(made: SupportSet) -> None:
    weights = {A: torch.ones(4, 8, 3, 3)}
    mask = made.freeze(weights).masks[A]
    assert torch.equal(made.freeze({A: torch.zeros(4, 8, 3, 3)}).masks[A], mask)
    generator = torch.Generator().manual_seed(0)
    nudged = made.freeze({A: weights[A] + 1e-3 * mask * torch.rand(mask.shape, generator=generator)}).masks[A]
    assert torch.equal(nudged, mask), "the ties' choice is a best one of the set"
    assert mask[0, 0].any(), "the first kernel comes first"
    assert torch.equal(made.freeze(weights).masks[A], mask)


@BY_SET
def test_weights_that_are_nan_are_refused(made: SupportSet) -> None:
    weight = drawn({A: (4, 9, 3, 3)})[A]
    weight[0, 0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match="NaN"):
        made.project({A: weight})


@BY_SET
def test_weights_that_are_strided_project_like_their_copies(made: SupportSet) -> None:
    weight = drawn({A: (4, 9, 3, 3)})[A]
    assert torch.equal(made.project({A: weight.contiguous(memory_format=torch.channels_last)})[A], made.project({A: weight})[A])


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_any_structure_on_any_shape(data: st.DataObject) -> None:
    grouping, key = data.draw(st.sampled_from(STRUCTURES))
    shape = data.draw(st.lists(st.integers(1, 4), min_size=2, max_size=5).filter(lambda sizes: math.prod(sizes) <= 48))
    sizes = data.draw(st.lists(st.integers(1, 5), min_size=len(grouping.blocks), max_size=len(grouping.blocks)))
    values = data.draw(st.lists(st.integers(-2, 2), min_size=math.prod(shape), max_size=math.prod(shape)))
    rate = data.draw(st.sampled_from([1.0, 1.5, 2.0, 4.0]))
    weight = torch.tensor(values, dtype=torch.float32).view(shape)
    keys = {"block_column": lambda p: (p[0] // sizes[0], p[1:]), "block_row": lambda p: (p[0], column(p, tuple(shape)) // sizes[1])}
    keys |= dict.fromkeys(("block_punched", "kgs"), lambda p: (p[0] // sizes[0], p[1] // sizes[1], p[2:]))
    keys["vanilla"] = lambda p: (p[0] // sizes[0], p[1] // sizes[1])
    by_hand = keys.get(grouping.name, lambda position: key(position, tuple(shape)))
    groups = groups_by_hand({A: tuple(shape)}, by_hand)
    sized = replace(grouping, blocks=dict(zip(grouping.blocks, sizes, strict=True)))
    num_keep = halves(len(groups), rate)
    energies = sorted((energy({A: weight}, group) for group in groups), reverse=True)
    made = Sparse(sized, rate)
    mask, projected = made.freeze({A: weight}).masks[A], made.project({A: weight})[A]
    assert projected.square().sum().item() == sum(energies[:num_keep])  # integers: exact
    assert sum(bool(group <= nonzero({A: mask})) for group in groups) == num_keep
    assert int(mask.sum()) == sum(len(group) for group in groups if group <= nonzero({A: mask}))
    members = [sorted(int(p) for p in group if p < weight.numel()) for group in sized.groups(shape).tolist()]
    strides = torch.empty(shape).stride()
    assert sorted(members) == sorted(sorted(sum(i * s for i, s in zip(p, strides, strict=True)) for _, p in group) for group in groups)
