"""Benchmarks with engines of the test's own: who is listed how, which figures follow, and what the shell takes and prints."""

import io
import json
import os
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor, nn
from typer.testing import CliRunner

import espalier
from espalier import benching, cli, completion, devices, printing
from espalier.bench_chart import chart
from espalier.bench_result import Bench, Entry
from espalier.benching import bench, bench_words
from espalier.compiler import Explanation, Line
from espalier.frames import contending, engines
from espalier.frames.engines import Native, Unable
from espalier.frames.roofline import Roof

EXAMPLE = torch.ones(1, 3, 8, 8)
WORDS = ["model=resnet8_cifar", "rate=2", "runs=10"]
runner = CliRunner()


class Run:
    """A fake's compiled network, which also says what our own code says of itself."""

    hybrid, tuned = "", False

    def __init__(self, engine: "Fake", model: nn.Module) -> None:
        self.engine, self.model = engine, model

    @torch.inference_mode()
    def __call__(self, x: Tensor) -> Tensor:
        CLOCK[0] += round(1e6 * self.engine.ms)
        output: Tensor = self.model(x) * self.engine.factor
        return output

    def fork_join_ns(self) -> float:
        return 110.0

    def explain(self, *, num_runs: int) -> Explanation:
        return Explanation((LINE,) if num_runs else ())


class Fake:
    """An engine whose time is set and whose answers are PyTorch's, unless it is told otherwise."""

    def __init__(self, name: str, ms: float, *, precision: Any = "fp32", factor: float = 1.0, raises: Exception | None = None) -> None:
        self.name, self.ms, self.precision, self.factor, self.raises = name, ms, precision, factor, raises
        self.absent: str | None = None

    def version(self) -> str | None:
        return "1.0"

    def missing(self) -> str | None:
        return self.absent

    def prepare(self, model: nn.Module, example: Tensor, *, num_threads: int) -> Run:
        os.write(1, b"noise of a library\n")
        if self.raises is not None:
            raise self.raises
        return Run(self, model)


CLOCK = [0]
PART = "90.0% of the multiply-adds compiled; aten.sort.default in PyTorch"
PEERS = [Fake("slow", 8.0), Fake("fast", 6.0), Fake("half", 1.0, precision="bf16"), Fake("wrong", 1.0, factor=1.01)]
LINE = Line("0", "conv", (1, 8, 6, 6), "dense", "F", "gM=16", 100, 100, reasons=("one reason",), microseconds=0.5)
OURS = [Fake("espalier-dense", 5.0), Fake("espalier-sparse", 2.0)]


@pytest.fixture(autouse=True)
def fakes(monkeypatch: pytest.MonkeyPatch) -> list[Fake]:
    """Put the fakes in the place of the engines, and their clock in that of the machine's."""
    absent, unable = Fake("absent", 1.0), Fake("unable", 1.0, raises=Unable("no such operator: aten.flip"))
    absent.absent = "absent not installed; pip install 'espalier[peers]'"
    every = [*PEERS, absent, unable, Fake("broken", 1.0, raises=RuntimeError("it broke")), *OURS]
    monkeypatch.setattr(engines, "ENGINES", {fake.name: fake for fake in every})
    monkeypatch.setattr(contending.time, "perf_counter_ns", lambda: CLOCK[0])
    monkeypatch.setattr(contending, "SETTLE_S", 0.0)
    monkeypatch.setattr(contending, "machine_lock", nullcontext)  # nothing real is timed
    monkeypatch.setattr(benching, "machine_lock", nullcontext)
    monkeypatch.setattr(devices, "num_cores", lambda: 2)
    monkeypatch.setattr("espalier.compiler.measured_roof", _no_compiler)
    return every


def _no_compiler(num_threads: int) -> tuple[float, float]:
    raise ValueError(f"there is no C compiler for {num_threads} threads")


def own(**changes: Any) -> Bench:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3))
    pruned = espalier.prune(model, constraint="block_punched 4x1", rate=2)
    return bench(pruned, example=EXAMPLE, **{"num_runs": 10, **changes})


def test_every_engine_is_listed_with_a_time_or_a_reason() -> None:
    found = own()
    assert {entry.engine: entry.status for entry in found.engines} == {
        **dict.fromkeys(("slow", "fast", "half", "espalier-dense", "espalier-sparse"), "ok"),
        "wrong": "mismatch",
        "absent": "unavailable",
        "unable": "unavailable",
        "broken": "failed",
    }
    assert [entry.engine for entry in found.engines] == list(engines.ENGINES)
    reasons = {entry.engine: entry.reason for entry in found.engines if entry.reason}
    assert reasons["absent"].endswith("pip install 'espalier[peers]'")
    assert reasons["unable"] == "no such operator: aten.flip"
    assert reasons["broken"] == "RuntimeError: it broke"
    wrong = found.entry("wrong")
    assert wrong is not None
    assert (wrong.latency_ms_p50, wrong.max_rel_error) == (None, pytest.approx(0.01, rel=1e-3))
    fast = found.entry("fast")
    assert fast is not None
    assert (fast.latency_ms_p10, fast.latency_ms_p50, fast.latency_ms_p90) == (6.0, 6.0, 6.0)


