"""Networks with operators that the compiler lacks: what can be compiled is, PyTorch does the rest, and both say so."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from random_networks import relative_error
from torch import Tensor, nn

import espalier
from espalier.compiler import CompiledNetwork, compile_model
from espalier.compiler.hybrid import HybridNetwork
from espalier.compiler.hybrid_cutting import calls
from espalier.compiler.missing import MissingOperatorsError

X = torch.randn(1, 3, 12, 12, generator=torch.Generator().manual_seed(0))


class Around(nn.Module):
    """A convolution, a function that the compiler lacks, a convolution and a sum with what stood before."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Sequential(nn.Conv2d(3, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU())
        self.function = function
        self.head = nn.Conv2d(32, 32, 3, padding=1)
        self.fc = nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x)
        z = self.head(self.function(y)) + y
        return self.fc(z.mean((2, 3)))


FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "sorted": lambda y: y.sort(dim=3).values,
    "chosen": lambda y: y * (y.argmax(1, keepdim=True) > 3),
    "largest": lambda y: y.topk(12, dim=2).values * y.topk(12, dim=2).indices.float(),
    "cumulated": lambda y: y.cumsum(2) / torch.arange(1.0, 13.0)[:, None],
    "in double": lambda y: (y.double() * 2).float(),
    "twice": lambda y: torch.sort(y.sort(dim=2).values.relu(), dim=3).values,
}


@pytest.fixture(scope="module")
def hybrid() -> Any:
    with compile_model(Around(FUNCTIONS["sorted"]).eval(), X, fallback="torch") as compiled:
        yield compiled


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS.keys())
def test_a_network_that_cannot_be_compiled_whole_matches_pytorch(function: Callable[[Tensor], Tensor]) -> None:
    model = Around(function).eval()
    with pytest.raises(MissingOperatorsError, match="fallback='torch'"):
        compile_model(model, X)
    with compile_model(model, X, fallback="torch", num_threads=2) as compiled, torch.no_grad():
        assert isinstance(compiled, HybridNetwork)
        for x in (X, 2 * X + 1):
            assert relative_error(compiled(x), model(x)) < 1e-5
        assert len(list(calls(compiled.module))) == 2


def test_a_hybrid_says_what_pytorch_does(hybrid: HybridNetwork) -> None:
    assert hybrid.hybrid == "100.0% of the multiply-adds compiled; aten.sort.default in PyTorch"
    lines = hybrid.explain(num_runs=2)
    assert [line.template for line in lines].count("torch") == 1
    place = [line.template for line in lines].index("torch")
    assert 0 < place < len(lines) - 1
    assert (lines[place].op, lines[place].structure, lines[place].macs) == ("aten.sort.default", "", 0)
    assert all(line.microseconds is not None and line.microseconds > 0 for line in lines)
    assert all(line.microseconds is None for line in hybrid.explain())


def test_multiply_adds_in_pytorch_lower_the_share() -> None:
    class Dynamic(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x)
            kernel = y.mean((2, 3)).view(1, 4, 1, 1)
            return nn.functional.conv2d(y, kernel)  # a weight that depends on the sample

    model = Dynamic().eval()
    with compile_model(model, X, fallback="torch") as compiled, torch.no_grad():
        assert isinstance(compiled, HybridNetwork)
        assert compiled.share == 3 * 4 / (3 * 4 + 4)
        assert relative_error(compiled(X), model(X)) < 1e-5


def test_a_hybrid_takes_what_a_compiled_network_takes(hybrid: HybridNetwork) -> None:
    with torch.no_grad():
        wanted = Around(FUNCTIONS["sorted"]).eval()(X)
    out = torch.empty(1, 5)
    assert hybrid(X, out=out) is out
    assert relative_error(out, wanted) < 1e-5
    given = hybrid(X.numpy())
    assert isinstance(given, np.ndarray)
    assert relative_error(torch.from_numpy(given), wanted) < 1e-5
    assert hybrid.fork_join_ns() > 0
    with pytest.raises(ValueError, match=r"\(1, 3, 6, 6\).*compiled for.*\(1, 3, 12, 12\)"):
        hybrid(X[:, :, :6, :6])


