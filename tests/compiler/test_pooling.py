"""Maxima over 2x2 windows go into the convolution before them."""

import pytest
import torch
from checking import check_same, ops
from torch import Tensor, nn

from espalier.compiler.compiling import compile_model
from espalier.compiler.front import read_model
from espalier.compiler.graph import Graph
from espalier.compiler.passes import optimised
from espalier.compiler.passes.pooling import fuse_pools


def fused(model: nn.Module, *shape: int) -> tuple[Graph, Graph]:
    torch.manual_seed(0)
    graph = read_model(model.eval(), torch.zeros(shape))
    after = fuse_pools(graph)
    check_same(graph, after)
    return graph, after


@pytest.mark.parametrize("size", [6, 7], ids=["even", "odd: the last row and column are left out"])
def test_a_pool_goes_into_the_convolution_before_it(size: int) -> None:
    _, after = fused(nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.MaxPool2d(2)), 1, 3, size, size)
    assert ops(after) == ["conv"]
    assert after.nodes[-1]["pool"]
    assert after.nodes[-1].shape == (1, 5, 3, 3)


def test_a_pool_of_planes_goes_into_a_convolution_over_space_and_time() -> None:
    _, after = fused(nn.Sequential(nn.Conv3d(2, 3, 3, padding=1), nn.MaxPool3d((1, 2, 2))), 1, 2, 3, 4, 4)
    assert ops(after) == ["conv"]


STAYS = {
    "windows overlap": nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.MaxPool2d(2, 1)),
    "windows of three": nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.MaxPool2d(3)),
    "windows reach outside": nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.MaxPool2d(2, padding=1)),
    "dilated": nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.MaxPool2d(2, dilation=2)),
    "a last window is cut": nn.Sequential(nn.Conv2d(4, 4, 2), nn.MaxPool2d(2, ceil_mode=True)),
    "depthwise": nn.Sequential(nn.Conv2d(4, 4, 3, padding=1, groups=4), nn.MaxPool2d(2)),
    "windows over time": nn.Sequential(nn.Conv3d(4, 4, 3, padding=1), nn.MaxPool3d(2)),
    "a dense layer that template W suits": nn.Sequential(nn.Conv2d(32, 32, 3, padding=1), nn.MaxPool2d(2)),
    "no plane": nn.Sequential(nn.Conv1d(4, 4, 3, padding=1), nn.MaxPool1d(2)),
}


@pytest.mark.parametrize("model", STAYS.values(), ids=STAYS.keys())
def test_other_pools_stay(model: nn.Module) -> None:
    rank = {nn.Conv1d: 1, nn.Conv2d: 2, nn.Conv3d: 3}[type(model[0])]  # type: ignore[index]
    graph, after = fused(model, 1, model[0].in_channels, *(6,) * rank)  # type: ignore[index]
    assert ops(after) == ops(graph) == ["conv", "max_pool"]


class ReadTwice(nn.Module):
    """The convolution's result is read beside the pool as well."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.conv(x)
        return torch.max_pool2d(y, 2), y


def test_a_pool_stays_where_the_unpooled_map_is_read_too() -> None:
    _, after = fused(ReadTwice(), 1, 4, 6, 6)
    assert ops(after) == ["conv", "max_pool"]


def test_an_activation_that_falls_keeps_the_pool_behind_it() -> None:
    graph = read_model(nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.SiLU(), nn.MaxPool2d(2)).eval(), torch.zeros(1, 4, 6, 6))
    assert ops(optimised(graph)) == ["conv", "max_pool"]


@pytest.mark.parametrize("isa", ["avx512", "avx2", "generic"])
@pytest.mark.parametrize("size", [(4, 4), (7, 9), (12, 30)], ids=str)
@pytest.mark.parametrize("activation", [nn.Identity(), nn.ReLU(), nn.ReLU6()], ids=["none", "relu", "relu6"])
def test_compiled_convolutions_pool(activation: nn.Module, size: tuple[int, int], isa: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 40, 3, padding=1), activation, nn.MaxPool2d(2), nn.Conv2d(40, 24, 1), activation, nn.MaxPool2d(2))
    x = 4 * torch.randn(1, 3, *size)
    try:
        compiled = compile_model(model.eval(), x, isa=isa, num_threads=2)
    except ValueError as error:
        if "this CPU" not in str(error):
            raise
        pytest.skip(f"{isa} does not run here")
    with compiled, torch.no_grad():
        assert sum("pool=2x2" in line.detail for line in compiled.explain()) == 2
        wanted = model(x)
        assert (compiled(x) - wanted).abs().max() < 1e-5 * wanted.abs().max()
