"""Networks read from PyTorch: they compute what the model does, and what cannot be read is listed whole."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from random_networks import networks, relative_error
from torch import Tensor, nn

from espalier.compiler.front import read_model
from espalier.compiler.missing import MissingOperatorsError
from espalier.compiler.reference import evaluate


class Calls(nn.Module):
    """A model that is one function."""

    def __init__(self, function: Callable[[Tensor], Tensor | tuple[Tensor, ...]]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        return self.function(x)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(networks())
def test_a_random_network_is_read_as_it_computes(drawn: tuple[nn.Module, Tensor]) -> None:
    model, x = drawn
    with torch.no_grad():
        wanted = model(x)
    (got,) = evaluate(read_model(model, x), x)
    assert relative_error(got, wanted) < 1e-5


MAP = (1, 4, 7, 8)
FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "alpha": lambda x: torch.add(x, x.relu(), alpha=2) - torch.sub(1.0, x, alpha=3) + torch.sub(x, 2.0, alpha=0.5),
    "divisions": lambda x: x / 3 + 2 / (x.abs() + 1) + x / (x.abs() + 1),
    "constants on the left": lambda x: torch.linspace(0, 1, 8) - x * torch.linspace(0, 1, 8),
    "powers": lambda x: x**2 + x**3 + x.abs() ** 0.5 + torch.rsqrt(x.abs() + 1) + torch.reciprocal(x.abs() + 1) + x.square(),
    "bounds": lambda x: x.clamp(-0.5, 0.25) + x.clamp(min=0) + F.relu6(10 * x) + F.hardtanh(x) + x.clamp_max(0.1),
    "gates": lambda x: F.gelu(x) + F.gelu(x, approximate="tanh") + F.mish(x) + F.silu(x) + F.hardsigmoid(x) + F.hardswish(x),
    "exp, sqrt, neg, abs": lambda x: -(x.exp().sqrt()) + x.abs() + F.leaky_relu(x, 0.1),
    "sums": lambda x: x.sum((2, 3), keepdim=True) + x.sum() + x.mean() + x.mean(1, keepdim=True),
    "norms": lambda x: F.normalize(x, dim=1) + x.norm(dim=(2, 3), keepdim=True) + F.rms_norm(x, (8,)),
    "layer and group norm": lambda x: F.layer_norm(x, (7, 8)) + F.group_norm(x, 2),
    "softmax": lambda x: x.softmax(1) + x.softmax(-1),
    "split": lambda x: torch.cat([*x.split([1, 3], 1), torch.cat(x.chunk(3, 2)[::-1], 2), *x.split(3, 1)], 1),
    "unbind and stack": lambda x: torch.stack(x.unbind(1)[::-1], -1),
    "slices": lambda x: x[:, 1:, ::2, -3:] + x[:, :3, 0, None, 2:5] + x.narrow(1, 1, 3).select(3, 1).unsqueeze(-1)[:, :, :4],
    "expand and repeat": lambda x: x[:, :1].expand(-1, 4, -1, -1) + x[:, :2].repeat(1, 2, 1, 1),
    "repeat each": lambda x: x[:, :2].repeat_interleave(2, 1).type_as(x) + x[..., :4].repeat_interleave(2, dim=-1),
    "pads": lambda x: F.pad(x, (1, 2, 0, 1), value=0.5) + F.pad(F.pad(x, (3, 3, 2, 2)), (-2, -1, -2, -1)),
    "views": lambda x: x.flatten(1).view(1, 8, 28).transpose(1, 2).unflatten(1, (7, 4)).permute(0, 2, 3, 1).squeeze(0).contiguous(),
    "roll": lambda x: x.roll((2, -3), (2, 3)),
    "in place": lambda x: _written(x.clone()),
    "slices written": lambda x: _assigned(x.clone()),
    "slices that hold nothing": lambda x: _assigned_nothing(x.clone()),
    "written from other types": lambda x: _assigned_others(x.clone()),
    "pixel shuffle": lambda x: F.pixel_shuffle(x, 2),
    "pools": lambda x: F.max_pool2d(x, 2, 2, ceil_mode=True) + F.avg_pool2d(x, 3, 2, 1),
    "ceiled pools": lambda x: F.max_pool2d(x, 3, 2, 1, ceil_mode=True)[:, :, :4, :4] + F.avg_pool2d(x, 2, 2, ceil_mode=True),
    "counted border": lambda x: F.avg_pool2d(x, 3, 1, 1) + F.avg_pool2d(x, 3, 1, 1, count_include_pad=False),
    "dilated pool": lambda x: F.max_pool2d(x, 2, 1, dilation=2),
    "adaptive pools": lambda x: F.adaptive_avg_pool2d(x, 1) + F.adaptive_avg_pool2d(x, (7, 8)) + F.adaptive_avg_pool2d(x, (7, 2)).sum(),
    "uneven pools": lambda x: F.adaptive_avg_pool2d(x, (3, 4)) + F.adaptive_max_pool2d(x, (7, 4)).mean(),
    "nearest": lambda x: F.interpolate(x, scale_factor=2) + F.interpolate(x, (14, 16)),
    "bilinear": lambda x: F.interpolate(x, scale_factor=2, mode="bilinear") + F.interpolate(x, (14, 16), mode="bilinear").relu(),
    "bilinear, corners": lambda x: F.interpolate(x, (5, 20), mode="bilinear", align_corners=True),
    "matrices": lambda x: x @ x.transpose(2, 3) @ torch.ones(7, 3),
    "attention": lambda x: F.scaled_dot_product_attention(x, x, x, is_causal=True) + F.scaled_dot_product_attention(x, x, x, scale=0.5),
    "masked attention": lambda x: F.scaled_dot_product_attention(x, x, x, torch.eye(7, dtype=torch.bool)),
    "added mask": lambda x: F.scaled_dot_product_attention(x, x, x, torch.eye(7)),
    "nothing of the input": lambda x: torch.arange(4.0).view(1, 4)[:, [2, 0]],
    "same padding": lambda x: F.conv2d(x, torch.ones(2, 4, 2, 3), padding="same", dilation=2),
    "no padding": lambda x: F.conv2d(x, torch.ones(2, 4, 7, 8), padding="valid"),
    "one dimension": lambda x: F.conv1d(x.flatten(2), torch.ones(4, 1, 3), groups=4, stride=2),
    "addmm": lambda x: torch.addmm(torch.ones(3), x.flatten(0, 2), torch.ones(8, 3)),
    "filled": lambda x: torch.zeros_like(x) + x.new_full((7, 8), 2.0) + torch.ones_like(x) * x + x.new_zeros(8) + torch.full_like(x, 3.0),
    "addcmul": lambda x: torch.addcmul(x, x, x.relu(), value=0.5),
    "weight from the input": lambda x: F.linear(x, x[0, 0], torch.ones(7)),
}  # fmt: skip


def _written(x: Tensor) -> Tensor:
    view = x[:, 1:3]
    view.relu_().add_(1.0)
    x[:, :, 2] = 0.5
    return x.mul_(2.0)


def _assigned_nothing(x: Tensor) -> Tensor:
    x[:, 3:2] = x.mean()
    x[:, :, 3:-4] = x[:, :, 3:-4]
    x[:, 3:2] = 1.0
    return x


def _assigned_others(x: Tensor) -> Tensor:
    x[:, 0] = torch.tensor([True, False] * 4)
    x[:, 1, 0].copy_(torch.full((8,), 2**62))
    x[:, 1, 1].fill_(torch.tensor(True))
    x[:, 2] = torch.linspace(0, 1, 8).half()
    x[:, 3, 1].zero_()
    halves = x.clone().copy_(torch.linspace(0, 1, 8).half())
    return x + x + halves.sigmoid() * x.new_zeros(8).copy_(torch.arange(8) % 2 == 0)


def _assigned(x: Tensor) -> Tensor:
    x[:, 0] -= 3.0
    x[:, 1, 2:4] = x[:, 2, :2]
    x[:, 3, :, 1:3] = x.mean()
    x[:, :2, 0].copy_(x[:, 2:, 1])
    return x * 2.0


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")  # torch's own way to do it, in eager mode
@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS.keys())
def test_an_operator_is_read_as_it_computes(function: Callable[[Tensor], Tensor]) -> None:
    x = torch.randn(MAP, generator=torch.Generator().manual_seed(0))
    wanted = function(x)
    (got,) = evaluate(read_model(Calls(function), x), x)
    assert relative_error(got, wanted) < 1e-5


def test_inputs_and_outputs_keep_their_order() -> None:
    class Two(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            return y - x, torch.ones(2), x

    x, y = torch.randn(2, 3), torch.randn(2, 3)
    graph = read_model(Two(), (x, y))
    assert [node["index"] for node in graph.inputs] == [0, 1]
    assert [tensor.tolist() for tensor in evaluate(graph, x, y)] == [(y - x).tolist(), [1, 1], x.tolist()]


def test_an_input_that_nothing_reads_stays() -> None:
    class Second(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return y.relu()

    assert len(read_model(Second(), (torch.zeros(1), torch.zeros(1))).inputs) == 2


def test_what_needs_no_input_is_computed_once() -> None:
    table = nn.Parameter(torch.randn(5, 3))
    model = Calls(lambda x: x + table[torch.arange(4).flip(0)].t().contiguous().sum(1))
    model.table = table
    graph = read_model(model, torch.zeros(1, 3))
    assert [node.op for node in graph] == ["input", "binary"]


def test_nodes_say_where_they_come_from_and_bear_none_of_the_models_names() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.quoted_stem = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())

        def forward(self, x: Tensor) -> Tensor:
            return self.quoted_stem(x) + 1

    graph = read_model(Net(), torch.zeros(1, 3, 5, 5))
    assert [(node.op, node.source) for node in graph] == [
        ("input", ""),
        ("conv", "quoted_stem.0"),
        ("unary", "quoted_stem.1"),
        ("binary", ""),
    ]
    file, _, line = graph.nodes[-1].line.rpartition(":")
    assert Path(file).read_text().splitlines()[int(line) - 1].strip() == "return self.quoted_stem(x) + 1"
    assert not any("quoted" in text for node in graph for text in (node.name, *node.constants.values()))


def test_a_shared_weight_is_one_constant() -> None:
    layer = nn.Linear(4, 4)
    graph = read_model(nn.Sequential(layer, nn.ReLU(), layer), torch.zeros(1, 4))
    assert len(graph.constants) == 2
    assert [node.constants["weight"] for node in graph if node.op == "linear"] == [next(iter(graph.constants))] * 2


class Odd(nn.Module):
    """Two operators that the compiler lacks, one of them twice, beside a convolution that it has."""

    class Sorting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x).sort(-1)[0]

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.stem = Odd.Sorting(), Odd.Sorting(), nn.Conv2d(3, 3, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.second(self.first(self.stem(x)))
        return F.pad(x, (1, 1, 1, 1), mode="reflect") + (x.sum() > 0)


def test_a_refusal_lists_all_that_is_missing_at_once() -> None:
    with pytest.raises(MissingOperatorsError) as refused:
        read_model(Odd(), torch.zeros(1, 3, 4, 4))
    assert {(call.operator, call.source) for call in refused.value.missing} == {
        ("aten.sort.default", "first"),
        ("aten.sort.default", "second"),
        ("aten.pad.default", ""),
        ("aten.gt.Scalar", ""),
    }
    assert refused.value.share == pytest.approx(2 / 3)
    message = str(refused.value)
    assert "aten.sort.default in first, second at " in message
    assert f"{Path(__file__)}:" in message
    assert "aten.pad.default (its mode is reflect; there is constant) in the model itself" in message
    assert "do 67% of its multiply-adds. fallback='torch'" in message


@pytest.mark.parametrize(
    ("model", "x", "says"),
    [
        (nn.ConvTranspose2d(2, 2, 2), torch.zeros(1, 2, 4, 4), "aten.conv_transpose2d.input"),
        (nn.BatchNorm2d(2, track_running_stats=False), torch.zeros(1, 2, 4, 4), "aten._native_batch_norm_legit.no_stats"),
        (Calls(lambda x: x + torch.rand(2)), torch.zeros(1, 2), "aten.rand.default .it draws at random"),
        (Calls(lambda x: x.double() + 1), torch.zeros(1, 2), "gives torch.float64"),
        (Calls(lambda x: x), None, "the example holds NoneType; pass a tensor, or a tuple of the tensors"),
        (Calls(lambda x: SimpleNamespace(a=x)), torch.zeros(1, 2), "an object that torch.export does not know; return tuples"),
        (nn.Bilinear(2, 2, 1), torch.zeros(1, 2), "Bilinear does not take 1 arguments: missing a required argument: 'input2'"),
        (nn.Conv2d(2, 2, 1), torch.zeros(2, 4, 4), "3 axes, a batch of such maps 4"),
        (nn.Linear(2, 2).half(), torch.zeros(1, 2).half(), "float16 on cpu; the compiler takes float32"),
    ],
    ids=["transposed", "batch statistics", "random", "double", "nothing", "object", "too few", "no batch", "half"],
)
def test_what_is_refused_says_why(model: nn.Module, x: Tensor, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        read_model(model, x)


class Counting(nn.Module):
    """Writes to a buffer, and to its input where asked."""

    def __init__(self, *, into_input: bool) -> None:
        super().__init__()
        self.into_input = into_input
        self.register_buffer("calls", torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        if self.into_input:
            return x.mul_(2) + 1
        self.calls.add_(1)
        return x * self.calls


@pytest.mark.parametrize(("into_input", "named"), [(False, "its buffer 'calls'"), (True, "its input 'x'")], ids=["buffer", "input"])
def test_a_model_that_writes_when_it_is_called_is_refused(into_input: bool, named: str) -> None:
    with pytest.raises(ValueError, match=f"the model writes to {named} on every call"):
        read_model(Counting(into_input=into_input).eval(), torch.zeros(1, 3))


class Attends(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(x, x, x, dropout_p=0.3)


@pytest.mark.parametrize("model", [Calls(lambda x: F.dropout(x + 1, 0.5)), Attends()], ids=["dropout", "attention"])
def test_what_draws_at_random_on_every_call_is_refused(model: nn.Module) -> None:
    with pytest.raises(MissingOperatorsError, match="it draws at random"):
        read_model(model, torch.randn(1, 2, 4, 8))


def test_a_name_is_no_network() -> None:
    with pytest.raises(ValueError, match=r"compile takes a network, an nn\.Module, not str"):
        read_model("resnet18", torch.zeros(1, 4))  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore:.torch.jit.trace:FutureWarning", "ignore:.torch.jit.trace:DeprecationWarning")
def test_a_traced_network_asks_for_its_module() -> None:
    with pytest.raises(ValueError, match="scripted or traced already"):
        read_model(torch.jit.trace(nn.Linear(4, 2), torch.zeros(1, 4)), torch.zeros(1, 4))
