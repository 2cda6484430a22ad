"""Synthetic images: their distributions, by their definitions."""

import pytest
import torch
from torch import nn

from espalier.data import BatchNormImages, GaussianImages, ImageFormat, SmoothedImages, SyntheticImages, UniformImages

FORM = ImageFormat((3, 16, 16), mean=(0.5, 0.4, 0.3), std=(0.1, 0.1, 0.05), channels_last=True)
MEAN, STD = torch.tensor(FORM.mean).view(-1, 1, 1), torch.tensor(FORM.std).view(-1, 1, 1)


def network() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)).eval()


def pixels(images: SyntheticImages, count: int = 64) -> torch.Tensor:
    torch.manual_seed(0)
    return images.draw(count, FORM, network()) * STD + MEAN


def test_uniform_pixels_are_the_256_levels_equally_often() -> None:
    levels = pixels(UniformImages()) * 255
    torch.testing.assert_close(levels, levels.round(), atol=1e-3, rtol=0)
    counts = torch.bincount(levels.round().long().flatten(), minlength=256)
    assert len(counts) == 256
    expected = levels.numel() / 256
    assert (counts.float() - expected).abs().max() < 6 * expected**0.5


@pytest.mark.parametrize("images", [GaussianImages(), SmoothedImages(4)], ids=["gaussian", "smoothed"])
def test_channels_have_the_mean_and_deviation_of_the_format(images: SyntheticImages) -> None:
    drawn = pixels(images)
    assert 0 <= drawn.min() <= drawn.max() <= 1 + 1e-6
    torch.testing.assert_close(drawn.mean(dim=(0, 2, 3)), torch.tensor(FORM.mean), atol=0.01, rtol=0)
    torch.testing.assert_close(drawn.std(dim=(0, 2, 3)), torch.tensor(FORM.std), atol=0.01, rtol=0)


def test_smoothed_neighbours_are_alike_and_others_are_not() -> None:
    def correlation(drawn: torch.Tensor) -> float:
        centred = (drawn - drawn.mean(dim=(0, 2, 3), keepdim=True)) / drawn.std(dim=(0, 2, 3), keepdim=True)
        return float((centred[..., 1:] * centred[..., :-1]).mean())

    assert correlation(pixels(SmoothedImages(4))) > 0.7
    assert abs(correlation(pixels(UniformImages()))) < 0.02


def test_batch_norm_images_come_nearer_to_the_statistics_the_longer_they_move() -> None:
    def gap(images: torch.Tensor) -> float:
        model, total = network(), 0.0
        for layer in model:
            if isinstance(layer, nn.BatchNorm2d):
                var, mean = torch.var_mean(images, dim=(0, 2, 3))
                total += float((mean - layer.running_mean).square().mean() + (var - layer.running_var).square().mean())
            images = layer(images)
        return total

    gaps = []
    with torch.no_grad():
        for steps in (1, 40):
            torch.manual_seed(0)
            gaps.append(gap(BatchNormImages(steps, 0.1).draw(16, FORM, network())))
    assert gaps[1] < 0.8 * gaps[0]


@pytest.mark.parametrize("images", [UniformImages(), GaussianImages(), SmoothedImages(2), BatchNormImages(1, 0.1)])
def test_batches_are_new_but_repeat_with_the_seed(images: SyntheticImages) -> None:
    torch.manual_seed(1)
    first, second = (images.draw(4, FORM, network_of_one()) for _ in range(2))
    torch.manual_seed(1)
    assert torch.equal(images.draw(4, FORM, network_of_one()), first)
    assert not torch.equal(first, second)
    assert first.shape == (4, 3, 16, 16)
    assert first.is_contiguous(memory_format=torch.channels_last)


def network_of_one() -> nn.Module:
    with torch.random.fork_rng():
        return network()


def test_settings_that_draw_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="octaves=0; smoothed noise has at least one scale"):
        SmoothedImages(0)
    for steps, lr in ((0, 0.1), (1, 0.0)):
        with pytest.raises(ValueError, match="move no pixel"):
            BatchNormImages(steps, lr)
    with pytest.raises(ValueError, match="need batch norms with running statistics"):
        BatchNormImages(1, 0.1).draw(1, FORM, nn.Conv2d(3, 1, 1))
