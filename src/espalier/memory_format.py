"""Channels-last where it is fast, not where oneDNN (PyTorch's engine on CPUs) gets it wrong."""

import torch
from torch import Tensor, nn

VECTOR = 16  # channels in one AVX-512 register; AVX2's holds 8


def channels_last(model: nn.Module) -> nn.Module:
    """Return the model in channels-last format, or in contiguous format where a layer's gradients would be wrong.

    That is a strided 1x1 convolution of fewer input channels than a vector: its weight gradient in channels-last writes past a workspace of
    oneDNN, which ends in wrong gradients, a hang or a crash. Seen with torch 2.15 (oneDNN 3.13.3) on a CPU without AVX-512; source: oneDNN
    issue 6035. Such a model turns its batches contiguous as well wherever gradients are taken.
    """
    if not any(isinstance(module, nn.Conv2d) and _is_misread(module) for module in model.modules()):
        return model.to(memory_format=torch.channels_last)
    model.register_forward_pre_hook(_contiguous)
    return model


def _is_misread(conv: nn.Conv2d) -> bool:
    return conv.kernel_size == (1, 1) and conv.stride != (1, 1) and 1 < conv.in_channels < VECTOR


def _contiguous(model: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    del model
    return tuple(each.contiguous() for each in inputs) if torch.is_grad_enabled() else inputs
