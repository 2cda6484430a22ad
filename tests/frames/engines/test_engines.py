"""Every engine computes what PyTorch computes, or says why it can't; one that isn't installed is skipped here and listed by the bench."""

import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from espalier.constraints import Assignment
from espalier.frames import engines as package
from espalier.frames.engines import ENGINES, TOLERANCES, Engine, Unable, mnn, named, pytorch_eager
from espalier.frames.engines import engine as engine_module
from espalier.frames.engines.mnn import Mnn
from espalier.frames.engines.onnx_file import onnx_file
from espalier.frames.engines.openvino import OpenVino
from espalier.frames.engines.ours import Ours
from espalier.frames.engines.torch_compile import TorchCompile

PEERS = [name for name in ENGINES if not name.startswith("espalier-")]


@pytest.fixture(autouse=True)
def unlocked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no test wait until the machine is free: which memory format is faster does not matter here."""
    monkeypatch.setattr(pytorch_eager, "machine_lock", nullcontext)


def network(*, axes: int) -> nn.Module:
    """Return two convolutions with batch norm, a pool and a linear layer, in evaluation mode, for images or clips."""
    conv, norm, pool = (nn.Conv2d, nn.BatchNorm2d, nn.AdaptiveAvgPool2d) if axes == 2 else (nn.Conv3d, nn.BatchNorm3d, nn.AdaptiveAvgPool3d)
    torch.manual_seed(0)
    first, second = conv(3, 8, 3, padding=1), conv(8, 8, 3, padding=1, bias=False)
    return nn.Sequential(first, nn.ReLU(), second, norm(8), nn.ReLU(), pool(1), nn.Flatten(), nn.Linear(8, 5)).eval()


def prepared(engine: Engine, model: nn.Module, example: Tensor) -> package.Run:
    if (reason := engine.missing()) is not None:
        pytest.skip(f"{engine.name}: {reason}")
    try:
        return engine.prepare(model, example, num_threads=1)
    except Unable as reason:
        pytest.skip(f"{engine.name}: {reason}")


@pytest.mark.parametrize("axes", [2, 3])
@pytest.mark.parametrize("name", [name for name in PEERS if name != "torch-compile"])
def test_outputs_are_pytorchs(name: str, axes: int) -> None:
    engine, model, example = ENGINES[name], network(axes=axes), torch.rand(1, 3, *[8] * axes)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    run = prepared(engine, model, example)
    for _ in range(2):  # whatever the first left behind
        with torch.no_grad():
            wanted = model(example)
        assert (run(example) - wanted).abs().max() <= TOLERANCES[engine.precision] * wanted.abs().max()
        example = torch.rand_like(example)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize(("factor", "levels"), [(1 + 3e-5, [3]), (1 + 8e-5, [3, 2])], ids=["exact", "inexact"])
def test_mnn_takes_smaller_tiles_where_its_own_lose_too_many_digits(
    factor: float, levels: list[int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    taken = []

    def loaded(path: Path, example: Tensor, num_threads: int, level: int) -> package.Run:
        taken.append(level)
        return lambda x: x * (factor if level == mnn.WINOGRAD_LEVELS[0] else 1.0)

    monkeypatch.setattr(mnn, "_loaded", loaded)
    monkeypatch.setattr(mnn, "_converted", lambda source: tmp_path)
    monkeypatch.setattr(mnn, "onnx_file", lambda model, example: tmp_path)
    Mnn().prepare(nn.Identity(), torch.ones(1, 2), num_threads=1)
    assert taken == levels


def test_a_network_that_mnn_cannot_convert_says_what_its_converter_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Converter:
        def mnnconvert(self, words: list[str]) -> None:
            os.write(1, b"Start\nThese Op Not Support: Flip\n\n")

    monkeypatch.setattr(mnn, "import_module", lambda name: Converter())
    with pytest.raises(Unable, match="does not take the network: These Op Not Support: Flip"):
        mnn._converted(tmp_path / "model.onnx")


@pytest.mark.slow
def test_outputs_of_torch_compile_are_pytorchs() -> None:
    model, example = network(axes=2), torch.rand(1, 3, 8, 8)
    run = prepared(TorchCompile(), model, example)
    with torch.no_grad():
        assert torch.allclose(run(example), model(example), rtol=1e-4, atol=1e-6)


def test_an_engine_leaves_no_trace_of_itself_on_standard_output_or_the_network() -> None:
    """What MNN prints goes to standard error, and OpenVINO's telemetry is not imported."""
    if any(ENGINES[name].missing() for name in ("mnn", "openvino")):
        pytest.skip("MNN or OpenVINO not installed")
    code = (
        "import sys, torch\nfrom espalier.frames.engines import ENGINES\n"
        "model, example = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3)).eval(), torch.rand(1, 3, 8, 8)\n"
        "for name in ('mnn', 'openvino'):\n    ENGINES[name].prepare(model, example, num_threads=1)(example)\n"
        "assert not [name for name in sys.modules if name.startswith(('openvino_telemetry', 'MNN.tools', 'aliyun'))]\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == ""


def test_one_export_serves_all_and_goes_with_the_network() -> None:
    if ENGINES["onnxruntime"].missing():
        pytest.skip("ONNX Runtime not installed")
    model, example = network(axes=2), torch.rand(1, 3, 8, 8)
    path = onnx_file(model, example)
    assert onnx_file(model, example) == path
    assert path.is_file()
    del model
    assert not path.parent.exists()


def test_an_unknown_engine_lists_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"engines=onnx_runtime is not known; nearest: onnxruntime"):
        named(["onnx_runtime"])
    with pytest.raises(ValueError, match="names mnn twice"):
        named(["mnn", "openvino", "mnn"])
    assert [engine.name for engine in named()] == [*ENGINES]


