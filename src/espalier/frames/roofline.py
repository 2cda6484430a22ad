"""Where a layer lies under the roofline: what bounds it, and the least time it can take (Williams, Waterman and Patterson, 2009).

One MAC is two FLOP here: peaks of CPUs are quoted in FLOP. Bytes are those of weights, inputs and outputs, each moved once, in fp32.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from espalier.workload import workload

FLOP_A_MAC = 2
BYTES = 4  # of an fp32 number


@dataclass(frozen=True)
class Roof:
    """What this machine was measured to reach with some number of threads.

    Args:
        peak_gflops: Multiply-adds from registers, two FLOP each.
        bandwidth_gb_s: Reading what no cache holds.

    Raises:
        ValueError: One of them is not above 0.
    """

    peak_gflops: float
    bandwidth_gb_s: float

    def __post_init__(self) -> None:
        if not (self.peak_gflops > 0 and self.bandwidth_gb_s > 0):
            raise ValueError(f"{self} bounds nothing; both are measured and above 0.")

    @property
    def ridge(self) -> float:
        """Return the FLOP a byte from which on arithmetic is the bound."""
        return self.peak_gflops / self.bandwidth_gb_s


@dataclass(frozen=True)
class Placement:
    """A layer under the roof.

    Args:
        macs: Multiply-adds that are done, those with a zero weight left out.
        num_bytes: Bytes moved.
        flop_a_byte: Its arithmetic intensity.
        gflops: The most it can reach.
        least_ms: The time that this takes.
        bound: What holds it there.
    """

    macs: int
    num_bytes: int
    flop_a_byte: float
    gflops: float
    least_ms: float
    bound: Literal["compute", "memory"]


def place(macs: int, num_bytes: int, roof: Roof) -> Placement:
    """Return where a layer of so many multiply-adds and bytes lies.

    Raises:
        ValueError: A count is not above 0.
    """
    if macs < 1 or num_bytes < 1:
        raise ValueError(f"macs={macs}, num_bytes={num_bytes}: a layer without work has no place under a roof; leave it out.")
    intensity = FLOP_A_MAC * macs / num_bytes
    gflops = min(roof.peak_gflops, intensity * roof.bandwidth_gb_s)
    bound: Literal["compute", "memory"] = "compute" if intensity >= roof.ridge else "memory"
    return Placement(macs, num_bytes, intensity, gflops, FLOP_A_MAC * macs / gflops / 1e6, bound)


def placed(model: nn.Module, example: Tensor, roof: Roof) -> dict[str, Placement]:
    """Return layer -> where it lies, for the layers of a network that hold weights and have work left; raises as ``workload`` does."""
    moved = _bytes_moved(model, example)
    found: dict[str, Placement] = {}
    for operator in workload(model, example).operators:
        layer = (operator.weight_name or "").rpartition(".")[0]
        if operator.macs_effective > 0 and layer in moved:
            found[layer] = place(operator.macs_effective, moved[layer], roof)
    return found


def _bytes_moved(model: nn.Module, example: Tensor) -> Mapping[str, int]:
    """Return layer -> bytes of its weights that are not zero, its biases, its inputs and outputs, of one forward pass."""
    moved: dict[str, int] = {}

    def hook(name: str) -> object:
        def count(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            numbers = sum(int(parameter.count_nonzero()) for parameter in layer.parameters(recurse=False))
            moved[name] = BYTES * (numbers + sum(tensor.numel() for tensor in inputs) + output.numel())

        return count

    layers = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d)}
    handles = [module.register_forward_hook(hook(name)) for name, module in layers.items()]  # type: ignore[arg-type]
    try:
        with torch.inference_mode():
            model(example)
    finally:
        for handle in handles:
            handle.remove()
    return moved
