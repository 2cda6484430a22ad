"""Sets that regrow: a draw is of whole groups, and every group has the same chance."""

from collections import Counter
from collections.abc import Callable

import pytest
import torch

from espalier.constraints import (
    BLOCK_COLUMN,
    FILTER,
    KERNEL,
    NM,
    UNSTRUCTURED,
    BalancedKernels,
    FilterColumn,
    GlobalSparse,
    PatternKernels,
    Regrown,
    Sparse,
    Target,
)

pytestmark = pytest.mark.tiny
T = Target("w")
SETS: dict[str, tuple[Regrown, tuple[int, ...], float]] = {  # set, shape, chance of a weight to be kept
    "unstructured": (Sparse(UNSTRUCTURED, 4.0), (4, 2, 3, 3), 1 / 4),
    "filter": (Sparse(FILTER, 4.0), (8, 2, 3, 3), 1 / 4),
    "block": (Sparse(BLOCK_COLUMN.sized([4]), 3.0), (8, 3, 1, 1), 1 / 3),
    "edge blocks": (Sparse(BLOCK_COLUMN.sized([4]), 3.0), (6, 3, 1, 1), 1 / 3),
    "edge blocks by mean": (Sparse(BLOCK_COLUMN.sized([4]), 3.0, score="rms"), (6, 3, 1, 1), 1 / 3),
    "kernel": (Sparse(KERNEL, 4.0), (4, 4, 3, 3), 1 / 4),
    "balanced kernels": (BalancedKernels(2.0), (3, 4, 3, 3), 1 / 2),
    "patterns": (PatternKernels(2.0, "mest8", balanced=True), (2, 4, 3, 3), 4 / 18),
}


@pytest.mark.parametrize("name", SETS)
def test_every_weight_is_drawn_as_often(name: str) -> None:
    made, shape, chance = SETS[name]
    generator = torch.Generator().manual_seed(0)
    rounds = 1500
    kept = sum(made.masks({T: made.draw(shape, generator)})[T].double() for _ in range(rounds))
    assert isinstance(kept, torch.Tensor)
    share = kept / rounds
    if name != "patterns":
        assert (share - chance).abs().max() < 5 * (chance * (1 - chance) / rounds) ** 0.5
    assert share.mean().item() == pytest.approx(chance, abs=0.01)


def test_every_pattern_is_drawn_as_often() -> None:
    made = PatternKernels(2.0, "mest8", balanced=True)
    drawn = made.draw((100, 80, 3, 3), torch.Generator().manual_seed(0)) > 0
    counts = Counter(tuple(kernel.nonzero().flatten().tolist()) for kernel in drawn.view(-1, 9))
    assert set(counts) == {tuple(sorted(pattern)) for pattern in made.library.patterns}
    assert min(counts.values()) > 900
    assert max(counts.values()) < 1100


@pytest.mark.parametrize("name", SETS)
def test_a_draw_follows_from_its_generator_and_lies_in_0_to_1(name: str) -> None:
    made, shape, _ = SETS[name]
    first, again, other = (made.draw(shape, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert first.equal(again)
    assert not first.equal(other)
    assert first.shape == shape
    assert 0 <= float(first.min()) <= float(first.max()) <= 1


@pytest.mark.parametrize("make", [lambda: NM(2, 4), lambda: GlobalSparse(UNSTRUCTURED, 2.0), lambda: FilterColumn(2.0)])
def test_other_sets_do_not_regrow(make: Callable[[], object]) -> None:
    assert not isinstance(make(), Regrown)
