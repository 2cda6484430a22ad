"""The check that rows and columns pay off in time: convolutions as matrix products, cut to smaller dense matrices and as irregular CSR."""

import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from espalier.constraints.selection import CONVS
from espalier.constraints.sparse import kept_of
from espalier.frames.cpu import machine_lock
from espalier.steps.context import Context
from espalier.steps.measuring import measures
from espalier.steps.state import State
from espalier.steps.training import restored


@dataclass(frozen=True)
class Product:
    """A convolution's product of one image: ``(rows, columns) x (columns, positions)``."""

    rows: int
    columns: int
    positions: int

    def cut(self, rate: float) -> "Product":
        """Return the product with rows and columns each thinned by the root of ``rate``."""
        return replace(self, rows=kept_of(self.rows, rate**0.5), columns=kept_of(self.columns, rate**0.5))

    @property
    def macs(self) -> int:
        return self.rows * self.columns * self.positions


@measures
def product_latency(state: State, context: Context, *, rates: Sequence[float], num_warmup: int, num_runs: int) -> State:
    """Time one image's convolutions as matrix products, cut to random rows and columns at several rates (ss-auto, What must hold 7).

    Recorded: R^2 of a line through latency over multiply-adds, and the smallest ratio of CSR to dense time at equal multiply-adds, rates
    above 1. The products alone are timed, not the copies that lay an image out for them; weights are random, supports seeded, one thread.

    Args:
        state: A network.
        context: The step's surroundings.
        rates: Multiply-adds of the whole / of the cut products.
        num_warmup: Passes before the clock runs.
        num_runs: Passes whose median counts.

    Raises:
        ValueError: There are fewer than three rates, or the network has no convolution.
    """
    if len(set(rates)) < 3:
        raise ValueError(f"rates={list(rates)}: a line through fewer than three points says nothing; give three rates or more.")
    products = products_of(restored(state, context), torch.zeros(1, *context.data.input_shape))
    generator = torch.Generator().manual_seed(context.seed)
    macs, dense_ms, ratios = [], [], []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with machine_lock(), torch.inference_mode():
        for rate in rates:
            cuts = [product.cut(rate) for product in products]
            macs.append(float(sum(cut.macs for cut in cuts)))
            dense_ms.append(median_ms([_structured(cut, generator) for cut in cuts], num_warmup, num_runs))
            if rate > 1:
                pairs = [_irregular(product, cut, generator) for product, cut in zip(products, cuts, strict=True)]
                ratios.append(median_ms(pairs, num_warmup, num_runs) / dense_ms[-1])
    torch.set_num_threads(threads)
    r2 = statistics.correlation(macs, dense_ms) ** 2
    return replace(state, metrics={**state.metrics, "check/latency_macs_r2": r2, "check/structured_over_csr": min(ratios)})


def products_of(model: nn.Module, example: Tensor) -> list[Product]:
    """Return the product of every ungrouped convolution of one pass."""
    found: list[Product] = []

    def note(module: nn.Module, _: object, output: Tensor) -> None:
        assert isinstance(module, CONVS)
        rows, columns = module.weight.flatten(1).shape
        found.append(Product(rows, columns, output[0, 0].numel()))

    hooks = [module.register_forward_hook(note) for module in model.modules() if isinstance(module, CONVS) and module.groups == 1]
    with torch.no_grad():
        model.eval()(example)
    for hook in hooks:
        hook.remove()
    if not found:
        raise ValueError("the network has no convolution whose product could be timed; take one that has.")
    return found


def _structured(cut: Product, generator: torch.Generator) -> Callable[[], Tensor]:
    left = torch.randn(cut.rows, cut.columns, generator=generator)
    right = torch.randn(cut.columns, cut.positions, generator=generator)
    return lambda: left @ right


def _irregular(product: Product, cut: Product, generator: torch.Generator) -> Callable[[], Tensor]:
    """Return the whole product with as many weights as ``cut`` at random places, in CSR."""
    weight = torch.zeros(product.rows * product.columns)
    places = torch.randperm(len(weight), generator=generator)[: cut.rows * cut.columns]
    weight[places] = torch.randn(len(places), generator=generator)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*Sparse CSR tensor support is in beta state.*")
        left = weight.view(product.rows, product.columns).to_sparse_csr()
    right = torch.randn(product.columns, product.positions, generator=generator)
    return lambda: left @ right


def median_ms(products: Sequence[Callable[[], Tensor]], num_warmup: int, num_runs: int) -> float:
    """Return the median time of all products one after another."""
    times_ms = []
    for run in range(num_warmup + num_runs):
        start = time.perf_counter_ns()
        for product in products:
            product()
        if run >= num_warmup:
            times_ms.append((time.perf_counter_ns() - start) / 1e6)
    return statistics.median(times_ms)
