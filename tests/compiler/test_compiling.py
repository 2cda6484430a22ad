"""Whole networks through the compiler: they give what PyTorch gives, on every instruction set, whatever was pruned."""

import math
import resource
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from random_networks import networks, relative_error, settle
from torch import Tensor, nn

from espalier.compiler import compile_model
from espalier.compiler.isas import ISAS
from espalier.constraints.structures import KGS
from espalier.devices import cpu
from espalier.interface import prune

RUNNABLE = [isa.name for isa in ISAS.values() if set(isa.flags) <= set(cpu().flags)]
STRUCTURES = ("block_punched", "block_column", "filter", "channel", "column", "vanilla", "unstructured")


class Net(nn.Module):
    """Two images' worth of everything that is common: strides, groups, depthwise, residuals, a pool and a linear layer."""

    def __init__(self, width: int = 40) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3, 2, 1), nn.BatchNorm2d(width), nn.ReLU6())
        self.grouped = nn.Conv2d(width, width, 3, padding=1, groups=4)
        self.depthwise = nn.Conv2d(width, width, 5, padding=2, groups=width)
        self.mix = nn.Conv2d(width, width, 1)
        self.down = nn.Conv2d(width, 2 * width, 3, 2, 1, bias=False)
        self.head = nn.Linear(2 * width * 9, 7)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = (self.mix(torch.nn.functional.silu(self.depthwise(x))) + self.grouped(x)).relu()
        x = torch.nn.functional.max_pool2d(self.down(x), 2, 2, 1)
        return self.head(torch.nn.functional.adaptive_avg_pool2d(x, 3).flatten(1))


class Negated(nn.Module):
    """-x."""

    def forward(self, x: Tensor) -> Tensor:
        return -x


