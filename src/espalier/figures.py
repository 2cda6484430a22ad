"""The figures of a finished row: test accuracy, counts, and the bytes of its packed checkpoint.

This module and what it imports count to every record's code digest (``espalier.code``).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from espalier.data import ImageData
from espalier.packing import PackReport, pack
from espalier.steps import State
from espalier.tasks import accuracy
from espalier.workload import workload


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
    }
    return metrics, packed
