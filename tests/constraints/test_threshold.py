"""One threshold over layers and groupings: against its definition in plain loops, its rates, and the messages a user reads."""

import itertools
from collections.abc import Callable, Hashable
from functools import partial

import pytest
import torch
from sets import A, B, Position, check_set, drawn, energy, groups_by_hand, nonzero
from torch import Tensor, nn

from espalier.constraints import (
    BLOCK_COLUMN,
    BLOCK_ROW,
    COLUMN,
    FILTER,
    UNSTRUCTURED,
    CommonThreshold,
    Structure,
    Target,
    Threshold,
    assign,
)

Shape = tuple[int, ...]
Key = Callable[[Shape, Shape], Hashable]


def column(position: Shape, shape: Shape) -> int:
    found = 0
    for index, size in zip(position[1:], shape[1:], strict=True):
        found = found * size + index
    return found


KEYS: dict[str, Key] = {
    "unstructured": lambda position, _: position,
    "filter": lambda position, _: position[0],
    "column": lambda position, _: position[1:],
    "block_column 2": lambda position, _: (position[0] // 2, position[1:]),
    "block_row 2x2": lambda position, shape: (position[0], column(position, shape) // 2),
}
COMBINATIONS: list[tuple[Structure, ...]] = [
    (FILTER,),
    (COLUMN,),
    (FILTER, COLUMN),
    (BLOCK_ROW.sized([2, 2]), BLOCK_COLUMN.sized([2])),
]
BY_COMBINATION = pytest.mark.parametrize("structures", COMBINATIONS, ids=lambda taken: " ".join(entry.name for entry in taken))


def by_hand(weights: dict[Target, Tensor], structures: tuple[Structure, ...], costs: dict[str, float], rate: float) -> frozenset[Position]:
    """Return the entries above the lowest threshold that the cost allows, every layer's best entry's groups kept."""
    reach: dict[Position, float] = {}
    for target, weight in weights.items():
        shape = tuple(weight.shape)
        unit = (energy(weights, [(target, p) for p in itertools.product(*map(range, shape))]) / weight.numel()) ** 0.5
        lowest: dict[Position, float] = {}
        held: list[list[frozenset[Position]]] = []
        for structure in structures:
            groups = groups_by_hand({target: shape}, lambda position, s=structure, at=shape: KEYS[s.label](position, at))  # type: ignore[misc]
            held.append(groups)
            for group in groups:
                norm = (energy(weights, group) / len(group)) ** 0.5 / unit
                lowest |= {position: min(norm, lowest.get(position, float("inf"))) for position in group}
        best = max(sorted(lowest, key=lambda place: place[1]), key=lambda place: lowest[place])
        favoured = [next(group for group in groups if best in group) for groups in held]
        for position in lowest:
            values = []
            for structure, groups, chosen in zip(structures, held, favoured, strict=True):
                del structure
                mine = next(group for group in groups if position in group)
                values.append(float("inf") if mine == chosen else (energy(weights, mine) / len(mine)) ** 0.5 / unit)
            reach[position] = min(values)
    budget = sum(costs[target.parameter] * weight.numel() for target, weight in weights.items()) / rate
    for tau in sorted(set(reach.values())):
        kept = frozenset(position for position, value in reach.items() if value >= tau)
        if sum(costs[target.parameter] for target, _ in kept) <= budget:
            return kept
    raise AssertionError("even the best entries cost too much")


@pytest.mark.tiny
@BY_COMBINATION
@pytest.mark.parametrize("costs", [{A.parameter: 1.0, B.parameter: 1.0}, {A.parameter: 1.0, B.parameter: 7.0}], ids=["weights", "macs"])
def test_the_lowest_threshold_that_the_cost_allows(structures: tuple[Structure, ...], costs: dict[str, float]) -> None:
    shapes = {A: (4, 3, 1, 2), B: (4, 5)}
    for seed in range(4):
        weights = drawn(shapes, seed)
        weights[B] *= 0.01  # another scale: norms are relative
        made = CommonThreshold(structures, 2, costs)
        expected = by_hand(weights, structures, costs, 2)
        assert nonzero(made.freeze(weights).masks) == expected
        assert nonzero(made.project(weights)) == expected
        tau = made.threshold(weights)
        if len(structures) == 1:
            assert nonzero(Threshold(structures, tau).freeze(weights).masks) == expected, "what the common threshold keeps lies above it"
        assert made.threshold_at(weights, 1.0) == 0.0 < made.threshold_at(weights, 1.5) <= tau <= made.threshold_at(weights, 3)


def crossings(shape: Shape, structures: tuple[Structure, ...], most: int) -> list[frozenset[Position]]:
    kept = []
    for structure in structures:
        groups = groups_by_hand({A: shape}, lambda position, s=structure: KEYS[s.label](position, shape))  # type: ignore[misc]
        sizes = range(1, len(groups) + 1)
        kept.append([frozenset().union(*chosen) for size in sizes for chosen in itertools.combinations(groups, size)])
    supports = {frozenset.intersection(*chosen) for chosen in itertools.product(*kept)}
    return [support for support in supports if 0 < len(support) <= most]


@BY_COMBINATION
def test_projection_frozen_set_and_state(structures: tuple[Structure, ...]) -> None:
    made = CommonThreshold(structures, 2, {A.parameter: 1.0})
    for seed in range(3):
        check_set(made, drawn({A: (3, 2, 1, 2)}, seed), crossings((3, 2, 1, 2), structures, 6), exact=False)
        check_set(Threshold(structures, 0.9), drawn({A: (3, 2, 1, 2)}, seed), crossings((3, 2, 1, 2), structures, 12), exact=False)


def test_a_given_threshold_holds_for_the_rows_and_columns_that_are_left() -> None:
    again = 0
    for seed in range(20):
        weight = drawn({A: (8, 9)}, seed)[A]
        kept = Threshold([FILTER, COLUMN], 0.9).project({A: weight})[A]
        unit = kept.square().mean().sqrt()
        for axis in (0, 1):
            norms = kept.square().mean(axis).sqrt() / unit
            assert ((norms > 0.9) | (norms == 0)).sum() >= len(norms) - 1  # but for those of the best entry
        once = weight * (weight.square().mean(0).sqrt() > 0.9 * weight.square().mean().sqrt())
        again += int(
            (kept != 0).sum() < (once * (weight.square().mean(1, keepdim=True).sqrt() > 0.9 * weight.square().mean().sqrt()) != 0).sum()
        )
    assert again > 0


def test_dead_groups_are_kept_last_and_never_a_whole_layer_goes() -> None:
    weights = drawn({A: (6, 5), B: (6, 5)})
    weights[A][2:] = 0.0
    weights[B] = torch.zeros(6, 5)
    made = CommonThreshold([FILTER], 3, {A.parameter: 1.0, B.parameter: 1.0})
    masks = made.freeze(weights).masks
    assert masks[A][:2].all()
    assert masks[B].any()
    assert sum(int(mask.sum()) for mask in masks.values()) == 20
    empty = Threshold([FILTER, COLUMN], 0.5).freeze({A: torch.zeros(3, 4)}).masks[A]
    assert empty.sum() == 1


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3)
        self.conv2 = nn.Conv2d(8, 16, 3)
        self.fc = nn.Linear(16, 10)


@pytest.mark.parametrize("structures", [["filter", "column"], ["block_row 4x8", "block_column 4"], ["unstructured"]], ids=str)
def test_the_rate_counts_the_whole_model(structures: list[str]) -> None:
    torch.manual_seed(0)
    model = Net()
    make = partial(CommonThreshold, structures, spare={"column": 3})
    assignment = assign(model, make, rate=3, rate_of="weights", skip=["fc"])
    frozen = assignment.freeze(assignment.read(model))
    kept = sum(int(mask.sum()) for _, part in frozen.parts for mask in part.masks.values()) + model.fc.weight.numel()  # type: ignore[attr-defined]
    total = sum(weight.numel() for weight in (model.conv1.weight, model.conv2.weight, model.fc.weight))
    assert total / 3 - 144 <= kept <= total / 3  # at most, and no filter of 72 weights and no column of 16 is left over


def test_the_first_convolution_keeps_its_columns() -> None:
    torch.manual_seed(0)
    made = CommonThreshold([FILTER, COLUMN], 4, {"conv1.weight": 1.0}, spare={"column": 3})
    mask = made.freeze({Target("conv1.weight"): torch.randn(8, 3, 3, 3)}).masks[Target("conv1.weight")]
    assert (mask.flatten(1).all(1) | ~mask.flatten(1).any(1)).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CommonThreshold([], 2, {}), r"structures=\[\] groups nothing"),
        (lambda: CommonThreshold(["filters"], 2, {}), "no structure is called 'filters'; nearest: filter"),
        (lambda: CommonThreshold([FILTER], 2, {"a": 0.0}), "costs more than nothing; costs give a: 0.0"),
        (lambda: CommonThreshold([FILTER], 2, {}).masks(drawn({A: (4, 2)})), "costs name no a.weight"),
        (lambda: CommonThreshold([FILTER], 2, {}, spare={"kernels": 3}), "spare names kernels; the structures are filter"),
        (lambda: Threshold([FILTER], -0.1), "tau=-0.1 is no threshold"),
        (lambda: Threshold([FILTER], 0.1, spare={"filter": 3}).check({A: (4, 2)}), r"no groups; name its layer in constraint\.skip"),
        (lambda: CommonThreshold([FILTER], 9, {A.parameter: 1.0}).check({A: (4, 2)}), "rate=9 would empty a layer: .* the largest is 4"),
    ],
)
def test_settings_that_do_not_fit_are_named(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_a_checkpoint_of_other_groups_is_refused() -> None:
    made, other = Threshold([FILTER, COLUMN], 0.1), Threshold([FILTER, UNSTRUCTURED], 0.1)
    with pytest.raises(ValueError, match=r"structures 'filter \+ column', this run asks for 'filter \+ unstructured'"):
        other.load_state_dict(made.state_dict())
