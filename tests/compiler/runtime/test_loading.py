"""A compiled network in Python: the network written by hand, called with tensors and arrays."""

import copy
import gc
import os
import pickle
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import toy
from numpy.typing import NDArray

from espalier import devices
from espalier.compiler.runtime import loading
from espalier.compiler.runtime.building import build
from espalier.compiler.runtime.emitted import emitted_info
from espalier.compiler.runtime.loading import CompiledModel
from espalier.compiler.runtime.weights import write_weights

Floats = NDArray[np.float32]


def blob() -> NDArray[np.uint8]:
    return toy.weights().view(np.uint8)


@pytest.fixture
def model(toy_library: Callable[..., Path]) -> Iterator[CompiledModel]:
    with CompiledModel(toy_library(), blob(), num_threads=2) as one:
        yield one


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder as the generator writes it."""
    for name, text in toy.sources().items():
        (tmp_path / name).write_text(text)
    write_weights(tmp_path / "weights.bin", blob())
    return tmp_path


def check(found: tuple[Any, Any], seed: int = 1) -> None:
    for one, wanted in zip(found, toy.expected(*toy.inputs(seed)), strict=True):
        assert np.allclose(np.asarray(one), wanted, rtol=1e-6)


def test_tensors_give_tensors_and_arrays_give_arrays(model: CompiledModel) -> None:
    arrays = toy.inputs()
    found = model(*arrays)
    assert [type(one) for one in found] == [np.ndarray, np.ndarray]
    check(found)
    tensors = model(*map(torch.from_numpy, arrays))
    assert [type(one) for one in tensors] == [torch.Tensor, torch.Tensor]
    check(tensors)


def test_contiguous_inputs_are_read_in_place_and_others_copied(model: CompiledModel, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = map(torch.from_numpy, toy.inputs())
    seen: list[list[int]] = []
    addresses = loading._addresses

    def watched(arrays: Any) -> Any:
        seen.append([one.address for one in arrays])
        return addresses(arrays)

    monkeypatch.setattr(loading, "_addresses", watched)
    check(model(x, y))
    assert seen[0] == [x.data_ptr(), y.data_ptr()]
    check(model(x.t().contiguous().t(), y))
    assert seen[2][0] != x.data_ptr()
    check(model(torch.cat([torch.zeros(1), x.flatten()])[1:].view_as(x), y))  # contiguous, at an odd address


def test_outputs_may_be_given(model: CompiledModel) -> None:
    x, y = map(torch.from_numpy, toy.inputs())
    outs = [torch.empty(2, 37), torch.empty(1, 1)]
    found = model(x, y, out=outs)
    assert [one.data_ptr() for one in found] == [one.data_ptr() for one in outs]
    check(found)
    with pytest.raises(ValueError, match=r"output z shares memory with another array"):
        model(x, y, out=[x, outs[1]])
    with pytest.raises(ValueError, match="output z cannot be written in place"):
        model(x, y, out=[torch.empty(37, 2).t(), outs[1]])
    locked = np.empty((2, 37), np.float32)
    locked.flags.writeable = False
    with pytest.raises(ValueError, match="output z cannot be written in place"):
        model(x, y, out=[locked, outs[1]])
    with pytest.raises(ValueError, match=r"gives 2 outputs \(z \(2, 37\), total \(1, 1\)\); 1 were passed"):
        model(x, y, out=outs[0])
    with pytest.raises(ValueError, match=r"output total has shape \(1,\), the network was compiled for \(1, 1\)"):
        model(x, y, out=[outs[0], torch.empty(1)])


def test_what_does_not_fit_is_refused_with_both_sides(model: CompiledModel) -> None:
    x, y = map(torch.from_numpy, toy.inputs())
    with pytest.raises(ValueError, match=r"takes 2 inputs \(x \(2, 37\), y \(1, 5\)\); 1 were passed"):
        model(x)
    with pytest.raises(
        ValueError, match=r"input x has shape \(4, 37\), the network was compiled for \(2, 37\); pass 2 samples in each call"
    ):
        model(torch.zeros(4, 37), y)
    with pytest.raises(ValueError, match=r"input x has shape \(37, 2\), .* compile it again with an example of that shape"):
        model(x.t(), y)
    with pytest.raises(ValueError, match="input x is float64 on cpu, the network computes in float32 on the cpu"):
        model(x.double(), y)
    with pytest.raises(ValueError, match="input x is >f4 on cpu"):
        model(x.numpy().astype(">f4"), y.numpy())
    with pytest.raises(ValueError, match="input x is float32 on meta"):
        model(x.to("meta"), y)
    with pytest.raises(ValueError, match="input y is a list; pass a tensor"):
        model(x, [1.0])
    with pytest.raises(ValueError, match="some inputs are tensors, some NumPy arrays"):
        model(x, y.numpy())
    with pytest.raises(ValueError, match=r"input x asks for gradients.*x\.detach\(\)"):
        model(x.requires_grad_(), y)
    with torch.no_grad():
        check(model(x, y))


def test_a_folder_with_sources_or_with_a_library(folder: Path) -> None:
    assert [port.name for port in emitted_info(folder).inputs] == ["x", "y"]
    with CompiledModel.from_folder(folder, num_threads=2) as model:
        check(model(*toy.inputs()))
        assert repr(model) == "CompiledModel(x (2, 37), y (1, 5) -> z (2, 37), total (1, 1); generic, 2 threads)"
    shutil.copy(build(folder, "generic"), folder / "network.so")
    (folder / "network.c").unlink()
    with CompiledModel.from_folder(folder) as model:
        check(model(*toy.inputs()))
    with pytest.raises(ValueError, match="holds no emitted C"):
        CompiledModel.from_folder(folder / "none")


def test_a_damaged_file_is_named(folder: Path) -> None:
    (folder / "network.so").write_bytes(b"\x7fELF")
    with pytest.raises(ValueError, match=r"network\.so is no library of a compiled network for this system"):
        CompiledModel.from_folder(folder)
    (folder / "network.so").unlink()
    whole = (folder / "weights.bin").read_bytes()
    (folder / "weights.bin").write_bytes(whole[:-4] + b"none")
    with pytest.raises(ValueError, match=r"weights\.bin is damaged"):
        CompiledModel.from_folder(folder)
    write_weights(folder / "weights.bin", blob()[:-64])
    with pytest.raises(ValueError, match="the weights have 256 bytes, the network wants 320; they belong to another one"):
        CompiledModel.from_folder(folder)


def test_code_that_this_cpu_lacks_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    if "avx512" not in toy.RUNNABLE:
        pytest.skip("this machine does not run avx512 code")
    path = build(toy.sources("avx512"), "avx512")
    monkeypatch.setattr(loading, "cpu_flags", lambda: devices.cpu_flags() - {"avx512bw", "fma"})
    with pytest.raises(ValueError, match=r"compiled for isa=avx512; this CPU \(.+\) lacks avx512bw fma\. .*isa=generic runs everywhere"):
        CompiledModel(path, blob())


def test_a_network_without_weights_opens() -> None:
    header = toy.NETWORK_H.replace("ISA", "generic").replace("ES_WEIGHTS_FLOATS 80", "ES_WEIGHTS_FLOATS 0")
    path = build({**toy.sources(), "network.h": header}, "generic")
    for _ in range(10):  # wherever nothing lies
        with CompiledModel(path, np.empty(0, np.uint8)) as model:
            assert model.info.isa == "generic"


def test_threads_and_cpus_are_checked(toy_library: Callable[..., Path]) -> None:
    with pytest.raises(ValueError, match=r"num_threads=0: this process may use \d+ cores?; give 1 to \d+\."):
        CompiledModel(toy_library(), blob(), num_threads=0)
    with pytest.raises(ValueError, match=r"cpus=\[0\] names 1 CPUs for 2 threads"):
        CompiledModel(toy_library(), blob(), num_threads=2, cpus=[0])
    if hasattr(os, "sched_getaffinity") and len(cpus := sorted(os.sched_getaffinity(0))) > 1:
        with CompiledModel(toy_library(), blob(), num_threads=2, cpus=cpus[:2]) as model:
            check(model(*toy.inputs()))
            assert model.fork_join_ns() > 0


def test_it_cannot_be_pickled_or_copied(model: CompiledModel) -> None:
    for use in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="can be neither pickled nor copied"):
            use(model)


def test_closed_it_says_so(toy_library: Callable[..., Path]) -> None:
    model = CompiledModel(toy_library(), blob(), num_threads=2)
    model.close()
    model.close()
    assert repr(model).endswith("2 threads, closed)")
    with pytest.raises(RuntimeError, match="is closed"):
        model(*toy.inputs())
    with pytest.raises(RuntimeError, match="is closed"):
        model.fork_join_ns()


def threads_of_this_process() -> int:
    return len(list(Path("/proc/self/task").iterdir()))


def test_forgotten_ones_end_their_threads(toy_library: Callable[..., Path]) -> None:
    before = threads_of_this_process()
    models = [CompiledModel(toy_library(), blob(), num_threads=3) for _ in range(4)]
    assert threads_of_this_process() == before + 8
    del models
    gc.collect()
    assert threads_of_this_process() == before


def test_two_threads_with_two_models_and_one_model_used_twice(toy_library: Callable[..., Path]) -> None:
    failures: list[BaseException] = []

    def calls(model: CompiledModel, seed: int) -> None:
        try:
            for _ in range(100):
                check(model(*toy.inputs(seed)), seed)
        except BaseException as error:  # noqa: BLE001  shown below
            failures.append(error)

    models = [CompiledModel(toy_library(), blob(), num_threads=2) for _ in range(2)]
    team = [threading.Thread(target=calls, args=(model, seed)) for seed, model in enumerate(models)]
    for thread in team:
        thread.start()
    for thread in team:
        thread.join()
    assert not failures
    models[0]._turn.acquire()
    with pytest.raises(RuntimeError, match="another thread is using this CompiledModel"):
        models[0](*toy.inputs())
    models[0]._turn.release()


def test_a_fork_is_refused(toy_library: Callable[..., Path]) -> None:
    import subprocess
    import sys

    code = f"""
import os, sys
sys.path[:0] = [{str(Path(__file__).parent)!r}]
import test_loading as t
model = t.CompiledModel(t.Path({str(toy_library())!r}), t.blob(), num_threads=2)
child = os.fork()
if child == 0:
    try:
        model(*t.toy.inputs())
    except RuntimeError as error:
        assert "before this process was forked" in str(error)
        os._exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
t.check(model(*t.toy.inputs()))
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
