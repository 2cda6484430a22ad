"""PyTorch as it is: the eager forward pass, in the memory format that is faster here."""

import copy
import time

import torch
from torch import Tensor, nn

from espalier.frames.cpu import threads
from espalier.frames.engines.engine import Precision, Run, installed
from espalier.frames.machine import machine_lock

CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}
NUM_TRIALS = 3  # passes of each memory format, after one that is not timed


class PyTorchEager:
    """Eager PyTorch under ``inference_mode``; contiguous or channels last, whichever took less time in a few passes by turns."""

    name = "pytorch-eager"
    precision: Precision = "fp32"

    def version(self) -> str | None:
        return installed("torch")

    def missing(self) -> str | None:
        return None

    def prepare(self, model: nn.Module, example: Tensor, *, num_threads: int) -> Run:
        choices = [_run(model, torch.contiguous_format)]
        if example.ndim in CHANNELS_LAST:
            choices.append(_run(_reordered(model, example.ndim), CHANNELS_LAST[example.ndim]))
        return _faster(choices, example, num_threads)


def _run(model: nn.Module, memory_format: torch.memory_format) -> Run:
    @torch.inference_mode()
    def run(x: Tensor) -> Tensor:
        output: Tensor = model(x.contiguous(memory_format=memory_format))
        return output

    return run


def _reordered(model: nn.Module, num_axes: int) -> nn.Module:
    """Return a copy whose weights of that many axes lie channels last."""
    moved = copy.deepcopy(model)
    for parameter in moved.parameters():
        if parameter.ndim == num_axes:
            parameter.data = parameter.data.contiguous(memory_format=CHANNELS_LAST[num_axes])
    return moved


def _faster(choices: list[Run], example: Tensor, num_threads: int) -> Run:
    if len(choices) == 1:
        return choices[0]
    best_s = [float("inf")] * len(choices)
    with machine_lock(), threads(num_threads):
        for trial in range(NUM_TRIALS + 1):
            for number, run in enumerate(choices):
                start = time.perf_counter()
                run(example)
                if trial > 0:
                    best_s[number] = min(best_s[number], time.perf_counter() - start)
    return choices[best_s.index(min(best_s))]
