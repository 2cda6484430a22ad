"""ONNX Runtime on its CPU provider."""

import torch
from torch import Tensor, nn

from espalier.frames.engines.engine import Precision, Run, installed, lacking
from espalier.frames.engines.onnx_file import INPUT, OUTPUT, onnx_file


class OnnxRuntime:
    """All graph optimisations, one operator after the other, threads that spin while they wait: its settings for latency."""

    name = "onnxruntime"
    precision: Precision = "fp32"

    def version(self) -> str | None:
        return installed("onnxruntime")

    def missing(self) -> str | None:
        return lacking("onnxruntime", "onnx", "onnxscript")

    def prepare(self, model: nn.Module, example: Tensor, *, num_threads: int) -> Run:
        import onnxruntime  # noqa: PLC0415  an extra

        onnxruntime.disable_telemetry_events()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = num_threads
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.add_session_config_entry("session.intra_op.allow_spinning", "1")
        session = onnxruntime.InferenceSession(str(onnx_file(model, example)), options, providers=["CPUExecutionProvider"])

        def run(x: Tensor) -> Tensor:
            return torch.from_numpy(session.run([OUTPUT], {INPUT: x.numpy()})[0])

        return run
