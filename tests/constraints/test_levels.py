import io
import itertools
from collections.abc import Sequence

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from espalier.constraints import Binary, Codebook, LevelSet, PowerOfTwo, Target, UniformLevels, alternate, nearest_level

A, B = Target("a"), Target("b")
SETS: dict[str, LevelSet] = {
    "binary": Binary(),
    "uniform-1": UniformLevels(1, False),
    "uniform-2": UniformLevels(2, False),
    "uniform-3": UniformLevels(3, False),
    "uniform-8": UniformLevels(8, False),
    "ternary": UniformLevels(2, True),
    "uniform-4-zero": UniformLevels(4, True),
    "pow2-1": PowerOfTwo(1, False),
    "pow2-3": PowerOfTwo(3, False),
    "pow2-3-zero": PowerOfTwo(3, True),
    "pow2-6": PowerOfTwo(6, False),
}
EVERY = pytest.mark.parametrize("levels", SETS.values(), ids=SETS)
VALUES = st.lists(st.floats(-4, 4, width=32, allow_subnormal=False), min_size=1, max_size=30)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("levels", "codes"),
    [
        (Binary(), [-1, 1]),
        (UniformLevels(1, False), [-1, 1]),
        (UniformLevels(3, False), [-4, -3, -2, -1, 1, 2, 3, 4]),
        (UniformLevels(3, True), [-3, -2, -1, 0, 1, 2, 3]),
        (PowerOfTwo(3, False), [-8, -4, -2, -1, 1, 2, 4, 8]),
        (PowerOfTwo(3, True), [-4, -2, -1, 0, 1, 2, 4]),
    ],
    ids=["binary", "uniform-1", "uniform-3", "uniform-3-zero", "pow2-3", "pow2-3-zero"],
)
def test_the_levels_are_those_of_the_paper(levels: LevelSet, codes: Sequence[int]) -> None:
    book = levels.codebook({A: normal(100)})[A]
    assert (book / book[-1] * codes[-1]).tolist() == pytest.approx(codes)


@EVERY
@given(values=VALUES)
@example(values=[3.0359039306640625, 0.453125])  # its alpha is the very next float32 of 7 alpha / 7
@settings(max_examples=40, deadline=None)
def test_projection_is_idempotent_feasible_and_nearest_for_its_alpha(levels: LevelSet, values: list[float]) -> None:
    weight = torch.tensor(values)
    projected = levels.project({A: weight})[A]
    book = levels.codebook({A: weight})[A]
    assert set(projected.tolist()) <= set(book.tolist())
    distance = (weight.unsqueeze(1) - book).abs().min(1).values
    torch.testing.assert_close((weight - projected).abs(), distance, rtol=1e-5, atol=1e-6)
    assert torch.equal(levels.project({A: projected})[A], projected)
    assert torch.equal(book[levels.level_index({A: weight})[A]], projected)


@EVERY
def test_projection_is_near_the_best_alpha_of_a_fine_grid(levels: LevelSet) -> None:
    weight = normal(2000)
    best = float("inf")
    magnitudes = levels.magnitudes().float()
    for alpha in torch.linspace(0.01, 1.3, 400) * weight.abs().max() / magnitudes[-1]:
        level = torch.cat([-alpha * magnitudes.flip(0), alpha * magnitudes])
        best = min(best, (weight.unsqueeze(1) - level).abs().min(1).values.square().sum().item())
    assert (weight - levels.project({A: weight})[A]).square().sum().item() <= 1.1 * best


@given(VALUES)
@settings(deadline=None)
def test_binary_is_the_exact_projection(values: list[float]) -> None:
    weight = torch.tensor(values[:8], dtype=torch.float64)
    nearest = min(
        (weight - max(float(weight @ signs) / len(signs), 0.0) * signs).square().sum().item()
        for signs in (torch.tensor(signs, dtype=torch.float64) for signs in itertools.product([-1.0, 1.0], repeat=len(weight)))
    )
    projected = Binary().project({A: weight})[A]
    assert (weight - projected).square().sum().item() == pytest.approx(nearest, abs=1e-9)
    assert projected.abs().max().item() == pytest.approx(weight.abs().mean().item(), abs=1e-12)


def test_sign_of_zero_is_negative() -> None:
    assert Binary().project({A: torch.tensor([0.0, 3.0])})[A].tolist() == [-1.5, 1.5]


@EVERY
def test_zero_weights_stay_zero(levels: LevelSet) -> None:
    assert levels.project({A: torch.zeros(3)})[A].tolist() == [0.0, 0.0, 0.0]


@EVERY
def test_positions_carry_no_meaning(levels: LevelSet) -> None:
    weight, order = normal(64), torch.randperm(64, generator=torch.Generator().manual_seed(1))
    assert torch.equal(levels.project({A: weight[order]})[A], levels.project({A: weight})[A][order])
    assert torch.equal(levels.project({A: weight.view(2, 4, 8)})[A], levels.project({A: weight})[A].view(2, 4, 8))
    assert levels.entrywise