def test_ratios_are_to_the_best_peer_of_the_same_precision() -> None:
    found = own()
    assert found.best_dense_peer == "fast"  # not half, which computes in bf16, nor wrong
    assert found.ratio_to_best_dense_peer == 3.0
    assert found.realised_share == pytest.approx(5.0 / 2.0 / found.subject.rate_macs)


def test_without_our_code_there_are_no_ratios() -> None:
    found = own(engines=["slow", "fast"])
    assert found.best_dense_peer == "fast"
    assert (found.ratio_to_best_dense_peer, found.realised_share) == (None, None)
    assert own(engines=["absent"]).best_dense_peer is None


def test_a_roof_places_the_layers() -> None:
    found = own(engines=["fast"], roof=Roof(peak_gflops=100.0, bandwidth_gb_s=10.0))
    assert found.roofline is not None
    assert found.roofline.keys() == {"0", "2"}
    assert 0.0 <= (found.memory_bound_share or 0.0) <= 1.0
    assert own(engines=["fast"]).roofline is None


def test_the_compiler_is_asked_for_the_roof_and_the_fork_join_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("espalier.compiler.measured_roof", lambda num_threads: (100.0 * num_threads, 10.0))
    found = own(engines=["espalier-sparse"], num_threads=2)
    assert found.fork_join_ns == (110.0, 110.0)
    assert found.roofline is not None
    assert max(layer.gflops for layer in found.roofline.values()) <= 200.0


def test_tuned_is_what_was_done_not_what_was_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not own(tune=True, engines=["fast", "espalier-sparse"]).tuned  # a fake searches nothing

    class Searched(Fake):
        def prepare(self, model: nn.Module, example: Tensor, *, num_threads: int) -> Run:
            run = super().prepare(model, example, num_threads=num_threads)
            run.tuned = True
            return run

    monkeypatch.setitem(engines.ENGINES, "espalier-sparse", Searched("espalier-sparse", 1.0))
    found = own(tune=True)
    assert found.tuned
    assert "A search chose kernels" in told(found)
    monkeypatch.setitem(engines.ENGINES, "fast", Searched("fast", 1.0))
    assert not own(engines=["fast"]).tuned  # of ours alone


def told(found: Bench) -> str:
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(*printing.bench_lines(found))
    return console.export_text()


def test_our_kernels_are_explained_where_asked_for() -> None:
    found = own(explain=True)
    assert found.layers == Explanation((LINE,))
    (line,) = found.as_json()["layers"]
    assert (line["gflops"], line["reasons"]) == (pytest.approx(0.4), ("one reason",))
    assert "one reason" in told(found)
    assert own().layers is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tune": True, "engines": ["fast"]}, "tune change our own code alone, and engines=fast has none; add espalier-sparse"),
        ({"fallback": "torch", "engines": ["fast"]}, "fallback change our own code alone"),
        ({"explain": True, "engines": ["fast", "espalier-dense"]}, "explain speaks of our sparse code, and engines=fast,espalier-dense"),
        ({"input_shape": (3, 8, 8)}, r"input_shape=\(3, 8, 8\): a network of your own takes what its example shows"),
    ],
)
def test_what_would_do_nothing_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        own(**changes)


def test_an_example_goes_with_a_network_of_ones_own() -> None:
    with pytest.raises(ValueError, match=r"example goes with a network of your own; resnet8_cifar takes input_shape=\(3, 8, 8\)"):
        bench("resnet8_cifar", rate=2.0, example=EXAMPLE)


def test_another_precision_has_no_gain() -> None:
    found = own()
    assert found.gain("fast") == 3.0
    assert found.gain("half") is None


def test_the_table_counts_passes_and_one_thread_is_one() -> None:
    found = own(engines=["fast", "espalier-sparse"])
    text = " ".join(told(found).split())
    assert "kept" in text
    assert "dropped" in text
    assert f"1 thread of {found.device}, {found.started}." in text
    assert "A rule chose the kernels" in text


def test_what_our_code_says_of_itself_is_its_own() -> None:
    assert isinstance(Fake("espalier-sparse", 1.0).prepare(nn.Identity(), EXAMPLE, num_threads=1), Native)
    assert not isinstance(nn.Identity(), Native)


