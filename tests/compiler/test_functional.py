"""Writes in place: renamed where nothing else can see them, traced anew elsewhere; the network computes the same either way."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from random_networks import relative_error
from torch import Tensor, nn

from espalier.compiler.aten import BUILDERS
from espalier.compiler.front import read_model
from espalier.compiler.functional import FRESH, WRITERS, functional
from espalier.compiler.missing import MissingOperatorsError
from espalier.compiler.reference import evaluate
from espalier.workload import exported

WEIGHT = torch.randn(4, 4, 3, 3, generator=torch.Generator().manual_seed(0))

MEAN, VARIANCE = torch.full((4,), 0.5), torch.full((4,), 2.0)

BYTES, LONGS = torch.full((4, 6, 6), 100, dtype=torch.int8), torch.full((4, 6, 6), 100)
DOUBLES = torch.full((4, 6, 6), 0.1, dtype=torch.float64)
HALVES, THIRDS = torch.full((4, 6, 6), 0.5).half(), torch.full((4, 6, 6), 1 / 3)


class Calls(nn.Module):
    """A model that is one function."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def conv(x: Tensor) -> Tensor:
    return F.conv2d(x, WEIGHT, padding=1)


def norm(x: Tensor) -> Tensor:
    return F.batch_norm(x, MEAN, VARIANCE)


def residual_block(x: Tensor) -> Tensor:
    x = norm(conv(x)).relu_()
    shortcut = x
    x = norm(conv(x))
    x += shortcut
    return F.relu(x, inplace=True)


def activations(x: Tensor) -> Tensor:
    return F.hardtanh_(conv(F.silu(conv(F.hardswish(conv(x), inplace=True)), inplace=True)), 0.0, 1.0).mul_(0.5).sub_(x)


def read_before(x: Tensor) -> Tensor:
    x = conv(x)
    before = conv(x)
    return x.relu_() + before


def read_by_both(x: Tensor) -> Tensor:
    x = conv(x)
    written = x.add_(1.0)
    return written * x


def view_written(x: Tensor) -> Tensor:
    x = conv(x)
    x[:, 1:3].relu_()
    return x


def view_read(x: Tensor) -> Tensor:
    x = conv(x)
    view = x.flatten(1)
    F.relu_(x)
    return view


def dropped(x: Tensor) -> Tensor:
    x = conv(x)
    same = F.dropout(x, training=False)
    same.relu_()
    return same + x


def wider(x: Tensor) -> Tensor:
    return conv(x) * 0.01 + F.relu(BYTES).mul_(LONGS)


def wider_float(x: Tensor) -> Tensor:
    return conv(x) + F.relu(HALVES).add_(THIRDS)


RENAMED = [residual_block, activations, read_by_both]
TRACED = [read_before, view_written, view_read, dropped, wider, wider_float]


@pytest.mark.parametrize("function", RENAMED + TRACED)
def test_what_writes_in_place_is_read_as_it_computes(function: Callable[[Tensor], Tensor]) -> None:
    x = torch.randn(1, 4, 6, 6, generator=torch.Generator().manual_seed(1))
    wanted = function(x.clone())
    (got,) = evaluate(read_model(Calls(function), x), x)
    assert relative_error(got, wanted) < 1e-5


@pytest.mark.parametrize("function", RENAMED + TRACED)
def test_only_writes_that_something_else_may_see_are_traced_anew(function: Callable[[Tensor], Tensor]) -> None:
    program = exported(Calls(function), torch.randn(1, 4, 6, 6))
    made = functional(program)
    assert (made is program) == (function in RENAMED)
    assert not [node for node in made.graph.nodes if node.op == "call_function" and str(node.target) in WRITERS]


def test_a_batch_norm_that_updates_its_statistics_is_refused_by_their_name() -> None:
    class Updating(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mean", torch.zeros(4))
            self.register_buffer("variance", torch.ones(4))

        def forward(self, x: Tensor) -> Tensor:
            return F.batch_norm(x, self.mean, self.variance, training=True)

    with pytest.raises(ValueError, match="the model writes to its buffer 'mean', its buffer 'variance'"):
        read_model(Updating(), torch.randn(1, 4, 6, 6))


def test_the_tables_say_what_torch_says_of_its_operators() -> None:
    named = {str(value) for value in WRITERS.values()}
    for writer, form in WRITERS.items():
        name, overload = writer.removeprefix("aten.").rsplit(".", 1)
        found = getattr(getattr(torch.ops.aten, name), overload)._schema
        assert found.is_mutable
        assert [a.name for a in found.arguments] == [a.name for a in form._schema.arguments], writer
    for name in BUILDERS.keys() | FRESH | named:
        operator, overload = name.removeprefix("aten.").rsplit(".", 1)
        schema = getattr(getattr(torch.ops.aten, operator), overload)._schema
        assert not schema.is_mutable, name
        assert name not in FRESH or all(given.alias_info is None for given in schema.returns), name
    assert named | FRESH <= BUILDERS.keys()


@pytest.mark.parametrize("written", [conv, norm, F.relu, torch.sigmoid, lambda x: torch.cat([x]), lambda x: x * 1.0], ids=range(6))
def test_what_may_be_written_shares_no_memory(written: Callable[[Tensor], Tensor]) -> None:
    x = torch.rand(1, 4, 6, 6)
    assert written(x).untyped_storage().data_ptr() != x.untyped_storage().data_ptr()


def test_a_sum_kept_in_doubles_is_refused_by_name() -> None:
    def doubled(x: Tensor) -> Tensor:
        return conv(x).double().add_(DOUBLES).float()

    with pytest.raises(MissingOperatorsError, match="float64"):
        read_model(Calls(doubled), torch.randn(1, 4, 6, 6))