@EVERY
def test_each_target_has_its_own_alpha(levels: LevelSet) -> None:
    small, large = normal(50), 2.0**10 * normal(50)
    projected = levels.project({A: small, B: large})
    assert torch.equal(projected[B], 2.0**10 * projected[A])


@EVERY
def test_freeze_holds_every_weight_at_its_level(levels: LevelSet) -> None:
    weight = normal(5, 4)
    frozen = levels.freeze({A: weight})
    assert torch.equal(frozen.project({A: weight + 1})[A], levels.project({A: weight})[A])
    assert not frozen.free(A).any()


@pytest.mark.tiny
@pytest.mark.parametrize("zero", [False, True], ids=["without-zero", "with-zero"])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@given(values=VALUES, seed=st.integers(0, 100))
@settings(max_examples=30, deadline=None)
def test_the_alternation_never_raises_the_error(bits: int, zero: bool, values: list[float], seed: int) -> None:  # claim 8
    for weight in (torch.tensor(values), normal(300, seed=seed)):
        alpha, codes, errors = alternate(weight, bits, 20, zero=zero)
        slack = 1e-12 * weight.double().square().sum().item()  # of double precision
        assert all(after <= before + slack for before, after in itertools.pairwise(errors))
        assert (weight.double() - alpha * codes.double()).square().sum().item() == pytest.approx(errors[-1], abs=slack)


def test_the_alternation_starts_where_the_paper_does_and_is_its_fixed_point() -> None:
    weight = normal(5000)
    alpha, codes, errors = alternate(weight, 2, 50)
    settled = (weight - (weight @ codes / (codes @ codes)) * codes).square().sum().item()  # the next alpha gains next to nothing
    assert errors[-1] * (1 - 1e-4) <= settled <= errors[-1] * (1 + 1e-6)
    assert (weight - alpha * codes).square().sum().item() == pytest.approx(errors[-1], rel=1e-6)
    assert len(errors) <= 6  # claim 8 at 2 bits
    assert UniformLevels(2, False).start(weight) == pytest.approx(weight.abs().mean().item())
    assert UniformLevels(4, False).start(weight) == pytest.approx(weight.abs().mean().item() / 3.5)
    assert UniformLevels(2, False).start(torch.tensor([0.0, 0.0, 4.0, 2.0])) == 3.0  # mean over the non-zeros


def test_rounds_bound_the_alternation() -> None:
    assert len(alternate(normal(5000), 8, 3)[2]) == 3


@EVERY
def test_half_precision_keeps_its_dtype(levels: LevelSet) -> None:
    projected = levels.project({A: normal(40).bfloat16()})[A]
    assert projected.dtype == torch.bfloat16
    assert projected.isfinite().all()


@pytest.mark.parametrize("values", [[1.0, float("nan")], [float("inf")], []], ids=["nan", "inf", "empty"])
def test_weights_without_a_fit_are_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match=rf"cannot fit levels to {len(values)} weights"):
        UniformLevels(3, False).project({A: torch.tensor(values)})


@pytest.mark.parametrize(
    ("make", "bits", "zero", "limits"),
    [(UniformLevels, 0, False, "from 1 to 8"), (UniformLevels, 1, True, "from 2 to 8"), (PowerOfTwo, 7, False, "from 1 to 6")],
    ids=["no-bit", "zero-alone", "too-many"],
)
def test_bits_out_of_range_are_refused(make: type[UniformLevels], bits: int, zero: bool, limits: str) -> None:
    with pytest.raises(ValueError, match=f"bits={bits} with zero={zero} is no level set; bits run {limits}"):
        make(bits, zero)


def test_a_codebook_is_exact_and_ties_go_down() -> None:
    book = Codebook({A: torch.tensor([-1.0, 0.5, 2.0])})
    weight = torch.tensor([-9.0, -0.25, -0.2, 1.25, 1.3, 9.0])
    assert book.project({A: weight})[A].tolist() == [-1.0, -1.0, 0.5, 0.5, 2.0, 2.0]
    assert nearest_level(weight, book.levels[A]).tolist() == [0, 0, 1, 1, 2, 2]
    assert book.freeze({A: weight}).outside({A: weight}) == 6
    with pytest.raises(ValueError, match="the codebook holds nothing for b; it has a"):
        book.project({B: weight})


@pytest.mark.parametrize(
    ("saved", "other"),
    [
        (UniformLevels(3, True), UniformLevels(2, False)),
        (PowerOfTwo(3, True), PowerOfTwo(2, False)),
        (Binary(), Binary()),
        (Codebook({A: torch.tensor([1.0, 2.0])}), Codebook({})),
    ],
    ids=["uniform", "pow2", "binary", "codebook"],
)
def test_round_trip_without_pickle(saved: LevelSet | Codebook, other: LevelSet | Codebook) -> None:
    file = io.BytesIO()
    torch.save(saved.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    weight = normal(30)
    assert torch.equal(other.project({A: weight})[A], saved.project({A: weight})[A])
