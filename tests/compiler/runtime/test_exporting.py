"""Stand-alone folders: they build with make, check themselves, and print the record that espalier reads."""

import ctypes
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import toy

import espalier
from espalier.compiler.hybrid import HybridNetwork
from espalier.compiler.lowering import filters_search
from espalier.compiler.runtime import exporting
from espalier.compiler.runtime.exporting import Origin, Reference, write_standalone
from espalier.compiler.runtime.loading import CompiledModel
from espalier.compiler.runtime.toolchain import ARITHMETIC
from espalier.compiler.runtime.weights import write_weights
from espalier.devices import cpu, num_cores
from espalier.metrics import unknown
from espalier.models import LeNet5
from espalier.record import Measurement

ORIGIN = Origin("f" * 64)


def blob() -> np.ndarray:
    return toy.weights().view(np.uint8)


def reference(off: float = 0.0) -> Reference:
    inputs = toy.inputs()
    outputs = [output.copy() for output in toy.expected(*inputs)]
    outputs[0][0, 0] += off
    return Reference(inputs, outputs)


def written(out: Path, off: float = 0.0, isa: str = "generic") -> Path:
    return write_standalone(out, toy.sources(isa), blob(), ORIGIN, reference(off))


def make(folder: Path, *words: str) -> None:
    done = subprocess.run(["make", "-s", "-C", str(folder), *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def call(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([folder / "network", *words], capture_output=True, text=True, check=False, cwd="/", timeout=300)


@pytest.mark.parametrize("threads", [1, 2])
def test_it_builds_with_make_and_prints_a_record(tmp_path: Path, isa: str, threads: int) -> None:
    folder = written(tmp_path / "out", isa=isa)
    make(folder)
    done = call(folder, str(threads), "100")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    record = Measurement.model_validate_json(done.stdout)
    assert (record.checkpoint, record.weights, record.frame, record.kind) == ("f" * 64, "trained", "compiled_cpu", "measured")
    assert (record.engine, record.precision, record.batch_size, record.num_threads) == ("espalier-sparse", "fp32", 2, threads)
    assert (record.num_warmup, record.num_runs, record.device) == (20, 100, cpu().name)
    assert record.metrics.keys() == {"latency_ms_p10", "latency_ms_p50", "latency_ms_p90", "fork_join_ns", "max_rel_error"}
    assert 0 < record.metrics["latency_ms_p10"] <= record.metrics["latency_ms_p50"] <= record.metrics["latency_ms_p90"]
    assert record.metrics["fork_join_ns"] > 0
    assert 0 <= record.metrics["max_rel_error"] < 1e-6
    assert record.versions.keys() == {"espalier", "cc"}
    assert record.started.endswith("+00:00")
    assert unknown(record.metrics) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no full device")
def test_a_record_that_cannot_be_written_is_no_success(tmp_path: Path) -> None:
    folder = written(tmp_path / "out")
    make(folder)
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([folder / "network", "1", "20"], stdout=full, stderr=subprocess.PIPE, text=True, check=False, timeout=300)
    assert done.returncode == 1
    assert "the record cannot be written: No space left on device" in done.stderr


def test_our_c_has_no_warnings_and_the_program_is_short(tmp_path: Path) -> None:
    folder = written(tmp_path / "out")
    make(folder, f"CFLAGS={' '.join([*ARITHMETIC, *toy.STRICT, '-pthread', '-fPIC'])}", "network", "network.so")
    body = (folder / "main.c").read_text().split("int main")[1]
    assert body.count("\n") <= 20
    with CompiledModel.from_folder(folder, num_threads=2) as model:
        assert np.array_equal(model(*toy.inputs())[0], toy.expected(*toy.inputs())[0])


@pytest.mark.parametrize("switch", ["SANITIZE=1", "OPENMP=1"])
def test_the_makefile_has_switches(tmp_path: Path, switch: str) -> None:
    folder = written(tmp_path / "out")
    make(folder, switch)
    assert call(folder, "2", "20").returncode == 0


def test_wrong_outputs_are_no_measurement(tmp_path: Path) -> None:
    folder = written(tmp_path / "out", off=0.1)
    make(folder)
    done = call(folder)
    assert done.returncode == 1
    assert done.stdout == ""
    assert "of the largest stored one; at most 0.0001 is right" in done.stderr


def test_what_is_missing_or_damaged_is_named(tmp_path: Path) -> None:
    folder = written(tmp_path / "out")
    make(folder)
    reference, weights = (folder / "reference.bin").read_bytes(), (folder / "weights.bin").read_bytes()
    for name, content, said in [
        ("reference.bin", reference[:-4], "reference.bin: too short"),
        ("reference.bin", None, "reference.bin: No such file"),
        ("weights.bin", weights[:100] + b"?" + weights[101:], "weights.bin: damaged"),
        ("weights.bin", weights[:-1], "weights.bin: damaged"),
        ("weights.bin", b"x", "no weights file"),
        ("weights.bin", None, "weights.bin: No such file"),
    ]:
        path = folder / name
        kept = path.read_bytes()
        path.unlink() if content is None else path.write_bytes(content)
        done = call(folder)
        assert done.returncode == 1
        assert said in done.stderr
        path.write_bytes(kept)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a network whose program is built; no test changes it."""
    folder = written(tmp_path_factory.mktemp("program") / "out")
    make(folder)
    return folder


def test_the_program_says_how_it_is_called(program: Path) -> None:
    for words in (["--help"], ["-h"], ["1", "--help"]):
        done = call(program, *words)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith(f"usage: {program / 'network'} [THREADS [RUNS]]\n")
        assert f"1 to {num_cores()}, the CPUs that this process may use; 1 if left out" in done.stdout
        assert "timed passes: 2 to 1000000; 200 if left out" in done.stdout


@pytest.mark.parametrize("word", ["two", "2x", "", "-1", "+1", " 1", "0", "1.5", str(num_cores() + 1), "99999999999999999999"])
def test_threads_that_the_machine_lacks_and_what_is_no_number_are_refused(program: Path, word: str) -> None:
    done = call(program, word)
    assert (done.returncode, done.stdout) == (2, "")
    cpus = f"{num_cores()} CPU{'s' * (num_cores() > 1)}"
    assert f"THREADS={word}: this process may use {cpus}; give a whole number from 1 to {num_cores()}.\nusage: " in done.stderr


def test_a_process_that_is_held_to_one_cpu_is_offered_one_thread(program: Path) -> None:
    one = min(os.sched_getaffinity(0))
    words = [sys.executable, "-c", f"import os, sys; os.sched_setaffinity(0, [{one}]); os.execv(sys.argv[1], sys.argv[1:])"]
    done = subprocess.run([*words, program / "network", "2"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "THREADS=2: this process may use 1 CPU; give a whole number from 1 to 1." in done.stderr


@pytest.mark.parametrize(
    ("words", "calls"),
    [
        (["-D__linux__"], {"sched_getaffinity", "sysconf"}),
        (["-U__linux__"], {"sysconf"}),
        (["-fsanitize=address"], set()),
        (["-D__has_feature(x)=x", "-Daddress_sanitizer=1"], set()),  # as clang spells it
    ],
    ids=["linux", "another system", "checked", "checked by clang"],
)
def test_the_bound_of_threads_comes_from_what_the_system_has(tmp_path: Path, words: list[str], calls: set[str]) -> None:
    folder = written(tmp_path / "out")
    subprocess.run(["cc", *ARITHMETIC, *toy.STRICT, *words, "-c", "espalier_words.c", "-o", "words.o"], cwd=folder, check=True)
    called = subprocess.run(["nm", "-u", "words.o"], cwd=folder, capture_output=True, text=True, check=True).stdout.split()
    assert {"sched_getaffinity", "sysconf"} & set(called) == calls


@pytest.mark.parametrize("word", ["many", "0", "1", "-5", "1000001"])
def test_runs_that_are_no_number_or_absurd_are_refused(program: Path, word: str) -> None:
    done = call(program, "1", word)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"RUNS={word}: percentiles need 2 timed passes or more; give a whole number from 2 to 1000000.\nusage: " in done.stderr
    done = call(program, "1", "20", word)
    assert done.returncode == 2
    assert f"{word}: one word too many; THREADS and RUNS are all." in done.stderr


SHOWN = """
__attribute__((visibility("default"))) double es_t(const double *times, int n, int k) { return tenth(times, n, k); }
"""


def test_percentiles_are_those_of_python(tmp_path: Path) -> None:
    """The program's own function, called with known times."""
    folder = written(tmp_path / "out")
    text = (folder / "espalier_record.c").read_text()
    (folder / "espalier_record.c").write_text(text + SHOWN)
    make(folder, "espalier_record.o", "network.so")
    objects = [path.name for path in folder.glob("*.o") if path.name != "main.o"]
    subprocess.run(["cc", "-shared", "-o", "t.so", *objects, "-pthread", "-lm"], cwd=folder, check=True)
    tenth = ctypes.CDLL(str(folder / "t.so")).es_t
    tenth.restype = ctypes.c_double
    for count in (2, 3, 10, 11, 200):
        times = sorted(np.random.default_rng(count).random(count).tolist())
        cuts = statistics.quantiles(times, n=10, method="inclusive")
        for k in (1, 9):
            assert tenth((ctypes.c_double * count)(*times), count, k) == pytest.approx(cuts[k - 1], rel=1e-12)


def test_nothing_is_overwritten_and_nothing_half_written(tmp_path: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (written(out) / "notes").write_text("mine")
    with pytest.raises(ValueError, match="exists and is not an empty folder"):
        written(out)
    with pytest.raises(OSError, match=r"No space left on device; nothing was left behind"):
        write_standalone(small_disk / "out", {**toy.sources(), "kernel_9.c": " " * 70_000}, blob(), ORIGIN, reference())
    assert list(small_disk.iterdir()) == []
    with pytest.raises(ValueError, match=r"the reference's inputs have shapes \[\(2, 37\)\], the network's \[\(2, 37\), \(1, 5\)\]"):
        write_standalone(tmp_path / "b", toy.sources(), blob(), ORIGIN, Reference(reference().inputs[:1], reference().outputs))
    with pytest.raises(ValueError, match="cannot stand in a record"):
        write_standalone(tmp_path / "b", toy.sources(), blob(), Origin('"; system("'), reference())
    assert not (tmp_path / "b").exists()
    assert exporting.MAKEFILE in [path.name for path in out.iterdir()]


@pytest.fixture
def emitted(tmp_path: Path) -> Path:
    folder = tmp_path / "emitted"
    folder.mkdir()
    for name, text in toy.sources().items():
        (folder / name).write_text(text)
    write_weights(folder / "weights.bin", blob())
    return folder


def test_a_folder_of_emitted_c_is_exported(emitted: Path, tmp_path: Path) -> None:
    folder = espalier.export_c(emitted, tmp_path / "out")
    make(folder)
    record = json.loads(call(folder).stdout)
    assert record["weights"] == "unknown"
    assert len(record["checkpoint"]) == 64
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 37, generator=generator).numpy(), torch.randn(1, 5, generator=generator).numpy()
    stored = np.fromfile(folder / "reference.bin", "<f4")
    assert np.array_equal(stored[79 : 79 + 74], toy.expected(x, y)[0].ravel())
    with pytest.raises(ValueError, match=r"lacks network\.h|no run is called"):  # the second where runs can be exported too
        espalier.export_c(tmp_path, tmp_path / "other")


def test_what_cannot_be_exported_says_why(emitted: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"its C was made for one shape; leave the shape \(--input 3x3\) out"):
        espalier.export_c(emitted, tmp_path / "out", shape="3x3")
    hybrid = object.__new__(HybridNetwork)
    hybrid.torch_lines, hybrid.share = {}, 0.5
    with pytest.raises(ValueError, match=r"a hybrid cannot be exported \(50.0% of the multiply-adds compiled"):
        espalier.export_c(hybrid, tmp_path / "out")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"what espalier.compile gives, not Identity"):
        espalier.export_c(torch.nn.Identity(), tmp_path / "out")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="--input=3by3: write sizes"):
        espalier.export_c(emitted, tmp_path / "out", shape="3by3")


def test_the_stored_outputs_are_pytorchs_not_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ESPALIER_CACHE", str(tmp_path / "cache"))
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(128, 5)).eval()
    x = torch.randn(1, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    wanted = model(x).detach()
    with espalier.compile(model, torch.zeros(1, 3, 6, 6)) as compiled:
        folder = espalier.export_c(compiled, tmp_path / "out")
        stored = np.fromfile(folder / "reference.bin", "<f4")
        assert np.abs(stored[108:] - wanted.numpy().ravel()).max() <= 1e-6 * float(wanted.abs().max())
        monkeypatch.setattr(
            "espalier.exporting.CompiledModel.__call__", lambda self, *inputs: 1.01 * wanted
        )  # as though it had been miscompiled
        with pytest.raises(ValueError, match=r"differs from PyTorch by 1.*e-02 of the largest output: it is not exported"):
            espalier.export_c(compiled, tmp_path / "wrong")
    assert not (tmp_path / "wrong").exists()


@pytest.fixture
def packed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a packed file, beside which the search for kernels is short."""
    monkeypatch.setenv("ESPALIER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(filters_search, "MOST_FIRST", 2)
    monkeypatch.setattr(filters_search, "SCHEDULE", {"by_filters": (False, True)})
    config = {"_target_": "espalier.models.LeNet5", "width": 0.4, "num_classes": 10, "in_channels": 1, "batch_norm": False}
    torch.manual_seed(0)
    model = LeNet5(width=0.4, num_classes=10, in_channels=1, batch_norm=False)
    espalier.save(model.eval(), tmp_path / "packed.safetensors", config=config)
    return tmp_path / "packed.safetensors"


@pytest.mark.slow
def test_a_file_is_exported_with_the_kernels_that_tuning_found(packed: Path, tmp_path: Path) -> None:
    folders = {
        "rule": espalier.export_c(packed, tmp_path / "rule", shape="1x28x28"),
        "left": espalier.export_c(packed, tmp_path / "left", shape="1x28x28", tune=True, tune_budget_s=0.0),
        "tuned": espalier.export_c(packed, tmp_path / "tuned", shape="1x28x28", tune=True, num_threads=1),
        "known": espalier.export_c(packed, tmp_path / "known", shape="1x28x28", tune=True, tune_budget_s=0.0),
    }
    engines = {}
    for name, folder in folders.items():
        make(folder)
        engines[name] = json.loads(call(folder, "1", "2").stdout)["engine"]
    sparse = "espalier-sparse"
    assert engines == {"rule": sparse, "left": sparse, "tuned": f"{sparse} tuned", "known": f"{sparse} tuned"}
    assert (folders["known"] / "network.c").read_text() == (folders["tuned"] / "network.c").read_text()


def test_what_compile_tuned_is_exported_as_tuned(packed: Path, tmp_path: Path) -> None:
    with espalier.compile(espalier.load(packed), torch.zeros(1, 1, 28, 28), tune=True) as compiled:
        folder = espalier.export_c(compiled, tmp_path / "out")
        with pytest.raises(ValueError, match=r"its kernels are chosen; tune what is compiled from a model"):
            espalier.export_c(compiled, tmp_path / "other", tune=True)
    assert 'ES_ENGINE "espalier-sparse tuned"' in (folder / "espalier_facts.h").read_text()


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"num_threads": 2}, r"num_threads=2 \(--threads\)"),
        ({"num_threads": 0}, r"num_threads=0 \(--threads\)"),
        ({"tune_budget_s": 9.0}, r"tune_budget_s=9\.0"),
    ],
    ids=str,
)
def test_what_tuning_takes_is_refused_without_it(emitted: Path, tmp_path: Path, given: dict[str, float], named: str) -> None:
    with pytest.raises(ValueError, match=rf"^{named} is what tuning is for, and nothing is tuned: tune too \(--tune\), or leave it out"):
        espalier.export_c(emitted, tmp_path / "out", **given)  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("threads", [0, 5])
def test_threads_that_this_machine_has_not_are_refused(packed: Path, tmp_path: Path, threads: int) -> None:
    with pytest.raises(ValueError, match=rf"num_threads={threads}: this process may use 4 cores; give 1 to 4"):
        espalier.export_c(packed, tmp_path / "out", shape="1x28x28", tune=True, num_threads=threads)
    assert not (tmp_path / "out").exists()


def test_the_shell_exports(emitted: Path, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "espalier.cli", "export", str(emitted), "--to", "c", "--out", str(tmp_path / "out")]
    done = subprocess.run([*words, "--json"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"path": str(tmp_path / "out")}
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "exists and is not an empty folder" in done.stderr