@pytest.fixture(scope="module", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ESPALIER_CACHE", str(tmp_path_factory.mktemp("compiled")))
        yield


def net() -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    return Net().eval(), torch.randn(1, 3, 21, 17)


def check(model: nn.Module, example: Tensor, *, num_threads: int = 1, isa: str | None = None, dense: bool = False) -> None:
    with torch.inference_mode():
        wanted = model(example)
    with compile_model(model, example, num_threads=num_threads, isa=isa, dense=dense) as compiled:
        assert relative_error(compiled(example), wanted) < 1e-4
        assert torch.equal(compiled(example), compiled(example))


@pytest.mark.parametrize("isa", RUNNABLE)
@pytest.mark.parametrize("num_threads", [1, 3])
def test_a_network_gives_what_pytorch_gives(isa: str, num_threads: int) -> None:
    check(*net(), num_threads=num_threads, isa=isa)


class Tokens(nn.Module):
    """Linear layers of ragged width over several rows, with and without a residual and an activation."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(12, 21), nn.Linear(21, 21), nn.Linear(21, 37)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.nn.functional.gelu(self.first(x))
        return self.last((x + self.second(x)).relu())


@pytest.mark.parametrize("isa", RUNNABLE)
def test_rows_of_ragged_length_go_through_template_f(isa: str) -> None:
    torch.manual_seed(0)
    model, example = Tokens().eval(), torch.randn(1, 19, 12)
    check(model, example, num_threads=2, isa=isa)
    with compile_model(model, example, isa=isa) as compiled:
        assert [(line.op, line.template) for line in compiled.explain()] == [("input", "copy")] + [("linear", "F")] * 3


@pytest.mark.slow
def test_pixels_that_two_threads_compute_are_activated_once() -> None:
    """17 pixels make two tiles of nine: both threads give the one in the middle, and neither may take the other's result for a sum."""
    torch.manual_seed(0)
    model, example = nn.Sequential(nn.Conv1d(8, 32, 1), nn.GELU()).eval(), torch.randn(1, 8, 17)
    with compile_model(model, example, num_threads=2) as compiled:
        wanted = compiled(example).clone()
        assert all(torch.equal(compiled(example), wanted) for _ in range(30_000))
    assert relative_error(wanted, model(example).detach()) < 1e-5


@pytest.mark.parametrize("structure", STRUCTURES)
def test_a_pruned_network_gives_what_its_masked_form_gives(structure: str) -> None:
    model, example = net()
    pruned = prune(model, constraint=structure, rate=3, skip=("stem.0", "head", "depthwise"))
    check(pruned, example)


def test_pruning_in_whole_blocks_carries_out_that_share_of_the_multiplications() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 64, 3, padding=1)).eval()
    for layer in (model[0], model[2]):
        kept = torch.rand(2, layer.weight.shape[1] // 4, 3, 3) < 0.25
        layer.weight.data *= kept.repeat_interleave(32, 0).repeat_interleave(4, 1)
    example = torch.randn(1, 32, 8, 8)
    with compile_model(model, example, isa="avx512" if "avx512" in RUNNABLE else None) as compiled:
        convs = [line for line in compiled.explain() if line.op == "conv"]
        nonzero = [int(layer.weight.count_nonzero()) * 64 for layer in (model[0], model[2])]
        assert [line.macs for line in convs] == nonzero
        assert all("32x4" in line.structure for line in convs)
    with compile_model(model, example, dense=True) as compiled:
        lines = [line for line in compiled.explain() if line.op == "conv"]
        assert [line.macs_dense for line in lines] == [32 * 64 * 9 * 64, 64 * 64 * 9 * 64]
        assert [line.macs for line in lines] == [32 * 64 * 36 * 4, 64 * 64 * 36 * 4]  # four tiles of 4x4 pixels by Winograd's filtering
    with compile_model(model, example, dense=True, winograd=False) as compiled:
        assert [line.macs for line in compiled.explain() if line.op == "conv"] == [32 * 64 * 9 * 64, 64 * 64 * 9 * 64]
        assert relative_error(compiled(example), model(example).detach()) < 1e-4


@pytest.mark.parametrize("isa", RUNNABLE)
@pytest.mark.parametrize("num_threads", [1, 3])
def test_dense_layers_are_computed_by_winograds_filtering_and_pruned_ones_never(isa: str, num_threads: int) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(32, 40, 3, padding=1), nn.ReLU(), nn.Conv2d(40, 64, 3, padding=1), nn.Hardswish()).eval()
    model[2].weight.data *= (torch.rand(64, 10, 3, 3) < 0.3).repeat_interleave(4, 1)
    example = torch.randn(1, 32, 19, 13)

    def templates(*, dense: bool) -> list[str]:
        with compile_model(model, example, num_threads=num_threads, isa=isa, dense=dense) as compiled:
            assert relative_error(compiled(example), model(example).detach()) < 1e-4
            assert torch.equal(compiled(example), compiled(example))
            return [line.template for line in compiled.explain() if line.op == "conv"]

    assert templates(dense=False) == ["W", "F"]
    assert templates(dense=True) == ["W", "W"]


@pytest.mark.parametrize("num_threads", [1, 3])
@pytest.mark.parametrize(("isa", "filters"), [("avx512", 8), ("avx2", 4)])
def test_layers_pruned_in_groups_that_vectors_outgrow_have_their_pixels_in_the_lanes(isa: str, filters: int, num_threads: int) -> None:
    if isa not in RUNNABLE:
        pytest.skip(f"this machine has no {isa}")
    torch.manual_seed(0)
    layers = (nn.Conv2d(64, 128, 3, padding=1), nn.SiLU(), nn.Conv2d(128, 104, 3, padding=2, dilation=2), nn.Sigmoid())
    model = prune(nn.Sequential(*layers, nn.Conv2d(104, 64, 3, 2, 1)).eval(), constraint=KGS.sized([filters, 4]), rate=4)
    example = torch.randn(1, 64, 28, 30)
    with compile_model(model, example, num_threads=num_threads, isa=isa) as compiled:
        lines = [line for line in compiled.explain() if line.op == "conv"]
        assert [line.template for line in lines] == ["S", "S", "F"]  # F takes stride 2
        assert all(line.detail.startswith(f"gM={filters} gN=4 vectors=") for line in lines[:2])
        kept = [int(layer.weight.count_nonzero()) * 28 * 30 for layer in (model[0], model[2])]
        assert [line.macs for line in lines[:2]] == kept
        with torch.inference_mode():
            assert relative_error(compiled(example), model(example)) < 1e-5
        assert torch.equal(compiled(example), compiled(example))


