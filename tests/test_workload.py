"""Counts against counting by hand, and the frame that times."""

import inspect
import logging
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from espalier.frames import Cpu
from espalier.models import LeNet5
from espalier.workload import TALKATIVE, TORCH, exported, workload


def test_lenet5_counts() -> None:
    torch.manual_seed(0)  # a weight in 2**24 starts at zero
    counts = workload(LeNet5(width=1.0, num_classes=10, in_channels=1, batch_norm=False), torch.zeros(1, 1, 28, 28))
    assert counts.weights == counts.weights_nonzero == 430_500
    assert counts.parameters == 430_500 + 20 + 50 + 500 + 10
    assert counts.macs == 500 * 24 * 24 + 25_000 * 8 * 8 + 400_000 + 5_000
    assert counts.weight_names == ("conv1.weight", "conv2.weight", "fc1.weight", "fc2.weight")


@pytest.mark.parametrize(
    ("layer", "shape", "macs"),
    [
        (nn.Conv2d(4, 8, 3, stride=2, padding=1), (1, 4, 9, 9), 8 * 4 * 9 * 25),
        (nn.Conv2d(8, 8, 3, groups=8), (1, 8, 6, 6), 8 * 9 * 16),
        (nn.Conv3d(2, 3, 2), (1, 2, 4, 4, 4), 3 * 2 * 8 * 27),
        (nn.Linear(5, 7), (1, 5), 35),
        (nn.Linear(5, 7), (1, 3, 5), 105),
    ],
    ids=["conv2d", "depthwise", "conv3d", "linear", "linear on tokens"],
)
def test_zeros_count_in_macs_but_not_in_effective_ones(layer: nn.Module, shape: tuple[int, ...], macs: int) -> None:
    weight = layer.get_parameter("weight")
    with torch.no_grad():
        weight.fill_(1.0).view(-1)[: weight.numel() // 2] = 0
    counts = workload(nn.Sequential(layer), torch.zeros(shape))
    assert counts.macs == macs
    assert counts.macs_effective == macs * (weight.numel() - weight.numel() // 2) // weight.numel()


class Shared(nn.Module):
    """Two modules around one convolution, which the second calls."""

    def __init__(self) -> None:
        super().__init__()
        conv = nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.first, self.second = nn.Sequential(nn.ReLU(), conv), nn.Sequential(conv)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(x))


def test_a_parameter_that_modules_share_is_counted_once_and_used_twice() -> None:
    counts = workload(Shared(), torch.zeros(1, 4, 6, 6))
    assert counts.weight_names == ("first.1.weight",)
    assert counts.weights == counts.parameters == 4 * 4 * 9
    assert counts.macs == counts.macs_effective == 2 * 4 * 4 * 9 * 36


def test_an_example_of_two_samples_is_refused() -> None:
    with pytest.raises(ValueError, match="2 samples"):
        workload(nn.Linear(2, 2), torch.zeros(2, 2))


def test_a_timing_says_what_it_timed() -> None:
    model, threads = nn.Linear(8, 8), torch.get_num_threads()
    taken = Cpu(num_threads=1, batch_size=4, num_warmup=1, num_runs=20).measure(
        model, torch.zeros(1, 8), checkpoint="abc", weights="random"
    )
    assert 0 < taken.metrics["latency_ms_p10"] <= taken.metrics["latency_ms_p50"] <= taken.metrics["latency_ms_p90"]  # type: ignore[operator]
    assert (taken.engine, taken.batch_size, taken.num_threads, taken.weights) == ("pytorch-eager", 4, 1, "random")
    assert taken.device
    assert model.training
    assert torch.get_num_threads() == threads


class Branching(nn.Module):
    """Takes a branch by what it computed."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.sum() > 0:
            return 2 * x
        return x


class Reshaping(nn.Module):
    """Takes one number of values alone."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.view(7, 7)


class Counting(nn.Module):
    """Notes each call, writes to its input, draws at random, and then takes no such shape."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        x += torch.rand_like(x)
        return x.view(7, 7)


class Hoping(nn.Module):
    """Refuses values, not shapes."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert x.sum() > 0, "an empty image"
        return x


class Asserting(nn.Module):
    """The same, with a word of its own."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert x.numel() == 49, f"49 values, not {x.numel()}"
        return x.view(7, 7)


class Untraceable(nn.Module):
    """Leaves torch on the way."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.zeros(x.numpy().shape) + x


class Talking(nn.Module):
    """Says something on stderr while it is followed."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        sys.stderr.write("mind the step\n")
        return x + 1


class Calling(nn.Module):
    """Calls a function of a library that lies beside torch, its name beginning with torch's."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        found: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {}
        exec(compile("def flat(x):\n    return x.view(7, 7)\n", path, "exec"), found)
        self.flat = found["flat"]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.flat(x)


class Diagnosing(nn.Module):
    """Says on stderr what is wrong, and raises."""

    def __init__(self, kind: type[Exception]) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        sys.stderr.write("the third stair is loose\n")
        raise self.kind("a stair is loose")


LINES, FIRST = inspect.getsourcelines(Branching)
BRANCH = FIRST + next(number for number, line in enumerate(LINES) if "if x.sum()" in line)


def test_a_branch_that_depends_on_values_is_one_message_with_its_line_and_the_way_out() -> None:
    """In a process of its own, because loggers keep the stderr that they began with."""
    code = f"import sys, torch; sys.path.insert(0, {str(Path(__file__).parent)!r})\nfrom test_workload import *\n"
    code += "try:\n    exported(Branching(), torch.ones(1, 4))\nexcept ValueError as error:\n    print(error)\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    said = rf"torch\.export cannot follow Branching at {re.escape(__file__)}:{BRANCH} \(if x\.sum\(\) > 0:\): .*data-dependent "
    assert re.match(said + r"expression .*\. What is computed must not hang on values: .* torch\.where", done.stdout)
    assert done.stdout.count("\n") == 1


def test_other_refusals_name_the_line_too() -> None:
    said = r"cannot follow Untraceable at .*_workload\.py:\d+ \(return torch\.zeros\(x\.numpy\(\)"
    with pytest.raises(ValueError, match=said):
        exported(Untraceable(), torch.zeros(1, 4))


@pytest.mark.parametrize(
    ("model", "reason"),
    [(Reshaping(), r"at .*_workload\.py:\d+ \(return x\.view\(7, 7\)\): shape '\[7, 7\]'"), (Asserting(), "at .*: 49 values, not 4")],
)
def test_an_example_that_the_model_does_not_take_is_not_blamed_on_export(model: nn.Module, reason: str) -> None:
    with pytest.raises(
        ValueError, match=rf"an example of 1x4 does not go through {type(model).__name__} {reason}.*Give one that the model takes"
    ):
        exported(model, torch.zeros(1, 4))


def test_what_is_refused_for_its_values_is_not_told_to_change_its_shape() -> None:
    with pytest.raises(ValueError, match=r"cannot follow Hoping .* must not hang on values") as refused:
        exported(Hoping(), torch.zeros(1, 4))
    assert "does not go through" not in str(refused.value)


def test_a_model_that_is_refused_and_its_example_are_as_they_were() -> None:
    model, example, state = Counting(), torch.zeros(1, 4), torch.random.get_rng_state()
    with pytest.raises(ValueError, match="an example of 1x4 does not go through Counting"):
        exported(model, example)
    assert model.calls == 0
    assert not example.any()
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("library", ["torchvision", "torchmetrics", "torchgen"])
def test_a_line_of_a_library_whose_name_begins_with_torch_is_named(library: str) -> None:
    path = TORCH.parent / library / "flat.py"
    with pytest.raises(ValueError, match=rf"1x4 does not go through Calling at {re.escape(str(path))}:2 "):
        exported(Calling(path), torch.zeros(1, 4))


@pytest.mark.parametrize(("kind", "raised", "kept"), [(TypeError, TypeError, True), (RuntimeError, ValueError, False)])
def test_what_a_model_says_before_it_fails_is_dropped_only_where_our_message_takes_its_place(
    kind: type[Exception], raised: type[Exception], kept: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(raised, match="a stair is loose"):
        exported(Diagnosing(kind), torch.zeros(1, 4))
    assert ("the third stair is loose\n" in capsys.readouterr().err) == kept


def test_what_a_model_says_while_it_is_followed_is_passed_on(capsys: pytest.CaptureFixture[str]) -> None:
    levels = [logging.getLogger(name).level for name in TALKATIVE]
    exported(Talking(), torch.zeros(1, 4))
    assert "mind the step\n" in capsys.readouterr().err
    assert [logging.getLogger(name).level for name in TALKATIVE] == levels
