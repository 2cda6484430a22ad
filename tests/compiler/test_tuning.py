"""Tuning: what is tried is right, the fastest by the clock is taken, and what was found is not searched again."""

import io
import json
import logging
import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch import Tensor, nn

from espalier.compiler import compile_model, searching, trials, tuning
from espalier.compiler.compiling import lowered_model
from espalier.compiler.isas import detect
from espalier.compiler.lowering import filters_search
from espalier.compiler.lowering.filters_rule import Choice
from espalier.compiler.lowering.kernel import Kernel
from espalier.compiler.lowering.site import Site
from espalier.compiler.lowering.templates import Way, first_ways, lowered_by, near_ways
from espalier.compiler.lowering.tiles import Tile
from espalier.compiler.program import site_of
from espalier.compiler.runtime.building import build
from espalier.compiler.searching import Tuned
from espalier.compiler.trials import Trial

TARGET = Choice(1, 2, Tile(2, 3))
Timer = Callable[[Trial, int, int], float]


class Net(nn.Module):
    """Two layers that are alike, one that is not, and one that nothing can be chosen for."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(32, 32, 3, padding=1) for _ in range(2))
        self.third = nn.Conv2d(32, 16, 1)
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.third(self.second(self.first(x).relu()).relu()).mean((2, 3)))


@pytest.fixture(autouse=True)
def _filters_template_takes_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dense 3x3 layers are here for template F's sake."""
    monkeypatch.setattr("espalier.compiler.lowering.convolutions.winograd_blocks", lambda *_: None)


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the libraries that all tests share: most of them compile the same."""
    return tmp_path_factory.mktemp("libraries")


@pytest.fixture(autouse=True)
def found_file(libraries: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the file of what is found, one a test; few candidates are tried."""
    monkeypatch.setenv("ESPALIER_CACHE", str(libraries))
    monkeypatch.setattr(trials, "build", lambda sources, isa, cache: build(sources, isa, cache=libraries))
    monkeypatch.setattr(tuning.OthersCpus, "used", lambda _: 0.0)
    monkeypatch.setattr(tuning, "FILE", f"{sum(map(ord, request.node.name))}-{len(request.node.name)}.json")
    monkeypatch.setattr(filters_search, "MOST_FIRST", 3)
    monkeypatch.setattr(filters_search, "SCHEDULE", {"by_filters": (False, True)})
    monkeypatch.setattr(searching, "first_ways", _first)
    return libraries / tuning.FILE


def _first(site: Site) -> list[Way]:
    return [*first_ways(site), Way("F", filters_search.asdict(TARGET))]


@pytest.fixture
def network() -> tuple[Net, Tensor]:
    torch.manual_seed(0)
    return Net().eval(), torch.randn(1, 32, 6, 6)


def rigged(fast: Choice = TARGET, gain: float = 2.0) -> Timer:
    """Return a clock by which the kernels of one choice take 1 / ``gain`` of what all others do."""

    def seconds(trial: Trial, number: int, repeats: int) -> float:
        choice = trial.kernels[number].choice
        return 1e-6 / gain if isinstance(choice, Choice) and replace(choice, by_filters=None) == fast else 1e-6

    return seconds


def choices(compiled: object) -> dict[str, object]:
    return {step.node.source: step.kernel.choice for step in compiled.program.steps if step.kernel.choice is not None}  # type: ignore[attr-defined]


def error(compiled: object, model: nn.Module, example: Tensor) -> float:
    with torch.inference_mode():
        wanted = model(example)
    return float((compiled(example) - wanted).abs().max() / wanted.abs().max())  # type: ignore[operator]


def no_search(*_: object, **__: object) -> None:
    raise AssertionError("a layer was searched")


