"""Models train in channels-last format unless oneDNN would get their gradients wrong."""

import copy

import pytest
import torch
from torch import nn

from espalier.memory_format import channels_last


def _last(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("channels", [4, 7, 12, 16])  # AVX2 gets fewer than 8 wrong, AVX-512 fewer than 16
def test_gradients_are_those_of_the_definition(channels: int, training: bool) -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(3, channels, 3, padding=1), nn.Conv2d(channels, 8, 1, stride=2))
    model = channels_last(copy.deepcopy(plain)).train(training)
    images_N3HW = torch.randn(32, 3, 32, 32)
    exact = plain.double()
    exact(images_N3HW.double()).square().sum().backward()
    for _ in range(20):  # a single backward pass is right as often as not
        model.zero_grad()
        model(_last(images_N3HW)).square().sum().backward()
        for got, want in zip(model.parameters(), exact.parameters(), strict=True):
            assert got.grad is not None
            assert want.grad is not None
            torch.testing.assert_close(got.grad.double(), want.grad, rtol=1e-3, atol=1e-4 * want.grad.abs().max().item())


@pytest.mark.parametrize(
    ("conv", "kept"),
    [
        (nn.Conv2d(4, 8, 1, stride=2), False),
        (nn.Conv2d(4, 8, 1), True),
        (nn.Conv2d(4, 8, 3, stride=2), True),
        (nn.Conv2d(16, 8, 1, stride=2), True),
    ],
)
def test_only_a_narrow_strided_1x1_convolution_gives_the_format_up(conv: nn.Conv2d, kept: bool) -> None:
    model = channels_last(copy.deepcopy(conv))
    output = model(_last(torch.randn(2, conv.in_channels, 8, 8)))
    assert output.is_contiguous(memory_format=torch.channels_last) is kept


def test_without_gradients_the_input_keeps_its_format() -> None:
    model = channels_last(nn.Conv2d(4, 8, 1, stride=2)).eval()
    with torch.no_grad():
        assert model(_last(torch.randn(2, 4, 8, 8))).is_contiguous(memory_format=torch.channels_last)
