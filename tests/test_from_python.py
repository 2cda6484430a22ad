"""Networks and data from a user's own functions: the contract, and what is refused."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from espalier.composing import composed, resolved
from espalier.from_python import python_data, python_model
from espalier.stepping import built

CODE = """
import numpy as np
import torch
from PIL import Image
from torch import nn
from espalier.data import ImageData, Split

VALUE = 3

class Net(nn.Module):
    def __init__(self, num_classes, in_channels, width=4):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, width, 3)
        self.fc = nn.Linear(width, num_classes)

    def forward(self, images):
        return self.fc(self.conv(images).mean((2, 3)))

def fixed():
    return nn.Linear(2, 2)

def no_net():
    return "net"

def arrays(count=12, labels=(0, 1, 2)):
    assert isinstance(labels, tuple | list)
    def part(number):
        return np.full((number, 1, 8, 8), 7, dtype=np.uint8), np.arange(number) % 3
    return part(count), part(6), part(6)

class Pictures:
    def __init__(self, count, size=8):
        self.count, self.size = count, size

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        return Image.new("RGB", (self.size, 8), (10 * index, 0, 0)), index % 2

def datasets():
    return Pictures(6), Pictures(4), Pictures(4)

def ready():
    split = Split(torch.zeros(6, 3, 8, 8, dtype=torch.uint8), torch.arange(6) % 2)
    return ImageData("ready", split, split, split, 2, 4, 4, 0.5, 0.25, True)

def floats():
    part = torch.rand(6, 1, 8, 8), torch.arange(6) % 3
    return part, part, part

def labels():
    part = torch.zeros(6, 1, 8, 8, dtype=torch.uint8), torch.rand(6)
    return part, part, part

def two():
    return arrays()[:2]

def ragged():
    return Pictures(6), Pictures(4, size=9), Pictures(4)

def single():
    part = torch.zeros(6, 1, 8, 8, dtype=torch.uint8), torch.zeros(6, dtype=torch.int64)
    return part, part, part
"""


@pytest.fixture(autouse=True)
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Write the user's module into the current folder."""
    (tmp_path / "own_functions.py").write_text(CODE)
    (tmp_path / "own_needs.py").write_text("import nowhere_to_be_found\n")
    (tmp_path / "own_broken.py").write_text("def (\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*sys.path])
    yield
    for name in ("own_functions", "own_needs", "own_broken"):
        sys.modules.pop(name, None)


def net(target: str, **args: object) -> nn.Module:
    return python_model(target=target, args=args, num_classes=3, in_channels=1)


def data_of(target: str) -> dict:
    return resolved(composed("own/model", ["row=pruned", "data=python", f"data.target={target}"]))


def test_a_network_is_given_what_it_takes() -> None:
    model = net("own_functions:Net", width=6)
    assert model(torch.zeros(2, 1, 8, 8)).shape == (2, 3)
    assert model.get_submodule("conv").out_channels == 6
    assert isinstance(net("own_functions.fixed"), nn.Linear)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (None, "model.target is not given; write module:function"),
        ("net", "model.target=net names no function; write module:function"),
        ("own_function:net", r"there is no module 'own_function' in .*, nor elsewhere on Python's path; start espalier in the folder"),
        ("own_functions:Nett", r"own_functions\.py has no 'Nett'; did you mean 'Net'"),
        ("own_functions:VALUE", "is a int, nothing to call"),
        ("own_functions:no_net", r"returned a str; it must return a torch\.nn\.Module"),
        ("own_needs:net", "module own_needs imports 'nowhere_to_be_found', which is not installed"),
        ("own_broken:net", r"module own_broken cannot be imported: .*own_broken\.py:1: SyntaxError: invalid syntax"),
    ],
)
def test_a_target_that_gives_no_network_is_named(target: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        net(target)


def test_wrong_arguments_are_named_with_those_it_takes() -> None:
    with pytest.raises(ValueError, match=r"takes \(num_classes, in_channels, width=4\): .*'depth'; its arguments are model\.args"):
        net("own_functions:Net", depth=3)


@pytest.mark.parametrize(
    ("target", "classes", "shape"),
    [("own_functions:arrays", 3, (1, 8, 8)), ("own_functions:datasets", 2, (3, 8, 8)), ("own_functions:ready", 2, (3, 8, 8))],
)
def test_classes_and_channels_are_found_and_networks_read_them(target: str, classes: int, shape: tuple[int, ...]) -> None:
    config = data_of(target)
    assert (config["model"]["num_classes"], config["model"]["in_channels"]) == (classes, shape[0])
    data = built(config["data"])
    assert (data.num_classes, data.input_shape) == (classes, shape)
    assert len(data.train) == {"arrays": 12}.get(target.partition(":")[2], 6)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("own_functions:floats", r"train holds images of float32 and shape \(6, 1, 8, 8\); return an espalier\.data\.ImageData, or"),
        ("own_functions:labels", r"train holds labels of shape \(6,\) for 6 images"),
        ("own_functions:two", "returned 2 parts; return an"),
        ("own_functions:no_net", "returned a str; return an"),
        ("own_functions:ragged", r"images of different shape \(train \(3, 8, 8\), val \(3, 8, 9\)"),
        ("own_functions:single", "the training labels hold 1 class"),
        ("own_functions:array", "has no 'array'; did you mean 'arrays'"),
    ],
)
def test_a_target_that_gives_no_data_is_named(target: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^data.target={re.escape(target)}.*{message}"):
        data_of(target)


def test_arguments_reach_the_function_as_pythons_own() -> None:
    words = ["row=pruned", "data=python", "data.target=own_functions:arrays", "data.args.count=9", "data.args.labels=[0,1]"]
    config = resolved(composed("own/model", words))
    assert len(built(config["data"]).train) == 9


def test_other_classes_than_stated_are_named() -> None:
    config = {**data_of("own_functions:arrays")["data"], "num_classes": 4}
    with pytest.raises(ValueError, match=r"data\.num_classes=4, but python has 3"):
        python_data(**{key: value for key, value in config.items() if not key.startswith("_")})
