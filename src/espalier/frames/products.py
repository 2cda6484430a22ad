"""Measured on this machine's CPU: the matrix product of a layer, dense, shrunk and sparse.  Suffixes: F = filters, K = inner, N = outputs.

Source: admm-nn-s, A4. The engine is Intel MKL on both sides, ``gemm`` and ``sparse_s_mm`` on compressed sparse rows, called through
PyTorch: the strongest sparse product that PyTorch has on a CPU. Its column numbers are absolute and need no decoding one by one, as
relative indices would, so that it errs in favour of non-structured pruning. It runs on one thread, and the time is that of the thread on
the CPU, so that neighbours on a shared machine, which interrupt the longest kernels most, don't count.
"""

import statistics
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from espalier.frames.cpu import threads
from espalier.frames.machine import machine_lock

BETA = "Sparse CSR tensor support is in beta state"


@dataclass(frozen=True)
class Timing:
    """Median times of one layer's product.

    Args:
        dense_ms: The dense product.
        structured: Rate asked -> (rate kept, milliseconds) of the dense product of fewer rows and columns.
        sparse: Rate asked -> (rate kept, milliseconds) of the sparse product.
    """

    dense_ms: float
    structured: Mapping[float, tuple[float, float]]
    sparse: Mapping[float, tuple[float, float]]


def time_products(
    shape: tuple[int, int, int], rates: Sequence[float], *, num_warmup: int, num_runs: int, generator: torch.Generator
) -> Timing:
    """Time ``W (F, K) @ X (K, N)`` in fp32 at several rates, all kernels by turns.

    Args:
        shape: F, K and N.
        rates: All / kept weights; the structured matrix keeps ``F / sqrt(rate)`` rows and ``K / sqrt(rate)`` columns.
        num_warmup: Rounds before the clock runs.
        num_runs: Rounds timed; medians are returned.
        generator: Draws the matrices and the places of the kept weights.

    Raises:
        ValueError: This PyTorch has no MKL, whose sparse product is the engine.
    """
    if not torch.backends.mkl.is_available():  # type: ignore[no-untyped-call]
        raise ValueError("this PyTorch is built without MKL, whose sparse product is the engine here; run these rows on an x86 CPU.")
    filters, inner, outputs = shape
    weight_FK, input_KN = torch.randn(filters, inner, generator=generator), torch.randn(inner, outputs, generator=generator)
    kernels: list[Callable[[], Tensor]] = [lambda: weight_FK @ input_KN]
    kept: list[float] = []
    for rate in rates:
        rows, columns = (max(1, round(size / rate**0.5)) for size in (filters, inner))
        small, part = weight_FK[:rows, :columns].contiguous(), input_KN[:columns].contiguous()
        kernels.append(lambda small=small, part=part: small @ part)  # type: ignore[misc]
        kept.append(filters * inner / (rows * columns))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=BETA)
        for rate in rates:
            mask = torch.zeros(filters * inner, dtype=torch.bool)
            mask[torch.randperm(filters * inner, generator=generator)[: max(1, round(filters * inner / rate))]] = True
            sparse = (weight_FK * mask.view_as(weight_FK)).to_sparse_csr()
            kernels.append(lambda sparse=sparse: sparse @ input_KN)  # type: ignore[misc]
            kept.append(filters * inner / int(mask.sum()))
    dense_ms, *times_ms = _medians(kernels, num_warmup=num_warmup, num_runs=num_runs)
    pairs = list(zip(kept, times_ms, strict=True))
    return Timing(dense_ms, dict(zip(rates, pairs[: len(rates)], strict=True)), dict(zip(rates, pairs[len(rates) :], strict=True)))


def _medians(kernels: Sequence[Callable[[], Tensor]], *, num_warmup: int, num_runs: int) -> list[float]:
    times: list[list[int]] = [[] for _ in kernels]
    with machine_lock(), threads(1), torch.inference_mode():
        for run in range(num_warmup + num_runs):
            for kernel, taken in zip(kernels, times, strict=True):
                start = time.thread_time_ns()
                kernel()
                if run >= num_warmup:
                    taken.append(time.thread_time_ns() - start)
    return [statistics.median(taken) / 1e6 for taken in times]
