"""Batch norms and scales by channel go into the layers beside them; masks stay."""

import pytest
import torch
from checking import check_same, ops
from random_networks import settle
from torch import Tensor, nn

from espalier.compiler.front import read_model
from espalier.compiler.passes.scaling import fold_scales


def settled(*layers: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(*layers).eval()
    settle(model)
    return model


@pytest.mark.parametrize(
    ("layers", "shape"),
    [
        ((nn.Conv1d(4, 6, 3, padding=1), nn.BatchNorm1d(6)), (1, 4, 9)),
        ((nn.Conv2d(4, 6, 3, padding=1, groups=2, bias=False), nn.BatchNorm2d(6)), (1, 4, 9, 9)),
        ((nn.Conv3d(4, 4, 3, groups=4), nn.BatchNorm3d(4, affine=False)), (1, 4, 5, 5, 5)),
        ((nn.Linear(4, 6), nn.BatchNorm1d(6)), (2, 4)),
        ((nn.BatchNorm2d(4), nn.Conv2d(4, 6, 3, groups=2, bias=False)), (1, 4, 9, 9)),
        ((nn.BatchNorm1d(4), nn.Linear(4, 6)), (2, 4)),
    ],
    ids=["conv1d", "grouped", "depthwise 3d", "linear", "before a grouped convolution", "before a linear layer"],
)
def test_a_batch_norm_beside_a_layer_goes_into_it(layers: tuple[nn.Module, ...], shape: tuple[int, ...]) -> None:
    graph = read_model(settled(*layers), torch.zeros(shape))
    after = fold_scales(graph)
    assert len(ops(after)) == 1
    check_same(graph, after)


def test_scales_and_biases_by_channel_go_too_and_keep_their_activation() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.gamma = nn.Conv2d(3, 4, 3), nn.Parameter(torch.rand(4, 1, 1))

        def forward(self, x: Tensor) -> Tensor:
            return (self.conv(x) * 0.5 * self.gamma + torch.arange(4.0).view(1, 4, 1, 1)).relu()

    graph = read_model(Scaled(), torch.zeros(1, 3, 5, 5))
    after = fold_scales(graph)
    assert ops(after) == ["conv", "unary"]
    check_same(graph, after)


def test_masks_and_their_labels_stay() -> None:
    model = settled(nn.Conv2d(8, 16, 3), nn.BatchNorm2d(16))
    with torch.no_grad():
        model[0].weight[:, ::2] = 0
    graph = read_model(model, torch.zeros(1, 8, 5, 5))
    after = fold_scales(graph)
    ((before_key, mask),) = graph.masks.items()
    ((key, kept),) = after.masks.items()
    assert torch.equal(mask, kept)
    assert (graph.structures[before_key], key in after.structures) == (after.structures[key], True)
    check_same(graph, after)


@pytest.mark.parametrize(
    "model",
    [
        nn.Sequential(nn.BatchNorm2d(4), nn.Conv2d(4, 6, 3, padding=1)),  # the border is zero behind the norm, not before it
        nn.Sequential(nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 6, 1)),
        nn.Sequential(nn.Conv2d(4, 6, 1), nn.ReLU(), nn.BatchNorm2d(6)),
    ],
    ids=["border", "activation behind", "activation before"],
)
def test_what_lies_between_keeps_a_batch_norm_apart(model: nn.Sequential) -> None:
    settle(model)
    graph = read_model(model, torch.zeros(1, 4, 5, 5))
    assert "affine" in ops(fold_scales(graph))


def test_a_layer_that_others_read_stays() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x)
            return y * self.norm(y)

    graph = read_model(Twice(), torch.zeros(1, 3, 5, 5))
    assert ops(fold_scales(graph)) == ops(graph)


def test_a_factor_passes_a_border_of_zeros() -> None:
    class Factor(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x * torch.arange(1.0, 4.0).view(3, 1, 1))

    graph = read_model(Factor(), torch.zeros(1, 3, 5, 5))
    after = fold_scales(graph)
    assert ops(after) == ["conv"]
    check_same(graph, after)
