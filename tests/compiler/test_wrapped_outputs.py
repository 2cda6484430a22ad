"""What a network gives is wrapped as its model wraps it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_structure

from espalier.compiler import compile_model
from espalier.frames import CompiledCpu


class Pair(NamedTuple):
    """A tuple with names."""

    first: Tensor
    second: Tensor


class Wrapped(nn.Module):
    """A convolution whose outputs are wrapped by a function."""

    def __init__(self, wrap: Callable[[Tensor], Any], *, sort: bool = False) -> None:
        super().__init__()
        self.conv, self.wrap, self.sort = nn.Conv2d(3, 8, 1), wrap, sort

    def forward(self, x: Tensor) -> Any:
        y = self.conv(x)
        return self.wrap(y.sort(dim=1).values if self.sort else y)


WRAPS: dict[str, Callable[[Tensor], Any]] = {
    "a tensor": lambda y: y,
    "a tuple": lambda y: (y, 2 * y),
    "a tuple of one": lambda y: (y,),
    "a list": lambda y: [2 * y, y],
    "a dict": lambda y: {"logits": y, "hidden": [2 * y, (y + 1,)]},
    "one tensor twice": lambda y: {"a": y, "b": y},
    "a named tuple": lambda y: Pair(y, 2 * y),
}


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ESPALIER_CACHE", str(tmp_path_factory.getbasetemp() / "compiled"))


@pytest.mark.parametrize("sort", [False, True], ids=["compiled", "hybrid"])
@pytest.mark.parametrize("wrap", WRAPS.values(), ids=WRAPS)
def test_outputs_are_wrapped_as_the_model_wraps_them(wrap: Callable[[Tensor], Any], sort: bool) -> None:
    torch.manual_seed(0)
    model, x = Wrapped(wrap, sort=sort).eval(), torch.randn(1, 3, 4, 4)
    with torch.no_grad(), compile_model(model, x, fallback="torch" if sort else None) as compiled:
        wanted, found = model(x), compiled(x)
        assert type(found) is type(wanted)
        assert tree_structure(found) == tree_structure(wanted)
        assert all(torch.allclose(one, right, atol=1e-5) for one, right in zip(tree_leaves(found), tree_leaves(wanted), strict=True))
        room = [torch.empty_like(one) for one in tree_leaves(wanted)]
        again = compiled(x, out=room)
        assert tree_structure(again) == tree_structure(wanted)
        assert all(one is given for one, given in zip(tree_leaves(again), room, strict=True))


@pytest.mark.parametrize("value", [None, 3])
def test_an_output_that_is_no_tensor_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match=rf"the model's outputs hold \[{value}\], and compiled code gives tensors alone; leave"):
        compile_model(Wrapped(lambda y: {"y": y, "other": value}).eval(), torch.randn(1, 3, 4, 4))


def test_a_network_with_wrapped_outputs_is_timed() -> None:
    frame = CompiledCpu(num_threads=1, batch_size=1, num_warmup=1, num_runs=5)
    taken = frame.measure(Wrapped(WRAPS["a dict"]).eval(), torch.randn(1, 3, 4, 4), checkpoint="digest", weights="random")
    assert 0 <= (taken.metrics["max_rel_error"] or 0.0) < 1e-5
