"""Batch-norm statistics taken anew after weights were changed by projection (progressive-admm, Unknowns: before hard-pruned accuracy).

This is no rewrite: the graph stays as it was, only buffers of the state dict get other values, so a checkpoint needs nothing replayed.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from espalier.constraints.selection import BATCH_NORMS


def batch_norms(model: nn.Module) -> dict[str, nn.Module]:
    """Return name -> layer of the batch-norm layers that keep running statistics."""
    return {name: module for name, module in model.named_modules() if isinstance(module, BATCH_NORMS) and module.running_mean is not None}


@torch.no_grad()
def recalibrated(model: nn.Module, loader: Iterable[tuple[Tensor, Tensor]], *, num_images: int) -> dict[str, Tensor]:
    """Return the running statistics that ``model``'s batch-norm layers have on the first images of ``loader``; the model is left as it was.

    The mean is that of all images, the variance the mean of the batches' unbiased variances, both weighted by the batches' sizes; each
    layer sees its input as the layers before it normalise it by the statistics of the batch, as in training. Everything but batch norm
    stays in evaluation mode, so nothing is drawn at random. A last batch of a single image is left out: it has no variance.

    Args:
        model: The network.
        loader: Batches of images and labels, always in the same order.
        num_images: Images to look at, at least 1; all of the loader's if it has fewer.

    Returns:
        Buffer name -> value, for ``model.load_state_dict(..., strict=False)``; empty for a network without batch norm.
    """
    layers = batch_norms(model)
    if not layers:
        return {}
    modes = {module: module.training for module in model.modules()}
    momenta = {layer: layer.momentum for layer in layers.values()}
    kept = _statistics(layers)
    device = next(model.parameters()).device
    try:
        model.eval()
        for layer in layers.values():
            layer.train()
        seen = 0
        for images, _ in loader:
            batch = images[: num_images - seen].to(device)
            if len(batch) < 2:
                break
            seen += len(batch)
            for layer in layers.values():
                layer.momentum = len(batch) / seen  # type: ignore[assignment]  # of the new batch; 1 for the first, which forgets what was
            model(batch)
        return {name: value.clone() for name, value in _statistics(layers).items()}
    finally:
        model.load_state_dict(kept, strict=False)
        for module, mode in modes.items():
            module.training = mode
        for layer, momentum in momenta.items():
            layer.momentum = momentum


def _statistics(layers: dict[str, nn.Module]) -> dict[str, Tensor]:
    return {
        f"{name}.{buffer}" if name else buffer: value.clone() for name, layer in layers.items() for buffer, value in layer.named_buffers()
    }
