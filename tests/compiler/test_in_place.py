"""Sums that are written over one of their terms: where nobody else reads it, and no pixel is computed twice."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from random_networks import relative_error
from torch import Tensor, nn

from espalier.compiler import CompiledNetwork, compile_model
from espalier.compiler.emission import emitted
from espalier.compiler.lowering.filters_rule import Choice
from espalier.compiler.lowering.templates import Way, lowered_by
from espalier.compiler.lowering.tiles import Tile
from espalier.compiler.program import Program, site_of, with_kernels
from espalier.compiler.runtime.building import build
from espalier.compiler.runtime.loading import CompiledModel
from espalier.devices import num_cores

Terms = Callable[[nn.ModuleList, Tensor], Tensor]


class Summing(nn.Module):
    """Layers, and what is made of them."""

    def __init__(self, layers: list[nn.Module], terms: Terms) -> None:
        super().__init__()
        self.layers, self.terms = nn.ModuleList(layers), terms

    def forward(self, x: Tensor) -> Tensor:
        return self.terms(self.layers, x)


def points() -> list[nn.Module]:
    torch.manual_seed(0)
    return [nn.Conv2d(48, 48, 1) for _ in range(4)]


def taken(program: Program) -> list[str]:
    """Return whose place sums took."""
    return [step.node.source for step in program.steps if step.node.name in program.aliases]


def compiled(terms: Terms, x: Tensor, folder: Path, layers: list[nn.Module] | None = None) -> tuple[CompiledNetwork, Tensor]:
    model = Summing(points() if layers is None else layers, terms).eval()
    with torch.inference_mode():
        wanted = model(x)
    return compile_model(model, x, num_threads=min(2, num_cores()), cache=folder), wanted


MAP = torch.randn(1, 48, 14, 14, generator=torch.Generator().manual_seed(1))


def test_a_sum_takes_the_place_of_the_term_that_nobody_reads_again(tmp_path: Path) -> None:
    found, wanted = compiled(lambda f, x: f[3]((f[1](f[0](x)) + f[2](x)).relu()), MAP, tmp_path)
    with found:
        assert taken(found.program) == ["layers.2"]
        sums = next(step for step in found.program.steps if step.node.source == "layers.2")
        assert found.program.place(sums.node.name) == found.program.place(sums.node.inputs[-1])
        for _ in range(3):
            assert relative_error(found(MAP), wanted) < 1e-5


@pytest.mark.parametrize(
    ("terms", "wanted"),
    [
        (lambda f, x: f[3]((y := f[1](f[0](x))) + f[2](x)) + y, ["layers.3"]),  # read again: the first sum has a place of its own
        (lambda f, x: f[1](y := f[0](x).relu()) + y, []),  # its own input
        (lambda f, x: ((y := f[1](f[0](x))) + f[2](x), y), []),  # an output
        (lambda f, x: f[4](f[1](f[0](x)) + f[2](x)), []),  # of another border
    ],
    ids=["read again", "own input", "output", "border"],
)
def test_terms_that_others_read_keep_their_place(terms: Terms, wanted: list[str], tmp_path: Path) -> None:
    layers = [*points(), nn.Conv2d(48, 16, 3, padding=1)]
    found, right = compiled(terms, MAP, tmp_path, layers)
    with found:
        assert any(step.node.attributes.get("residual") for step in found.program.steps)
        assert taken(found.program) == wanted
        got = found(MAP)
        for one, other in zip(*(value if isinstance(value, tuple) else (value,) for value in (got, right)), strict=True):
            assert relative_error(one, other) < 1e-5


def test_tiles_that_overlap_take_no_place(tmp_path: Path) -> None:
    x = torch.randn(1, 48, 31, 31, generator=torch.Generator().manual_seed(2))  # no tile divides it
    found, wanted = compiled(lambda f, x: f[1](f[0](x)) + f[2](x), x, tmp_path)
    with found:
        (kernel,) = [step.kernel for step in found.program.steps if step.node.attributes.get("residual")]
        assert isinstance(kernel.choice, Choice)
        assert kernel.choice.tile.slots((1, 31, 31)) > 31 * 31
        assert taken(found.program) == []
        assert relative_error(found(x), wanted) < 1e-5


def test_a_kernel_that_is_chosen_later_gives_the_place_back(tmp_path: Path) -> None:
    found, wanted = compiled(lambda f, x: f[1](f[0](x)) + f[2](x), MAP, tmp_path)
    with found:
        (number,) = [number for number, step in enumerate(found.program.steps) if step.node.attributes.get("residual")]
        step = found.program.steps[number]
        assert taken(found.program) == ["layers.2"]
        assert isinstance(step.kernel.choice, Choice)
        overlapping = replace(step.kernel.choice, tile=Tile(4, 1))  # 14 rows are no multiple of 4
        kernel = lowered_by(site_of(found.program, number), Way("F", {**vars(overlapping), "tile": vars(overlapping.tile)}))
        made = with_kernels(found.program, {step.node.name: kernel})
    assert taken(made) == []
    parts = emitted(made)
    with CompiledModel(build(parts.files, made.isa.name, cache=tmp_path), parts.blob, num_threads=1) as model:
        assert relative_error(model(MAP), wanted) < 1e-5


def test_rows_of_linear_layers_are_summed_in_place(tmp_path: Path) -> None:
    torch.manual_seed(0)
    layers: list[nn.Module] = [nn.Linear(24, 40), nn.Linear(40, 24), nn.Linear(24, 24)]
    x = torch.randn(1, 6, 24)
    found, wanted = compiled(lambda f, x: f[1](f[0](x).relu()) + f[2](x), x, tmp_path, layers)
    with found:
        assert taken(found.program) == ["layers.2"]
        assert relative_error(found(x), wanted) < 1e-5


@pytest.mark.parametrize(
    ("terms", "wanted"),
    [
        (lambda f, x: f[3]((s := f[1](f[0](x)) + f[2](x)).relu()) + s, ["layers.3"]),  # of a sum that is read twice, the last time
        (lambda f, x: f[2](f[1](s := f[0](x).relu()) + s) + f[3](x), ["layers.3"]),
        (lambda f, x: nn.functional.silu(f[1](f[0](x)) + f[2](x)), ["layers.2"]),  # an activation that registers don't take
        (lambda f, x: (y := f[1](f[0](x)) + f[2](x)).flatten(1) * y.flatten(1), ["layers.2"]),
    ],
    ids=["read twice", "own input", "silu", "views behind"],
)
@pytest.mark.parametrize("channels", [48, 40], ids=["whole lines", "filled line"])
def test_sums_in_place_are_pytorchs(terms: Terms, wanted: list[str], channels: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    layers: list[nn.Module] = [nn.Conv2d(channels, channels, 1) for _ in range(4)]
    x = torch.randn(1, channels, 14, 14)
    found, right = compiled(terms, x, tmp_path, layers)
    with found:
        assert set(wanted) <= set(taken(found.program))
        for _ in range(3):
            assert relative_error(found(x), right) < 1e-5


def test_volumes_are_summed_in_place(tmp_path: Path) -> None:
    torch.manual_seed(0)
    layers: list[nn.Module] = [nn.Conv3d(32, 32, 1), nn.Conv3d(32, 32, (3, 1, 1), padding=(1, 0, 0)), nn.Conv3d(32, 32, 1)]
    x = torch.randn(1, 32, 4, 14, 14)
    found, right = compiled(lambda f, x: f[1](f[0](x)) + f[2](x), x, tmp_path, layers)
    with found:
        assert taken(found.program)
        assert relative_error(found(x), right) < 1e-5
