from pathlib import Path

import pytest
import torch
from torch import Tensor

from espalier.constraints import PatternKernels, Patterns, Target, library
from espalier.constraints.patterns import LIBRARIES, best_pattern

A = Target("a")
NUM_KERNELS = 20_000
CENTRE_HEAVY = torch.tensor([1, 1.5, 1, 1.5, 2, 1.5, 1, 1.5, 1])  # standard deviations: centre x2, midpoints of edges x1.5


def kernels(std: Tensor | float) -> Tensor:
    return torch.randn(NUM_KERNELS, 9, generator=torch.Generator().manual_seed(0)) * std


@pytest.mark.parametrize(
    ("name", "gaussian", "centre_heavy"),
    [  # share of all energy, share of the free best four; privacy-pruning, P5
        ("corner4", (0.677, 0.781), (0.759, 0.857)),
        ("tee4", (0.542, 0.626), (0.749, 0.845)),
        ("std8", (0.697, 0.804), (0.802, 0.906)),
        ("stat20", (0.761, 0.879), (0.841, 0.949)),
        ("all56", (0.829, 0.957), (0.867, 0.978)),
        ("all126", (0.866, 1), (0.886, 1)),
    ],
)
def test_reference_energies(name: str, gaussian: tuple[float, float], centre_heavy: tuple[float, float]) -> None:
    for std, (of_all, of_best) in ((1.0, gaussian), (CENTRE_HEAVY, centre_heavy)):
        drawn = kernels(std)
        kept = Patterns(name).project({A: drawn.view(-1, 1, 3, 3)})[A].square().sum()
        energy = drawn.square()
        assert (kept / energy.sum()).item() == pytest.approx(of_all, abs=0.005)
        assert (kept / energy.topk(4, dim=1).values.sum()).item() == pytest.approx(of_best, abs=0.005)


@pytest.mark.parametrize(
    ("name", "size", "kept"),
    [("corner4", 4, 4), ("tee4", 4, 4), ("std8", 8, 4), ("mest8", 8, 4), ("mest12", 12, 4), ("stat20", 20, 4), ("five13", 13, 5),
     ("all56", 56, 4), ("all126", 126, 4)],
)  # fmt: skip
def test_libraries(name: str, size: int, kept: int) -> None:
    patterns = library(name).patterns
    assert len(patterns) == size
    assert {len(pattern) for pattern in patterns} == {kept}
    assert library(name).source
    if name in ("corner4", "tee4", "std8", "stat20", "all56"):
        assert all(4 in pattern for pattern in patterns), "the centre stays"


def test_libraries_contain_each_other() -> None:
    sets = {path.stem: set(map(frozenset, library(path.stem).patterns)) for path in LIBRARIES.glob("*.yaml")}
    assert sets["std8"] == sets["corner4"] | sets["tee4"]
    assert sets["mest8"] < sets["mest12"]
    assert sets["tee4"] < sets["stat20"] < sets["all56"] < sets["all126"]
    assert len(sets["mest8"] & sets["std8"]) == 7


def test_many_kernels_are_taken_in_parts_and_ties_go_to_the_earlier_pattern() -> None:
    drawn = torch.cat([kernels(1.0), kernels(2.0), torch.ones(3, 9)])
    masks = library("std8").masks()
    index, energy = best_pattern(drawn, masks)
    expected = torch.stack([drawn.double().square()[:, mask].sum(1) for mask in masks], dim=1)
    assert torch.allclose(energy, expected.max(1).values)
    assert torch.allclose(expected.gather(1, index.unsqueeze(1)).squeeze(1), energy)
    assert index[-3:].tolist() == [0, 0, 0]


def test_a_library_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "bars.yaml"
    path.write_text("source: mine\nkernel: [1, 3]\npatterns:\n  - [0, 1]\n  - [1, 2]\n")
    projected = Patterns(str(path)).project({A: torch.tensor([[[[1.0, 2.0, 3.0]], [[3.0, 1.0, 1.0]]]])})[A]
    assert projected.flatten().tolist() == [0.0, 2.0, 3.0, 3.0, 1.0, 0.0]
    with pytest.raises(ValueError, match="is for 1x3 kernels, not for a weight of shape"):
        Patterns(str(path)).project({A: torch.zeros(1, 1, 3, 3)})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("source: x\npatterns: [[0, 9]]\n", r"\[0, 9\] is no pattern of a 3x3 kernel"),
        ("source: x\npatterns: [[0, 0]]\n", r"\[0, 0\] is no pattern"),
        ("source: x\npatterns: [[]]\n", r"\[\] is no pattern"),
        ("source: x\npatterns: [[0, 1], [2]]\n", "must keep the same number of positions and differ"),
        ("source: x\npatterns: [[0, 1], [1, 0]]\n", "must keep the same number of positions and differ"),
        ("patterns: [[0]]\n", "source"),
        ("source: x\npatterns: [[0]]\nkept: 4\n", "kept"),
        ("a: [\n", "is no pattern library"),
    ],
)
def test_a_file_of_another_form_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=rf"(?s)mine\.yaml is no pattern library.*{message}|mine\.yaml {message}"):
        library(str(path))


def test_unknown_names_list_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no pattern library 'std9'; there are all126, all56, corner4, .*std8, tee4, or give the path"):
        Patterns("std9")
    with pytest.raises(ValueError, match=r"there is no pattern library .*none\.yaml"):
        PatternKernels(2, str(tmp_path / "none.yaml"))


@pytest.mark.parametrize("shape", [(4, 3), (2, 2, 1, 1), (2, 2, 5, 5), (2, 2, 3), (2, 2, 3, 3, 3)], ids=str)
def test_other_kernels_are_refused(shape: tuple[int, ...]) -> None:
    for made in (Patterns("std8"), PatternKernels(2)):
        with pytest.raises(
            ValueError, match=r"pattern library 'std8' is for 3x3 kernels, not for a weight of shape .*constraint\.skip.*conv3x3"
        ):
            made.project({A: torch.zeros(shape)})


def test_a_checkpoint_of_another_library_is_refused() -> None:
    with pytest.raises(ValueError, match=r"the checkpoint holds (library|patterns) '.*', this run asks for '.*'; start anew"):
        Patterns("tee4").load_state_dict(Patterns("std8").state_dict())