def test_what_is_not_installed_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "find_spec", lambda name: None)
    for name in ("onnxruntime", "openvino", "openvino-default-precision", "mnn"):
        assert "pip install 'espalier[peers]'" in str(ENGINES[name].missing())
    assert engine_module.installed("no-such-distribution") is None
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert "no-such-compiler" in str(ENGINES["torch-compile"].missing())


def test_ours_hands_the_network_to_the_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, object] = {}
    monkeypatch.setattr("espalier.compiler.compile_model", lambda model, example, **given: asked.update(given) or model)
    sets = Assignment([])
    for dense in (True, False):
        engine = Ours(dense=dense, fallback="torch", frozen=sets)
        assert engine.missing() is None
        assert isinstance(engine.prepare(nn.Identity(), torch.zeros(1), num_threads=3), nn.Identity)
        assert asked == {"num_threads": 3, "dense": dense, "tune": False, "fallback": "torch", "frozen": sets}


def test_what_our_compiler_lacks_is_a_reason_and_what_breaks_it_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    def raising(error: Exception) -> None:
        def compile_model(model: nn.Module, example: Tensor, **given: object) -> None:
            raise error

        monkeypatch.setattr("espalier.compiler.compile_model", compile_model)

    raising(ValueError("no operator aten.sort"))
    with pytest.raises(Unable, match=r"no operator aten\.sort"):
        Ours(dense=False).prepare(nn.Identity(), torch.zeros(1), num_threads=1)
    raising(KeyError("a bug"))
    with pytest.raises(KeyError):
        Ours(dense=False).prepare(nn.Identity(), torch.zeros(1), num_threads=1)


def test_where_fp32_is_the_default_openvino_is_listed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    class Core:
        def get_property(self, device: str, name: str) -> object:
            return type("Type", (), {"get_type_name": lambda self: "f32"})()

    monkeypatch.setattr("espalier.frames.engines.openvino._openvino", lambda: type("Package", (), {"Core": Core}))
    with pytest.raises(Unable, match="computes in f32 by default"):
        OpenVino(default_precision=True).prepare(nn.Identity(), torch.zeros(1), num_threads=1)


def test_the_calling_thread_gets_its_cpus_back() -> None:
    before = os.sched_getaffinity(0)
    with engine_module.affinity_kept():
        os.sched_setaffinity(0, {min(before)})
    assert os.sched_getaffinity(0) == before