def test_the_fastest_by_the_clock_is_in_the_program_and_gives_the_same(
    network: tuple[Net, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Trial, "seconds", rigged())
    model, example = network
    with compile_model(model, example) as usual, compile_model(model, example, tune=True) as compiled:
        assert TARGET not in choices(usual).values()
        assert {name: replace(choice, by_filters=None) for name, choice in choices(compiled).items()} == dict.fromkeys(
            choices(usual), TARGET
        )  # type: ignore[type-var]
        assert error(compiled, model, example) < 1e-5
        assert compiled.tuned
        assert compiled.tuning is not None
        assert not usual.tuned
        assert compiled.tuning.num_searched == 2  # first and second are alike
        assert {found.gain for found in compiled.tuning.found.values()} == {2.0}
        lines = {line.source: line for line in compiled.explain()}
    assert lines["second"].gain == 2.0
    assert lines["head"].gain is None
    assert "gM=16 gN=2 tile=2x3" in lines["second"].detail or detect().lanes != 16


@pytest.mark.parametrize("near", [False, True])
def test_the_rules_kernel_is_what_the_others_are_held_against(
    network: tuple[Net, Tensor], near: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = lowered_model(*network, isa=detect())
    number = next(number for number, step in enumerate(made.steps) if step.node.source == "first")
    site, rule = site_of(made, number), made.steps[number].kernel
    ways = [Way("F", filters_search.asdict(replace(TARGET, tile=Tile(1, columns)))) for columns in (2, 3, 4)]
    again = searching.way_of(rule)
    assert again is not None
    monkeypatch.setattr(searching, "first_ways", lambda _: [ways[0], again, ways[1]])
    monkeypatch.setattr(searching, "near_ways", lambda *_: [again, ways[2]] if near else [])
    times_us = {2: 2.0, 3: 3.0, 4: 1.0}  # of a tile of so many columns; the rule's takes longer than all

    def seconds(trial: Trial, number: int, repeats: int) -> float:
        choice = trial.kernels[number].choice
        assert isinstance(choice, Choice)
        return 1e-6 * (times_us[choice.tile.columns] if choice.tile.rows == 1 else 5.0)

    monkeypatch.setattr(Trial, "seconds", seconds)
    assert rule.choice.tile.rows > 1  # type: ignore[union-attr]
    found = searching.searched(site, rule, num_threads=1, other_bytes=0, deadline=math.inf)
    assert found is not None
    assert found == Tuned(ways[2] if near else ways[0], pytest.approx(5.0), pytest.approx(1.0 if near else 2.0), 4 if near else 3)


def test_weights_that_are_no_numbers_keep_the_rules_kernel(
    network: tuple[Net, Tensor], found_file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Trial, "seconds", rigged())
    model, example = network
    model.third.weight.data[1, 1] = math.nan
    with compile_model(model, example) as usual, compile_model(model, example, tune=True) as compiled:
        assert choices(compiled)["third"] == choices(usual)["third"]
        assert compiled.tuning is not None
        assert set(compiled.tuning.found) == {step.node.name for step in compiled.program.steps if step.node.source in ("first", "second")}
    warnings = [record.message for record in caplog.records if record.levelno >= logging.WARNING]
    assert [text.split(":")[0] for text in warnings] == ["third keeps the rule's kernel"]
    assert len(json.loads(found_file.read_text())["entries"]) == 1


def test_a_busy_machine_is_warned_of_once_where_something_was_tried(
    network: tuple[Net, Tensor], found_file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Trial, "seconds", rigged())
    monkeypatch.setattr(tuning.OthersCpus, "used", lambda _: 1.7)
    for _ in range(2):
        compile_model(*network, tune=True).close()
    (warning,) = (record.message for record in caplog.records if record.levelno >= logging.WARNING)
    assert warning == f"other processes used 1.7 CPUs while kernels were tried. The choice is kept; delete {found_file} to try again."


def test_the_real_clock_gives_the_same_outputs(network: tuple[Net, Tensor]) -> None:
    model, example = network
    with compile_model(model, example, tune=True, num_threads=2) as compiled:
        assert error(compiled, model, example) < 1e-5
        assert compiled.tuning is not None
        assert all(found.gain >= searching.MARGIN or found.way is None for found in compiled.tuning.found.values())
        assert all(found.rule_us > 0 for found in compiled.tuning.found.values())


def test_a_second_time_nothing_is_searched(network: tuple[Net, Tensor], found_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Trial, "seconds", rigged())
    with compile_model(*network, tune=True) as compiled:
        found = choices(compiled)
    entries = json.loads(found_file.read_text())["entries"]
    assert len(entries) == 2
    assert {"op", "shape", "weights", "attributes", "structure", "rate_bucket", "isa", "num_threads", "cpu_flags", "compiler"} <= next(
        iter(entries.values())
    )["layer"].keys()
    monkeypatch.setattr(tuning, "searched", no_search)
    shown = io.StringIO()
    with compile_model(*network, tune=True, tune_budget_s=0, console=Console(file=shown, force_terminal=True)) as compiled:
        assert choices(compiled) == found
        assert compiled.tuning is not None
        assert (compiled.tuning.num_searched, compiled.tuned) == (0, True)
    assert "layers tuned" not in shown.getvalue()


def test_other_threads_are_another_search(network: tuple[Net, Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Trial, "seconds", rigged())
    compile_model(*network, tune=True).close()
    monkeypatch.setattr(tuning, "searched", no_search)
    with pytest.raises(AssertionError, match="a layer was searched"):
        compile_model(*network, tune=True, num_threads=2)


@pytest.mark.parametrize(
    "name",
    ["searching.py", "trials.py", "isas.py", "layouts.py", "parts.py", "filters_loop.py", "espalier_runtime.h", "espalier_pool.c"],
)
def test_other_code_is_another_search(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before, read = tuning._code.__wrapped__(), Path.read_text
    monkeypatch.setattr(Path, "read_text", lambda path, **how: read(path, **how) + "changed" * (path.name == name))
    assert tuning._code.__wrapped__() != before


def test_other_flags_are_another_search(monkeypatch: pytest.MonkeyPatch) -> None:
    before = tuning._code.__wrapped__()
    monkeypatch.setattr(tuning, "FLAGS", (*tuning.FLAGS, "-O1"))
    assert tuning._code.__wrapped__() != before


def test_no_budget_leaves_the_rules_choices(network: tuple[Net, Tensor], found_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "searched", no_search)
    with compile_model(*network) as usual, compile_model(*network, tune=True, tune_budget_s=0) as compiled:
        assert choices(compiled) == choices(usual)
        assert compiled.tuning is not None
        assert len(compiled.tuning.left) == 3
        assert not compiled.tuned
    assert not found_file.exists()
    for wrong in (-1.0, math.nan):
        with pytest.raises(ValueError, match=f"tune_budget_s={wrong} is no time"):
            compile_model(*network, tune=True, tune_budget_s=wrong)


def test_weights_that_leave_the_caches_are_timed_so(network: tuple[Net, Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(tuning, "searched", lambda site, rule, *, other_bytes, **_: asked.append(other_bytes))
    made = lowered_model(*network, isa=detect())
    num_bytes = sum(array.nbytes for step in made.steps for array in step.kernel.arrays.values())
    for l2_bytes in (num_bytes // 2, num_bytes // 2 - 1):  # of each of two threads
        monkeypatch.setattr(tuning, "l2_bytes", lambda size=l2_bytes: size)
        tuning.tuned(made, num_threads=2)
    assert asked == [0, 0, *[2 * (num_bytes // 2 - 1)] * 2]


def test_the_heaviest_layers_come_first(network: tuple[Net, Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    searched = []
    monkeypatch.setattr(tuning, "searched", lambda site, rule, **_: searched.append(site.node.source))
    made = lowered_model(*network, isa=detect())
    tuning.tuned(made, num_threads=1)
    assert searched == ["first", "third"]


def test_a_damaged_file_or_entry_is_searched_anew(
    network: tuple[Net, Tensor], found_file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Trial, "seconds", rigged())
    found_file.write_text("{")
    with caplog.at_level(logging.WARNING), compile_model(*network, tune=True) as compiled:
        assert compiled.tuning is not None
        assert compiled.tuning.num_searched == 2
    assert "is damaged" in caplog.text
    content = json.loads(found_file.read_text())
    wrong = (
        {"way": {"template": "Z", "knobs": {}}},
        {"way": {"template": "F", "knobs": {"vectors": 1, "channels": 2, "tile": {"rows": 99, "columns": 1}}}},
    )
    for entry, change in zip(content["entries"].values(), wrong, strict=True):
        entry |= change
    found_file.write_text(json.dumps(content))
    with compile_model(*network, tune=True) as compiled:
        assert compiled.tuning is not None
        assert compiled.tuning.num_searched == 2
    assert "no template Z computes" in caplog.text
    assert "has no tile of 99x1" in caplog.text


@pytest.mark.parametrize("gain", [1.0, 1.02])
def test_what_wins_by_less_than_the_margin_stays_out(network: tuple[Net, Tensor], gain: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Trial, "seconds", rigged(gain=gain))
    with compile_model(*network) as usual, compile_model(*network, tune=True) as compiled:
        assert choices(compiled) == choices(usual)
        assert compiled.tuning is not None
        assert all(found.way is None and found.gain == 1.0 for found in compiled.tuning.found.values())
        assert compiled.tuned  # the rule's choices were tried, and stay


def test_what_gives_other_outputs_is_never_taken(
    network: tuple[Net, Tensor], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def lowered(site: Site, way: Way) -> Kernel:
        kernel = lowered_by(site, way)
        return replace(kernel, arrays={**kernel.arrays, "bias": kernel.arrays["bias"] + 1}) if kernel.choice == TARGET else kernel

    monkeypatch.setattr(searching, "lowered_by", lowered)
    monkeypatch.setattr(Trial, "seconds", rigged())
    with compile_model(*network, tune=True) as compiled:
        assert TARGET not in choices(compiled).values()
        assert error(compiled, *network) < 1e-5
    assert "differs from the rule's kernel by" in caplog.text


def test_what_does_not_compile_is_told_and_the_rule_stays(
    network: tuple[Net, Tensor], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(searching, "lowered_by", lambda site, way: replace(lowered_by(site, way), source="no C"))
    with compile_model(*network) as usual, compile_model(*network, tune=True) as compiled:
        assert choices(compiled) == choices(usual)
        assert not compiled.tuned
    assert "what was to be tried does not compile" in caplog.text


def test_a_long_search_shows_a_bar(network: tuple[Net, Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Trial, "seconds", rigged())
    monkeypatch.setattr(tuning, "late_bar", partial(tuning.late_bar, after_s=0.0))
    shown = io.StringIO()
    compile_model(*network, tune=True, console=Console(file=shown, force_terminal=True, width=120)).close()
    assert "layers tuned" in shown.getvalue()


@pytest.fixture(
    params=["pruned", "few-channels", "residual", "linear", "ragged-linear", "grouped", "pooled", "volume", "winograd", "spatial"]
)
def site(request: pytest.FixtureRequest) -> tuple[Site, Kernel]:
    """Return layers of every kind that template F computes, and their kernels by the rule."""
    torch.manual_seed(1)
    layers: dict[str, tuple[nn.Module, Tensor]] = {
        "pruned": (nn.Conv2d(16, 40, 3, 2, 1), torch.randn(1, 16, 11, 9)),
        "few-channels": (nn.Sequential(nn.Conv2d(3, 20, 5), nn.ReLU6()), torch.randn(1, 3, 9, 12)),
        "residual": (Residual(), torch.randn(1, 32, 5, 7)),
        "linear": (nn.Sequential(nn.Linear(24, 64), nn.GELU()), torch.randn(1, 10, 24)),
        "ragged-linear": (nn.Linear(24, 40), torch.randn(1, 10, 24)),
        "pooled": (nn.Sequential(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)), torch.randn(1, 16, 8, 12)),
        "winograd": (nn.Sequential(nn.Conv2d(32, 40, 3, padding=1), nn.SiLU()), torch.randn(1, 32, 9, 10)),
        "volume": (nn.Conv3d(16, 32, 3, padding=1), torch.randn(1, 16, 2, 3, 5)),
        "spatial": (nn.Conv2d(16, 40, 3, padding=1), torch.randn(1, 16, 20, 33)),
        "grouped": (nn.Conv2d(32, 32, 3, padding=1, groups=4), torch.randn(1, 32, 6, 6)),
    }
    model, example = layers[request.param]
    if request.param in ("pruned", "spatial"):
        model.weight.data *= (torch.rand(5, 4, 3, 3) < 0.3).repeat_interleave(8, 0).repeat_interleave(4, 1)  # type: ignore[operator]
    made = lowered_model(model.eval(), example, isa=detect())
    number = next(number for number, step in enumerate(made.steps) if step.node.op in ("conv", "linear"))
    return site_of(made, number), made.steps[number].kernel


def dense_3x3(site: Site) -> bool:
    """Return whether template W is to compute a layer: the grouped one has zeros, others another kernel, a pool or few channels."""
    weight = site.graph.constants[site.node.constants["weight"]]
    return weight.shape[-2:] == (3, 3) and site.node["groups"] == 1 and not site.node.attributes.get("pool")


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(32, 32, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return (self.conv(x) + x).relu()


def test_without_winograd_none_is_tried(site: tuple[Site, Kernel]) -> None:
    where, rule = site
    barred = replace(where, isa=replace(where.isa, winograd=False))
    assert {way.template for way in first_ways(barred)} - {"S"} == {"F"}
    assert set(tuning.facts_of(barred, rule, 1)["templates"]) - {"S"} == {"F"}
    assert tuning.facts_of(where, rule, 1)["templates"] == list(dict.fromkeys(way.template for way in first_ways(where)))


@pytest.mark.parametrize(("num_threads", "other_bytes"), [(1, 0), (3, 1 << 16)])
def test_everything_that_is_tried_gives_the_same(site: tuple[Site, Kernel], num_threads: int, other_bytes: int) -> None:
    where, rule = site
    ways = first_ways(where)
    assert [way.template for way in ways].count("F") == 3
    if where.node.shape == (1, 40, 20, 33) and where.isa.lanes == 16:
        assert ways[-1].template == "S"
    assert ("W" in [way.template for way in ways]) == (
        where.graph.mask(where.node) is None and where.node.op == "conv" and dense_3x3(where)
    )
    ways = [
        json.loads(json.dumps({"template": way.template, "knobs": way.knobs}))
        for way in [*ways, *near_ways(where, ways[0]), *near_ways(where, ways[-1])]
    ]
    kernels = [rule, *(lowered_by(where, Way(**way)) for way in ways)]
    with Trial(where, kernels, num_threads=num_threads, other_bytes=other_bytes) as trial:
        wanted = trial.output(0)
        assert wanted.any()
        for number, kernel in enumerate(kernels):
            assert abs(trial.output(number) - wanted).max() < 1e-5 * abs(wanted).max(), kernel.detail
            assert 0 < trial.seconds(number, 2) < 1


def test_what_was_found_survives_json_and_nothing_else_does() -> None:
    found = Tuned(Way("F", filters_search.asdict(TARGET)), 3.0, 2.0, 7)
    assert Tuned.of(json.loads(json.dumps(found.as_json()))) == found
    assert Tuned.of(json.loads(json.dumps(Tuned(None, 3.0, 3.0, 7).as_json()))).way is None
    whole = found.as_json()
    changes: list[dict[str, object]] = [{"way": 3}, {"way": {"template": 3, "knobs": {}}}, {"way": {"template": "F", "knobs": [1]}}]
    changes += [{"best_us": us} for us in (0, -1.0, math.inf, math.nan, 10**400, True, "2")]
    changes += [{"rule_us": us} for us in (math.inf, "fast")]
    changes += [{"num_tried": number} for number in (math.inf, math.nan, 0, 7.5, True, "7")]
    for wrong in ({}, *({**whole, **change} for change in changes)):
        with pytest.raises((KeyError, TypeError, ValueError)):
            Tuned.of(wrong)


def test_knobs_are_of_their_own_types(network: tuple[Net, Tensor]) -> None:
    made = lowered_model(*network, isa=detect())
    where = site_of(made, next(number for number, step in enumerate(made.steps) if step.node.source == "first"))
    usual = filters_search.asdict(replace(TARGET, tile=Tile(1, 2)))
    assert lowered_by(where, Way("F", usual)).choice == _choice_of(usual)
    blocks = next(way.knobs for way in first_ways(where) if way.template == "W")
    assert lowered_by(where, Way("W", blocks)).template == "W"
    wrong = [
        Way("F", usual | {"tile": {"rows": True, "columns": 2, "planes": 1}}),
        Way("F", usual | {"tile": {"rows": 1.0, "columns": 2, "planes": 1}}),
        Way("F", usual | {"vectors": True}),
        Way("F", usual | {"by_filters": 1}),
        Way("F", usual | {"resident_bytes": 1e6}),
        Way("F", usual | {"resident_bytes": 0}),
        Way("W", blocks | {"planes": True}),
        Way("W", blocks | {"groups": 1.0}),
    ]
    for way in wrong:
        with pytest.raises(ValueError, match=f"{way.template} does not take .* for "):
            lowered_by(where, way)


def _choice_of(knobs: dict[str, object]) -> Choice:
    return Choice(**{**knobs, "tile": Tile(**knobs["tile"])})  # type: ignore[arg-type]
