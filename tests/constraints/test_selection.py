import pytest
from torch import nn

from espalier.constraints import Binary, assign
from espalier.constraints.selection import matching


class Block(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=2)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, groups=outputs)
        self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride=2), nn.BatchNorm2d(outputs))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(3, 3)
        self.stem = nn.Conv2d(3, 4, 7)
        self.layer1 = Block(4, 8)
        self.shortcut_conv = nn.Conv2d(8, 8, 3)  # 3x3: no pointwise shortcut
        self.pointwise = nn.Conv2d(8, 8, 1)
        self.head = nn.Linear(8, 10)


@pytest.mark.parametrize(
    ("entry", "meant"),
    [
        ("first_conv", ["stem.weight"]),
        ("last_linear", ["head.weight"]),
        ("downsample", ["layer1.downsample.0.weight"]),
        ("depthwise", ["layer1.conv2.weight"]),
        ("conv1x1", ["layer1.downsample.0.weight", "pointwise.weight"]),
        ("conv3x3", ["layer1.conv1.weight", "layer1.conv2.weight", "shortcut_conv.weight"]),
        ("*conv*", ["layer1.conv1.weight", "layer1.conv2.weight", "shortcut_conv.weight"]),
        ("stem", ["stem.weight"]),
    ],
)
def test_rules_and_globs(entry: str, meant: list[str]) -> None:
    assert matching(Net(), entry, "constraint.skip") == meant


def test_a_layer_of_a_rules_name_is_that_layer() -> None:
    model = nn.Sequential()
    model.add_module("stem", nn.Conv2d(1, 2, 3))
    model.add_module("first_conv", nn.Conv2d(2, 2, 3))
    assert matching(model, "first_conv", "constraint.skip") == ["first_conv.weight"]


def test_rules_stand_beside_globs() -> None:
    assignment = assign(Net(), Binary, skip=["first_conv", "downsample", "last_linear", "embed"], include=["*"])
    assert [str(target) for target in assignment.targets] == [
        "layer1.conv1.weight",
        "layer1.conv2.weight",
        "shortcut_conv.weight",
        "pointwise.weight",
    ]


def test_errors() -> None:
    with pytest.raises(ValueError, match=r"constraint\.skip: rule 'downsample' means no layer of this model; drop it"):
        matching(nn.Sequential(nn.Linear(2, 2)), "downsample", "constraint.skip")
    with pytest.raises(ValueError, match=r"constraint\.skip: 'frist_conv' matches no .* nearest: first_conv"):
        matching(Net(), "frist_conv", "constraint.skip")


def test_a_bare_layer_is_a_model() -> None:
    assert matching(nn.Conv2d(1, 2, 3), "first_conv", "constraint.skip") == ["weight"]
