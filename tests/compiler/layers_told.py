"""Layers for tests of what holds kernels back: where each stands, its kernel by the rule or by given knobs, and what is told of it."""

from dataclasses import asdict

import torch
from torch import nn

from espalier.compiler.compiling import lowered_model
from espalier.compiler.isas import ISAS
from espalier.compiler.lowering.kernel import Kernel
from espalier.compiler.lowering.site import Site
from espalier.compiler.lowering.templates import Way, lowered_by
from espalier.compiler.program import site_of
from espalier.compiler.reasons import Machine, reasons
from espalier.compiler.runtime.probing import Ceilings

AVX512 = ISAS["avx512"]  # the rules are data: no AVX-512 is needed to read them
CEILINGS = Ceilings("avx512", 2, 200.0, 400.0, 350.0, 58.0, 32.0, 300.0)
MACHINE = Machine(num_threads=2, l2_bytes=2 << 20, network_bytes=1 << 20)


def layer(model: nn.Module, *shape: int, ops: tuple[str, ...] = ("conv", "linear")) -> tuple[Site, Kernel]:
    """Return the first layer of these operators, where it stands and its kernel by the rule."""
    made = lowered_model(model.eval(), torch.randn(1, *shape), isa=AVX512)
    number = next(number for number, step in enumerate(made.steps) if step.node.op in ops)
    return site_of(made, number), made.steps[number].kernel


def with_knobs(found: tuple[Site, Kernel], **knobs: object) -> tuple[Site, Kernel]:
    site, kernel = found
    return site, lowered_by(site, Way(kernel.template, {**asdict(kernel.choice), **knobs}))  # type: ignore[call-overload]


def told(found: tuple[Site, Kernel], machine: Machine = MACHINE) -> str:
    return "; ".join(reason.text for reason in reasons(*found, machine))


def conv(channels: int, filters: int, kernel: int = 3, **more: int) -> nn.Conv2d:
    return nn.Conv2d(channels, filters, kernel, padding=kernel // 2, **more)


def masked(layer: nn.Conv2d, block: tuple[int, int], share: float) -> nn.Conv2d:
    """Return the layer with that share of its blocks of filters x channels kept at each position, at least the first of each block row."""
    filters, channels = block
    rows, columns = layer.weight.shape[0] // filters, layer.weight.shape[1] // channels
    kept = torch.rand(rows, columns, *layer.weight.shape[2:], generator=torch.Generator().manual_seed(0)) < share
    kept[:, 0, 0, 0] = True
    layer.weight.data *= kept.repeat_interleave(filters, 0).repeat_interleave(channels, 1)
    return layer
