"""OpenVINO's CPU plug-in, at fp32 and at the precision it would take by itself."""

import sys
from typing import Any

import torch
from torch import Tensor, nn

from espalier.frames.engines.engine import Precision, Run, Unable, installed, lacking
from espalier.frames.engines.onnx_file import onnx_file

TELEMETRY = "openvino_telemetry"
LATENCY = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1, "ENABLE_CPU_PINNING": True}


class OpenVino:
    """One stream with the latency hint and pinned threads.

    Args:
        default_precision: Leave the precision to the plug-in, which computes in bf16 where the CPU has instructions for it. For information
            only: no fp32 engine is compared with it.
    """

    def __init__(self, *, default_precision: bool = False) -> None:
        self.name = "openvino-default-precision" if default_precision else "openvino"
        self.precision: Precision = "bf16" if default_precision else "fp32"

    def version(self) -> str | None:
        return installed("openvino")

    def missing(self) -> str | None:
        return lacking("openvino", "onnx", "onnxscript")

    def prepare(self, model: nn.Module, example: Tensor, *, num_threads: int) -> Run:
        core = _openvino().Core()
        hint = {"INFERENCE_PRECISION_HINT": "f32"} if self.precision == "fp32" else {}
        settings = {**LATENCY, **hint, "INFERENCE_NUM_THREADS": num_threads}
        taken = core.get_property("CPU", "INFERENCE_PRECISION_HINT").get_type_name()
        if self.precision == "bf16" and taken != "bf16":
            raise Unable(f"computes in {taken} by default on this CPU, as the entry 'openvino' does")
        request = core.compile_model(core.read_model(onnx_file(model, example)), "CPU", settings).create_infer_request()

        def run(x: Tensor) -> Tensor:
            return torch.from_numpy(request.infer([x.numpy()], share_inputs=True, share_outputs=True)[0])

        return run


def _openvino() -> Any:
    """Return the package, without the message to Google Analytics that its import sends where ``openvino_telemetry`` is installed."""
    modules: dict[str, Any] = sys.modules
    hidden = "openvino" not in modules and TELEMETRY not in modules
    if hidden:
        modules[TELEMETRY] = None  # makes its import fail; openvino has a stub for that
    try:
        import openvino  # noqa: PLC0415  an extra
    finally:
        if hidden:
            del modules[TELEMETRY]
    return openvino