def test_the_users_network_is_left_as_it_was() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)).train()
    found = bench(model, example=EXAMPLE, engines=["fast"], num_runs=10)
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert not found.subject.model.training


def test_our_masks_are_the_frozen_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[object] = []
    monkeypatch.setitem(engines.ENGINES, "espalier-sparse", engines.Ours(dense=False))
    monkeypatch.setattr("espalier.compiler.compile_model", lambda model, example, **given: taken.append(given["frozen"]) or model)
    found = own(engines=["espalier-sparse"])
    assert taken == [espalier.frozen(found.subject.model)]
    assert taken[0] is not None


def test_a_benchmark_without_a_time_or_with_wrong_code_of_ours_fails(capfd: pytest.CaptureFixture[str]) -> None:
    assert own().failure is None  # though peers failed
    assert str(own(engines=["absent"]).failure).startswith("no engine was timed: absent unavailable: absent not installed")
    done = runner.invoke(cli.app, ["bench", *WORDS, "engines=absent,broken"])
    assert done.exit_code == 1
    engines.ENGINES["espalier-sparse"].factor = 1.01  # type: ignore[attr-defined]
    try:
        assert str(own(engines=["fast", "espalier-sparse"]).failure).startswith("our own code is at fault: espalier-sparse mismatch")
    finally:
        engines.ENGINES["espalier-sparse"].factor = 1.0  # type: ignore[attr-defined]


KEYS = ("engine", "version", "precision", "latency_ms_p10", "latency_ms_p50", "latency_ms_p90", "max_rel_error", "status")
TOP = ("best_dense_peer", "ratio_to_best_dense_peer", "rate_macs", "realised_share", "group", "tuned", "weights", "engines")


