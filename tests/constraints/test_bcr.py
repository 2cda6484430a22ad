"""Rows and columns of blocks against their definition in plain loops, and against the structures they become at both ends."""

import itertools
import math
from collections.abc import Iterator

import pytest
import torch
from sets import A, Position, check_set, drawn, energy, nonzero

from espalier.constraints import UNSTRUCTURED, BlockRowsColumns, FilterColumn, Sparse

Shape = tuple[int, int]


def halves(number: int, rate: float) -> int:
    return max(1, math.floor(number / rate + 0.5))


def pieces(shape: Shape, blocks: Shape, along: int) -> dict[tuple[int, int], list[frozenset[Position]]]:
    """Return block -> its columns (``along`` 1) or rows (0), each as the weights it has."""
    found: dict[tuple[int, int], dict[int, set[Position]]] = {}
    for row, column in itertools.product(*map(range, shape)):
        block = (row // blocks[0], column // blocks[1])
        found.setdefault(block, {}).setdefault((row, column)[along], set()).add((A, (row, column)))
    return {block: [frozenset(piece) for piece in by_place.values()] for block, by_place in found.items()}


def unions(parts: dict[tuple[int, int], list[frozenset[Position]]], rate: float, *, balanced: bool) -> Iterator[frozenset[Position]]:
    lists = [*parts.values()] if balanced else [[*itertools.chain(*parts.values())]]
    for chosen in itertools.product(*(itertools.combinations(each, halves(len(each), rate)) for each in lists)):
        yield frozenset().union(*itertools.chain(*chosen))


def subsets(parts: list[frozenset[Position]]) -> Iterator[frozenset[Position]]:
    for number in range(len(parts) + 1):
        for chosen in itertools.combinations(parts, number):
            yield frozenset().union(*chosen)


@pytest.mark.parametrize("balanced", [False, True], ids=["together", "balanced"])
@pytest.mark.parametrize(("shape", "blocks"), [((4, 4), (2, 2)), ((3, 4), (2, 3)), ((3, 3), (3, 3))], ids=str)
@pytest.mark.parametrize("rate", [1.0, 2.0, 4.0])
def test_columns_then_rows(shape: Shape, blocks: Shape, rate: float, balanced: bool) -> None:
    made = BlockRowsColumns(rate, blocks, columns=2.0, balanced=balanced)
    of_columns, of_rows = min(rate, 2.0), rate / min(rate, 2.0)
    columns = unions(pieces(shape, blocks, 1), of_columns, balanced=balanced)
    rows = [*itertools.chain(*pieces(shape, blocks, 0).values())]
    if of_rows == 1:
        supports = {*columns}
    elif balanced:
        of_each = {*unions(pieces(shape, blocks, 0), of_rows, balanced=True)}
        supports = {column & row for column in columns for row in of_each}
    else:
        by_rows = {*subsets(rows)}
        supports = {column & row for column in columns for row in by_rows if len(column & row) <= math.prod(shape) / rate}
    for seed in range(5):
        weights = drawn({A: shape}, seed)
        check_set(made, weights, supports, exact=False)
        if of_rows == 1:
            assert energy(weights, nonzero(made.project(weights))) == pytest.approx(max(energy(weights, each) for each in supports))


def test_the_rows_that_stay_are_the_strongest_of_what_columns_left() -> None:
    weight = torch.tensor([[3.0, 1.0, 0.1, 0.1], [2.0, 9.0, 0.1, 0.1]])
    made = BlockRowsColumns(4, (2, 2), columns=2.0)
    # columns of blocks by energy: 82, 13, 0.02, 0.02; two stay, of 2 weights each, and rows pay for 2 weights: row 1 of the first block
    assert made.project({A: weight})[A].tolist() == [[0, 0, 0, 0], [2.0, 9.0, 0, 0]]


@pytest.mark.parametrize("rate", [2.0, 4.0, 8.0])
def test_at_both_ends_it_is_unstructured_pruning_and_columns_with_filters(rate: float) -> None:
    weights = drawn({A: (16, 4, 3, 3)})
    smallest = BlockRowsColumns(rate, (1, 1)).project(weights)[A]
    assert torch.equal(smallest, Sparse(UNSTRUCTURED, rate).project(weights)[A])
    whole = FilterColumn(rate, filters=math.log(max(rate / 4, 1), rate), rounds=0).project(weights)[A]
    assert torch.equal(BlockRowsColumns(rate, None).project(weights)[A], whole)


@pytest.mark.parametrize("balanced", [False, True], ids=["together", "balanced"])
@pytest.mark.parametrize("rate", [4.0, 8.0, 16.0])
def test_the_rate_is_kept(rate: float, balanced: bool) -> None:
    mask = BlockRowsColumns(rate, (16, 32), balanced=balanced).freeze(drawn({A: (64, 64, 3, 3)})).masks[A]
    assert int(mask.sum()) <= mask.numel() / rate
    assert int(mask.sum()) >= 0.99 * mask.numel() / rate


@pytest.mark.parametrize("blocks", [[16], [0, 4], [4, 4, 4]], ids=str)
def test_sizes_that_are_none_are_refused(blocks: list[int]) -> None:
    with pytest.raises(ValueError, match=r"blocks=\[.*rows and columns of a block, both 1 or more"):
        BlockRowsColumns(4, blocks)