def test_a_filter_that_is_wholly_pruned_still_gives_its_bias() -> None:
    model, example = nn.Sequential(nn.Conv2d(8, 40, 3, padding=1), nn.Sigmoid()).eval(), torch.randn(1, 8, 5, 5)
    model[0].weight.data[:33] = 0
    check(model, example)


@pytest.mark.parametrize("activation", [nn.Hardtanh(-0.5, 0.25), nn.LeakyReLU(0.3), nn.LeakyReLU(-2.0), Negated()], ids=str)
def test_functions_with_numbers_of_their_own_go_into_layers(activation: nn.Module) -> None:
    """Into convolutions, linear layers of one row and of several, and batch norms; no kernel is left for the function itself."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv1d(3, 32, 1), activation, nn.MaxPool1d(2), nn.BatchNorm1d(32), activation, nn.Linear(4, 16), activation)
    model = nn.Sequential(*model, nn.Flatten(), nn.Linear(512, 5), activation).eval()
    settle(model)
    example = torch.randn(1, 3, 8)
    with compile_model(model, example) as compiled:
        lines = compiled.explain()
        assert [line.op for line in lines if line.op not in ("input", "convert")] == ["conv", "max_pool", "affine", "linear", "linear"]
        assert relative_error(compiled(example), model(example).detach()) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("isa", RUNNABLE)
@given(drawn=networks(pruned=True))
@settings(max_examples=25, deadline=None, phases=[Phase.generate], suppress_health_check=[*HealthCheck])
def test_random_networks_give_what_pytorch_gives(isa: str, drawn: tuple[nn.Module, Tensor]) -> None:
    check(*drawn, isa=isa, num_threads=2)


@pytest.mark.slow
@pytest.mark.parametrize("isa", RUNNABLE)
def test_a_map_of_more_lines_than_tasks_becomes_row_major(isa: str) -> None:
    model = nn.Sequential(nn.MaxPool2d(2), nn.Flatten())  # a line is one square of vectors: a loop of one turn behind those shared
    x = torch.randn(1, 1024, 6, 6, generator=torch.Generator().manual_seed(0))
    with compile_model(model, x, isa=isa, num_threads=2) as compiled:
        assert torch.equal(compiled(x), model(x))


def test_two_threads_call_two_networks_at_once_and_one_is_called_ten_thousand_times() -> None:
    model, example = net()
    with compile_model(model, example) as first, compile_model(model, example) as second:
        wanted, wrong = first(example).clone(), []

        def call(compiled: object) -> None:
            wrong.extend(number for number in range(500) if not torch.equal(compiled(example), wanted))  # type: ignore[operator]

        callers = [threading.Thread(target=call, args=(compiled,)) for compiled in (first, second)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
        assert not wrong
        out = torch.empty_like(wanted)
        for _ in range(100):
            first(example, out=out)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for _ in range(10_000):
            first(example, out=out)
        assert torch.equal(out, wanted)
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2_000  # kB


def test_every_kernel_is_explained_and_timed() -> None:
    model, example = net()
    with compile_model(model, example) as compiled:
        lines = compiled.explain(num_runs=3)
    assert {line.source for line in lines} >= {"stem.0", "grouped", "depthwise", "mix", "down", "head"}
    assert all(line.microseconds is not None and line.microseconds > 0 for line in lines)
    assert next(line for line in lines if line.source == "head").template == "V"


@pytest.mark.parametrize("name", [name for name, isa in ISAS.items() if isa.inline_loop])
def test_the_asm_loop_and_the_portable_one_agree(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if not set(cpu().flags).issuperset(ISAS[name].flags):
        pytest.skip(f"this CPU has no {name}")
    model, example = net()
    with compile_model(model, example, isa=name) as compiled:
        blocks = compiled(example).clone()
        assert any("__asm__" in text for text in compiled.emitted.files.values())
    monkeypatch.setitem(ISAS, name, replace(ISAS[name], inline_loop=False))
    with compile_model(model, example, isa=name) as compiled:
        assert not any("__asm__" in text for text in compiled.emitted.files.values())
        assert relative_error(compiled(example), blocks) < 1e-6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"isa": "avx1024"}, "isa=avx1024 is not known; there are avx512, avx2, generic"),
        ({"num_threads": 0}, "num_threads=0: this process may use"),
    ],
)
def test_what_cannot_be_asked_for_names_the_way_out(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        compile_model(*net(), **arguments)  # type: ignore[arg-type]


def test_nothing_of_a_models_names_reaches_the_c_text(tmp_path: Path) -> None:
    model = nn.Sequential()
    model.add_module("main();//", nn.Conv2d(3, 8, 3))
    with compile_model(model.eval(), torch.randn(1, 3, 5, 5), cache=tmp_path) as compiled:
        assert not any("main" in text for text in compiled.emitted.files.values())


@pytest.mark.parametrize("fallback", [None, "torch"])
def test_several_samples_are_refused_with_layer_shape_and_what_to_pass(fallback: str | None) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).eval()
    if fallback:
        model.append(Cumulated())
    with pytest.raises(ValueError, match=r"conv of 0 sees 2 samples.*\(2, 3, 6, 6\).*pass example\[:1\], and call"):
        compile_model(model, torch.zeros(2, 3, 6, 6), fallback=fallback)


class Cumulated(nn.Module):
    """An operator that the compiler lacks."""

    def forward(self, x: Tensor) -> Tensor:
        return x.sort(dim=3).values


def test_a_call_with_several_samples_says_to_pass_one() -> None:
    said = r"shape \(2, 3, 6, 6\), the network was compiled for \(1, 3, 6, 6\); pass one sample in each call"
    with compile_model(nn.Conv2d(3, 4, 3).eval(), torch.zeros(1, 3, 6, 6)) as compiled, pytest.raises(ValueError, match=said):
        compiled(torch.zeros(2, 3, 6, 6))


def test_rows_of_a_linear_layer_are_no_samples_of_a_map() -> None:
    x, model = torch.randn(3, 8, generator=torch.Generator().manual_seed(0)), nn.Linear(8, 5).eval()
    with compile_model(model, x) as compiled, torch.no_grad():
        assert relative_error(compiled(x), model(x)) < 1e-5


def test_borders_along_one_axis_each_are_zeroed_where_their_own_map_has_them() -> None:
    layers = [
        nn.Conv2d(16, 32, 1),
        nn.Conv2d(32, 8, (1, 3), padding=(0, 1)),
        nn.Conv2d(8, 32, 1),
        nn.Conv2d(32, 16, (3, 1), padding=(1, 0)),
    ]
    model = nn.Sequential(*(part for layer in layers for part in (layer, nn.ReLU())), nn.Conv2d(16, 16, 1)).eval()
    check(model, torch.randn(1, 16, 8, 8))


def test_a_convolution_of_one_channel_is_no_depthwise_one() -> None:
    torch.manual_seed(0)
    check(nn.Sequential(nn.Conv2d(1, 1, 3)).eval(), torch.randn(1, 1, 9, 9))
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 1, 3, padding=1), nn.ReLU(), nn.Conv2d(1, 1, 3, padding=1), nn.MaxPool2d(2)
    )
    check(model.eval(), torch.randn(1, 1, 12, 12))


@pytest.mark.parametrize("isa", RUNNABLE)
@pytest.mark.parametrize("last", [nn.ReLU(), nn.ReLU6(), nn.MaxPool2d(2), nn.Identity()], ids=["relu", "relu6", "pool", "none"])
def test_what_is_not_a_number_comes_out_as_in_pytorch(last: nn.Module, isa: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(16, 32, 1), last).eval()
    example = torch.randn(1, 16, 4, 6)
    example[0, 3, 1, 2] = math.nan
    with compile_model(model, example, isa=isa) as compiled, torch.no_grad():
        assert torch.equal(compiled(example).isnan(), model(example).isnan())


def test_the_processs_defaults_change_nothing(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(3, 16, 3), Scaled(), nn.Flatten(), nn.Linear(16 * 36, 5)).eval()
    x = torch.randn(1, 3, 8, 8)
    with torch.no_grad():
        wanted = model(x)
    usual = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with compile_model(model, x, cache=str(tmp_path)) as network:  # type: ignore[arg-type]  # a folder by its name
            got = network(x)
            with torch.device("meta"):
                placed = network(x)
    finally:
        torch.set_default_dtype(usual)
    assert (got.dtype, got.device.type) == (torch.float32, "cpu")
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)
    assert torch.equal(placed, got)


class Scaled(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2 + 3
