"""MNN's CPU back end, from ONNX through its own converter."""

from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from espalier.frames.engines.engine import Precision, Run, Unable, installed, lacking, stdout_held
from espalier.frames.engines.onnx_file import INPUT, OUTPUT, onnx_file

CONVERTER = "_tools"  # what MNN.tools.mnnconvert calls; importing MNN.tools itself installs a telemetry client with pip and connects


class Mnn:
    """High precision, which is fp32 throughout, high power and all the memory that it wants (it is what Winograd needs)."""

    name = "mnn"
    precision: Precision = "fp32"

    def version(self) -> str | None:
        return installed("MNN")

    def missing(self) -> str | None:
        return lacking("MNN", "onnx", "onnxscript")

    def prepare(self, model: nn.Module, example: Tensor, *, num_threads: int) -> Run:
        source = onnx_file(model, example)
        path = source.with_suffix(".mnn")
        with stdout_held() as printed:
            engine: Any = import_module("MNN")
            words = ["mnnconvert", "-f", "ONNX", "--modelFile", str(source), "--MNNModel", str(path), "--bizCode", "none"]
            import_module(CONVERTER).mnnconvert(words)
            if not path.is_file():
                raise Unable(f"its converter does not take the network: {_last_line(printed())}")
            config = {"backend": "CPU", "numThread": num_threads, "precision": "high", "memory": "high", "power": "high"}
            manager = engine.nn.create_runtime_manager((config,))
            network = engine.nn.load_module_from_file(str(path), [INPUT], [OUTPUT], runtime_manager=manager, shape_mutable=False)
        placeholder = engine.expr.placeholder(list(example.shape), engine.expr.data_format.NCHW, engine.expr.dtype.float)

        def run(x: Tensor) -> Tensor:
            placeholder.write(x.numpy())
            return torch.from_numpy(network.forward([placeholder])[0].read())

        return run


def _last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "it says nothing")
