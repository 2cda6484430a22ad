"""The figures of a finished row: test accuracy, counts, and the bytes of its packed checkpoint.

This module and what it imports count to every record's code digest (``espalier.code``).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from espalier.data import ImageData
from espalier.packing import PackReport, pack
from espalier.steps import State
from espalier.tasks import accuracy
from espalier.workload import Workload, workload


def final_figures(
    state: State, model: nn.Module, *, data: ImageData, path: Path, meta: Mapping[str, Any]
) -> tuple[dict[str, float | None], PackReport]:
    """Return a record's metrics and the bytes of the checkpoint, packed to ``path``.

    Args:
        state: What the last step gave.
        model: The network with the state's weights; left in evaluation mode.
        data: The data set.
        path: File of the packed checkpoint, replaced whole.
        meta: Facts that travel in its header.
    """
    model.eval()
    counts = workload(model, torch.zeros(1, *data.input_shape))
    rewrites = {"rewrites": state.rewrites} if state.rewrites else {}  # the header counts as stored bytes
    packed = pack(path, state.weights, state.frozen, {**meta, "metrics": state.metrics, **rewrites})
    weights = sum(state.weights[name].numel() for name in counts.weight_names)
    dense = sum(tensor.numel() * tensor.element_size() for tensor in state.weights.values())
    metrics: dict[str, float | None] = {
        **state.metrics,
        "top1_pct": accuracy(model, data.test_loader()),
        "train/epochs": float(state.epochs),
        "weights": float(weights),
        "weights_nonzero": float(counts.weights_nonzero),
        "parameters": float(counts.parameters),
        "macs": float(counts.macs),
        "macs_effective": float(counts.macs_effective),
        "stored_bytes": float(packed.file_bytes),
        "dense_bytes": float(dense),
        "size_ratio": dense / packed.file_bytes,
        "rate": weights / max(counts.weights_nonzero, 1),
        **({} if _cut(state) else convolution_figures(state.weights, counts)),
        **layer_figures(state),
    }
    return metrics, packed


def _cut(state: State) -> bool:
    """Return whether layers were made smaller: what they keep is no share of the network that was pruned."""
    return any(rewrite["_target_"] == "espalier.rewrites.shrink" for rewrite in state.rewrites)


def convolution_figures(weights: Mapping[str, Tensor], counts: Workload) -> dict[str, float]:
    """Return the rate over the convolutions alone; nothing where there are none."""
    named = {operator.weight_name for operator in counts.operators if "conv" in operator.kind and operator.weight_name is not None}
    if not named:
        return {}
    kept = sum(int(weights[name].count_nonzero()) for name in named)
    return {"conv_rate": sum(weights[name].numel() for name in named) / max(kept, 1)}


def layer_figures(state: State) -> dict[str, float]:
    """Return each constrained layer's rate, their extremes, and the zeros over all of them; nothing where nothing is frozen."""
    if state.frozen is None:
        return {}
    names = dict.fromkeys(target.parameter for target in state.frozen.targets if state.weights[target.parameter].ndim > 1)  # no bias, no BN
    if not names:
        return {}
    sizes = {name: (state.weights[name].numel(), int(state.weights[name].count_nonzero())) for name in names}
    rates = {name: total / max(kept, 1) for name, (total, kept) in sizes.items()}
    total, kept = (sum(figures) for figures in zip(*sizes.values(), strict=True))
    return {
        **{f"layer/rate/{name}": rate for name, rate in rates.items()},
        "layer/rate_min": min(rates.values()),
        "layer/rate_max": max(rates.values()),
        "sparsity_pct": 100 * (1 - kept / total),
    }
