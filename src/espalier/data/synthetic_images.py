"""Images that nobody took: random pixels, for a step that must not see the data.

Source: privacy-pruning, P2. Every batch is new; all numbers come from PyTorch's global generator, which a step reseeds before each epoch.
"""

import copy
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from espalier.constraints.selection import BATCH_NORMS
from espalier.data.form import ImageFormat


class SyntheticImages(Protocol):
    """Where a designer's batches come from."""

    def draw(self, count: int, form: ImageFormat, network: nn.Module) -> Tensor:
        """Return ``count`` new images, scaled for the network, ``(N, C, H, W)``; ``network`` is the trained one, in evaluation mode."""
        ...


class UniformImages:
    """Every pixel uniform on 0, 1, ..., 255 and independent of the others: the paper's own (from memory)."""

    def draw(self, count: int, form: ImageFormat, network: nn.Module) -> Tensor:
        del network
        return form.scaled(torch.randint(0, 256, (count, *form.shape)).float() / 255)


class GaussianImages:
    """Every pixel normal with the mean and deviation of its channel, cut off at black and white."""

    def draw(self, count: int, form: ImageFormat, network: nn.Module) -> Tensor:
        del network
        return form.scaled(form.spread(torch.randn(count, *form.shape)))


class SmoothedImages:
    """Uniform noise at several scales, coarse ones stronger (about 1/f), with the mean and deviation of each channel.

    Args:
        octaves: Scales; each halves the resolution and doubles the strength.

    Raises:
        ValueError: There is no scale.
    """

    def __init__(self, octaves: int) -> None:
        if octaves < 1:
            raise ValueError(f"images.octaves={octaves}; smoothed noise has at least one scale.")
        self.octaves = octaves

    def draw(self, count: int, form: ImageFormat, network: nn.Module) -> Tensor:
        del network
        channels, height, width = form.shape
        total = torch.zeros(count, *form.shape)
        for octave in range(self.octaves):
            size = (max(1, height >> octave), max(1, width >> octave))
            noise = torch.rand(count, channels, *size) - 0.5
            total += 2**octave * F.interpolate(noise, size=(height, width), mode="bilinear", align_corners=False)
        total -= total.mean(dim=(0, 2, 3), keepdim=True)
        return form.scaled(form.spread(total / total.std(dim=(0, 2, 3), keepdim=True)))


class BatchNormImages:
    """Gaussian images moved by gradient until the inputs of the network's batch norms have the statistics stored there.

    Minimises the sum over the layers of ``||mean - running mean||^2 + ||var - running var||^2``, each over its number of channels.

    Args:
        steps: Steps of Adam on the pixels of a batch.
        lr: Their learning rate, in units of the scaled input.

    Raises:
        ValueError: A step count or rate that moves nothing.
    """

    def __init__(self, steps: int, lr: float) -> None:
        if steps < 1 or lr <= 0:
            raise ValueError(f"images.steps={steps} and images.lr={lr} move no pixel; give at least 1 and above 0.")
        self.steps, self.lr = steps, lr

    def draw(self, count: int, form: ImageFormat, network: nn.Module) -> Tensor:
        """Return the moved images.

        Raises:
            ValueError: The network has no batch norm that keeps statistics.
        """
        device = next(network.parameters()).device
        start = GaussianImages().draw(count, form, network).to(device)
        watched = copy.deepcopy(network).eval().requires_grad_(False)
        layers = [module for module in watched.modules() if isinstance(module, BATCH_NORMS) and module.running_mean is not None]
        if not layers:
            raise ValueError("bn_matched images need batch norms with running statistics; this network has none, take uniform images.")
        gaps: list[Tensor] = []

        def note(layer: Any, inputs: tuple[Tensor, ...]) -> None:
            axes = [axis for axis in range(inputs[0].ndim) if axis != 1]
            var, mean = torch.var_mean(inputs[0], dim=axes)
            gaps.append((mean - layer.running_mean).square().mean() + (var - layer.running_var).square().mean())

        for layer in layers:
            layer.register_forward_pre_hook(note)
        with torch.enable_grad():
            images = start.detach().requires_grad_()
            optimizer = torch.optim.Adam([images], lr=self.lr)
            for _ in range(self.steps):
                gaps.clear()
                optimizer.zero_grad()
                watched(images)
                torch.stack(gaps).sum().backward()  # type: ignore[no-untyped-call]
                optimizer.step()
        return images.detach()
