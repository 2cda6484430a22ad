"""A network as an ONNX file, which three of the engines read."""

import shutil
import tempfile
import weakref
from pathlib import Path

import torch
from torch import Tensor, nn

_FILES: weakref.WeakKeyDictionary[nn.Module, Path] = weakref.WeakKeyDictionary()
INPUT, OUTPUT = "input", "output"


def onnx_file(model: nn.Module, example: Tensor) -> Path:
    """Return the ONNX file of a network for the shape of ``example``, exported when first asked for; it goes when the network goes.

    Args:
        model: The network in evaluation mode, which is not changed between two calls.
        example: What it takes, of the same shape in every call.
    """
    if model not in _FILES:
        folder = Path(tempfile.mkdtemp(prefix="espalier-onnx-"))
        weakref.finalize(model, shutil.rmtree, folder, ignore_errors=True)
        program = torch.onnx.export(
            model, (example,), dynamo=True, input_names=[INPUT], output_names=[OUTPUT], external_data=False, verbose=False
        )
        assert program is not None
        program.save(folder / "model.onnx")
        _FILES[model] = folder / "model.onnx"
    return _FILES[model]