def test_json_is_all_there_is_on_standard_output(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["espalier", "bench", *WORDS, "group=8x4", "threads=2", "--json"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 0
    told = json.loads(capfd.readouterr().out)
    assert all(key in told for key in TOP)
    assert all(key in entry for key in KEYS for entry in told["engines"])
    assert (told["weights"], told["group"], told["tuned"], told["num_threads"]) == ("random", "8x4", False, 2)
    assert told["rate_macs"] == pytest.approx(2.0, rel=0.01)
    assert told["ratio_to_best_dense_peer"] == 3.0


def test_words_for_people(tmp_path: Path) -> None:
    done = runner.invoke(cli.app, ["bench", *WORDS, "--to", str(tmp_path / "times.svg")], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    told = " ".join(done.stdout.split())
    assert "Sparse code is 3.00x as fast as the best dense peer, fast." in told
    assert "absent unavailable: absent not installed" in told
    assert "random weights, rates of layers: uniform" in told
    assert "of the MAC rate became speed over our own dense code." in told
    assert (tmp_path / "times.svg").read_text().startswith("<?xml")


def test_a_machine_that_moved_or_is_busy_warns() -> None:
    found = own(engines=["fast"])
    facts = {key: getattr(found, key) for key in found.__dataclass_fields__}
    told = " ".join(
        str(line) for line in printing.bench_lines(Bench(**facts | {"moved": True, "others_cpus": 0.5, "fork_join_ns": (1, 9)}))
    )
    assert "changed places" in told
    assert "used 0.50 CPUs" in told
    assert "Fork-join 1 ns before, 9 ns after" in told


def test_a_hybrid_says_so_wherever_its_time_stands(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Hybrid(Fake):
        def prepare(self, model: nn.Module, example: Tensor, *, num_threads: int) -> Run:
            run = super().prepare(model, example, num_threads=num_threads)
            run.hybrid = PART
            return run

    monkeypatch.setitem(engines.ENGINES, "espalier-sparse", Hybrid("espalier-sparse", 1.0))
    found = own(engines=["fast", "espalier-dense", "espalier-sparse"])
    entry = found.entry("espalier-sparse")
    assert entry is not None
    assert (entry.status, entry.reason, entry.latency_ms_p50) == ("hybrid", PART, 1.0)
    assert found.ratio_to_best_dense_peer == 6.0
    assert found.realised_share is None
    assert found.as_json()["hybrid"] is True
    lines = " ".join(str(line) for line in printing.bench_lines(found))
    assert "Sparse code, a hybrid with PyTorch, is 6.00x" in lines
    assert "espalier-sparse hybrid: 90.0% of the multiply-adds compiled" in lines
    assert "of the MAC rate became speed" not in lines
    drawn = chart(found, tmp_path / "times.svg").read_text()
    assert "espalier-sparse (hybrid)" in drawn
    assert found.started[:10] in drawn
    assert "1 thread:" in drawn


def test_a_chart_needs_a_time_and_a_format(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no engine was timed.*absent unavailable: absent not installed"):
        chart(own(engines=["absent"]), tmp_path / "times.png")
    with pytest.raises(ValueError, match=r"cannot write 'times.csv'.*\.pdf, \.svg, \.png"):
        chart(own(engines=["fast"]), tmp_path / "times.csv")


def test_an_entry_of_what_raised_holds_no_times() -> None:
    entry = Entry.of("peer", None, "fp32", contending.Outcome("failed", "RuntimeError: it broke"))
    assert (entry.status, entry.latency_ms_p50, entry.num_runs) == ("failed", None, 0)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([*WORDS, "engines=fst"], "engines=fst is not known; nearest: fast"),
        ([*WORDS, "threads=3"], "threads=3: this process may use 2 cores; give 1 to 2"),
        ([*WORDS, "threads=0"], "threads=0: this process may use 2 cores"),
        ([*WORDS, "threads=two"], "threads=two is no whole number"),
        ([*WORDS, "seed=1,2"], "seed=1,2: this takes one seed, such as seed=1"),
        ([*WORDS, "seed=99999999999999999999"], "seed=99999999999999999999 is too large; the largest seed is 4294967295"),
        ([*WORDS, "precision=bf16"], "precision=bf16: engines are compared at fp32; .*openvino-default-precision"),
        ([*WORDS, "constraint=binary"], "constraint=binary keeps no groups"),
        ([*WORDS, "thread=2"], "thread= is no word of bench; nearest: threads="),
        ([*WORDS, "rate=3"], r"rate= is given 2 times \(2, 3\); bench takes one value of it at a time"),
        (["model=", "rate=4"], "model= is empty; write one value, such as model=resnet50"),
        ([*WORDS, "constraint="], "constraint= is empty"),
        ([*WORDS, "precision="], "precision= is empty; write one value, such as precision=fp32"),
        ([*WORDS, "tune="], "tune= is empty"),
        ([*WORDS, "budget_s=0"], "budget_s=0 leaves no time"),
        ([*WORDS, "budget_s=nan"], "budget_s=nan leaves no time"),
        (["pruned.safetensors", "rate=4"], "rate speak of random masks.*model=NAME rate=R"),
        ([*WORDS, "group=8*4"], r"group=8\*4: write sizes with x between them, such as group=32x4"),
        (["model=resnet8_cifar", "rate=2", "engines=fast", "runs=9"], "runs=9: percentiles need 10 runs"),
        ([*WORDS, "budget_s=long"], "budget_s=long is no number"),
        ([*WORDS, "fallback=eager"], "fallback=eager is not known; there is torch"),
        ([*WORDS, "tune=maybe"], "tune=maybe is neither true nor false"),
        (["model=resnet8_cifar", "rate=0.9"], "rate=0.9 is not a pruning rate"),
        (["model=resnet8_cifer", "rate=2"], "model=resnet8_cifer is neither.*resnet8_cifar"),
        (["model=resnet8_cifar"], "model=resnet8_cifar gets random masks, which need rate="),
        (["rate=2"], "name one network: model=resnet50, or a run"),
        (["model=resnet8_cifar", "some/run"], "name one network"),
        (["no/such/run"], r"no run is called 'no/such/run'.*A network without a checkpoint is model=NAME rate=R"),
        (["no/such/run", "group=8x4"], "group speak of random masks"),
    ],
)
def test_bad_words_name_the_value_and_the_way_out(words: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bench_words(words)


def test_a_network_of_ones_own_takes_no_rate() -> None:
    with pytest.raises(ValueError, match="constraint and rate speak of random masks"):
        own(rate=2.0, constraint="filter")


def test_this_machine_counts_its_own_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    with pytest.raises(ValueError, match=rf"threads={devices.num_cores() + 1}"):
        bench("resnet8_cifar", rate=2.0, num_threads=devices.num_cores() + 1)


def test_words_are_completed() -> None:
    assert completion.complete_bench("thr") == ["threads="]
    assert "constraint=block_punched" in completion.complete_bench("constraint=block_p")


def test_a_chart_that_cannot_be_written_is_refused_before_anything_is_timed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"cannot write 'times.bmp': the ending says the format, one of .pdf, .svg, .png"):
        runner.invoke(cli.app, ["bench", *WORDS, "rate=none", "--to", "times.bmp"], catch_exceptions=False)
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"cannot write .*times\.pdf: .*file is no folder that can be written"):
        runner.invoke(cli.app, ["bench", *WORDS, "rate=none", "--to", str(tmp_path / "file" / "times.pdf")], catch_exceptions=False)