def test_a_hybrid_takes_no_array_that_a_compiled_network_refuses(hybrid: HybridNetwork) -> None:
    with pytest.raises(ValueError, match=r"output0 has shape \(4, 5\).*compiled for \(1, 5\)"):
        hybrid(X, out=torch.empty(4, 5))
    with pytest.raises(ValueError, match="output0 is float64"):
        hybrid(X, out=torch.empty(1, 5, dtype=torch.float64))
    with pytest.raises(ValueError, match="gives 1 outputs"):
        hybrid(X, out=[torch.empty(1, 5)] * 2)
    with pytest.raises(ValueError, match="input0 asks for gradients"):
        hybrid(X.clone().requires_grad_())
    with pytest.raises(ValueError, match="input0 is float64"):
        hybrid(X.double())
    with pytest.raises(ValueError, match="takes 1 inputs"):
        hybrid(X, X)
    with pytest.raises(ValueError, match="output0 shares memory"):
        hybrid(X, out=X.view(-1)[:5].view(1, 5))


def test_an_array_that_may_not_be_written_is_an_input(hybrid: HybridNetwork) -> None:
    array = X.numpy().copy()
    array.flags.writeable = False
    assert np.array_equal(hybrid(array), hybrid(X).numpy())


class Keeping(nn.Module):
    """Gives a result, what it holds, its input, that again as a view, and which channel is largest."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.w = nn.Parameter(torch.ones(3))
        self.register_buffer("b", torch.ones(2))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        y = self.conv(x).sort(dim=3).values
        return y, self.w * 2, self.b, x, x.view(3, 144), y.view(4, 144), y.argmax(1)


@pytest.fixture(scope="module")
def keeping() -> Any:
    with compile_model(Keeping().eval(), X, fallback="torch") as compiled:
        yield compiled


@pytest.mark.parametrize("as_array", [False, True], ids=["tensors", "arrays"])
def test_results_are_the_callers_own(keeping: HybridNetwork, as_array: bool) -> None:
    x = X.clone()
    first = [torch.as_tensor(result) for result in keeping(x.numpy() if as_array else x)]
    wanted = [result.clone() for result in first]
    assert first[6].dtype is torch.int64
    for number, result in enumerate(first):
        result.zero_()
        assert all(torch.equal(other, one) for other, one in zip(first[number + 1 :], wanted[number + 1 :], strict=True))
    assert torch.equal(x, X)
    again = [torch.as_tensor(result) for result in keeping(x)]
    assert all(torch.equal(other, one) for other, one in zip(again, wanted, strict=True))


def test_out_takes_no_result_of_another_type(keeping: HybridNetwork) -> None:
    with torch.no_grad():
        out = [torch.empty(result.shape) for result in keeping(X)]
    with pytest.raises(ValueError, match=r"output6 is torch\.int64; out= takes float32 alone"):
        keeping(X, out=out)


def test_masks_reach_the_regions() -> None:
    model = espalier.prune(Around(FUNCTIONS["sorted"]).eval(), constraint="block_punched 32x4", rate=4, skip=("stem*", "fc"))
    told, seen = espalier.compile(model, X, fallback="torch"), compile_model(model, X, fallback="torch")
    with told, seen:
        structures = [[line.structure for line in one.explain() if line.structure] for one in (told, seen)]
    assert structures[0] == ["dense", "block_punched 32x4", "dense"]
    assert structures[1][1].endswith("(detected)")


def test_a_whole_network_is_no_hybrid() -> None:
    with compile_model(Around(torch.relu).eval(), X, fallback="torch") as compiled:
        assert isinstance(compiled, CompiledNetwork)
        assert compiled.hybrid == ""


def test_a_network_of_which_nothing_can_be_compiled_is_refused() -> None:
    class Sorted(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.sort(dim=3).values + 1

    with pytest.raises(ValueError, match="leaves nothing of Sorted to compile; run it in PyTorch"):
        compile_model(Sorted(), X, fallback="torch")


def test_another_fallback_is_refused() -> None:
    with pytest.raises(ValueError, match="fallback=eager is not known; there is torch"):
        compile_model(Around(torch.relu), X, fallback="eager")


def test_a_hybrid_cannot_be_written(hybrid: HybridNetwork, tmp_path: Any) -> None:
    with pytest.raises(ValueError, match=r"hybrid.*its C would not be all of it"):
        hybrid.write(tmp_path)
