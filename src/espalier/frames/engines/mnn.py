"""MNN's CPU back end, from ONNX through its own converter."""

from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from espalier.frames.engines.engine import TOLERANCES, Precision, Run, Unable, installed, lacking, stdout_held
from espalier.frames.engines.onnx_file import INPUT, OUTPUT, onnx_file

CONVERTER = "_tools"  # what MNN.tools.mnnconvert calls; importing MNN.tools itself installs a telemetry client with pip and connects
WINOGRAD_HINT = 3  # Interpreter::WINOGRAD_MEMORY_LEVEL
WINOGRAD_LEVELS = (3, 2)  # MNN's own; smaller tiles, which lose two digits less


class Mnn:
    """fp32 throughout (precision high), high power and all the memory that it wants.

    The largest tiles of its Winograd convolutions lose so many digits that deep networks leave the tolerance (4e-4 in a ResNet-50 where the
    other engines err by 2e-6). They are taken where the output is right by half the tolerance, the next smaller ones elsewhere.
    """

    name = "mnn"
    precision: Precision = "fp32"

    def version(self) -> str | None:
        return installed("MNN")

    def missing(self) -> str | None:
        return lacking("MNN", "onnx", "onnxscript")

    def prepare(self, model: nn.Module, example: Tensor, *, num_threads: int) -> Run:
        path = _converted(onnx_file(model, example))
        with torch.inference_mode():
            wanted = model(example)
        for level in WINOGRAD_LEVELS:
            run = _loaded(path, example, num_threads, level)
            if (run(example) - wanted).abs().max() <= TOLERANCES[self.precision] / 2 * wanted.abs().max():
                break
        return run


def _converted(source: Path) -> Path:
    """Return the network in MNN's own format, beside its ONNX file."""
    path = source.with_suffix(".mnn")
    words = ["mnnconvert", "-f", "ONNX", "--modelFile", str(source), "--MNNModel", str(path), "--bizCode", "none"]
    with stdout_held() as printed:
        import_module(CONVERTER).mnnconvert(words)
        if not path.is_file():
            raise Unable(f"its converter does not take the network: {_last_line(printed())}")
    return path


def _loaded(path: Path, example: Tensor, num_threads: int, level: int) -> Run:
    with stdout_held():
        mnn: Any = import_module("MNN")
        config = {"backend": "CPU", "numThread": num_threads, "precision": "high", "memory": "high", "power": "high"}
        manager = mnn.nn.create_runtime_manager((config,))
        manager.set_hint(WINOGRAD_HINT, level)
        network = mnn.nn.load_module_from_file(str(path), [INPUT], [OUTPUT], runtime_manager=manager, shape_mutable=False)
    placeholder = mnn.expr.placeholder(list(example.shape), mnn.expr.data_format.NCHW, mnn.expr.dtype.float)

    def run(x: Tensor) -> Tensor:
        placeholder.write(x.numpy())
        output = network.forward([placeholder])[0]
        return torch.from_numpy(output.read().copy())  # read() lends memory of ``output``, which ends here

    return run


def _last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "it says nothing")
