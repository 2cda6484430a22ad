"""Folding: the same outputs, zero groups stay zero, and what cannot be folded is named."""

from collections.abc import Callable

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import espalier
from espalier.models import LeNet5
from espalier.rewrites import fold_batch_norm


def lenet5() -> nn.Module:
    return LeNet5(width=1.0, num_classes=10, in_channels=1, batch_norm=True)


def linear() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16, bias=False), nn.BatchNorm1d(16, affine=False), nn.ReLU(), nn.Linear(16, 4))


def grouped() -> nn.Module:
    return nn.Sequential(nn.Conv2d(4, 8, 3, groups=4), nn.BatchNorm2d(8))


MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "lenet5": (lenet5, (4, 1, 28, 28)),
    "resnet18": (lambda: timm.create_model("resnet18", num_classes=10), (2, 3, 64, 64)),
    "linear": (linear, (4, 1, 8, 8)),
    "grouped": (grouped, (2, 4, 8, 8)),
}


def with_random_statistics(make: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    model = make()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.3)
                module.running_var.uniform_(0.5, 2.0)
                if module.affine:
                    module.weight.normal_(1, 0.3)
                    module.bias.normal_(0, 0.3)
    return model.eval()


@pytest.mark.parametrize("name", MODELS)
def test_the_folded_network_computes_the_same(name: str) -> None:
    make, shape = MODELS[name]
    model = with_random_statistics(make)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    folded = fold_batch_norm(model)
    images = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected, found = model(images), folded(images)
    assert float((found - expected).norm() / expected.norm()) < 1e-5
    assert not folded.training
    assert not any(isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) for module in folded.modules())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_zero_groups_stay_zero_and_no_others_become_so() -> None:
    model = espalier.prune(with_random_statistics(lenet5), constraint="filter", rate=4, skip=("fc2",))
    folded = fold_batch_norm(model)
    sets = espalier.frozen(model)
    assert sets is not None
    assert sets.outside(sets.read(folded)) == 0
    for name in ("conv1.weight", "conv2.weight"):
        assert torch.equal(folded.get_parameter(name) == 0, model.get_parameter(name) == 0)


class Shared(nn.Module):
    """Two layers of one weight, and a batch norm after the first."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.norm = nn.Linear(4, 4), nn.Linear(4, 4), nn.BatchNorm1d(4)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.second(self.norm(self.first(x)))
        return result


class Residual(nn.Module):
    """The convolution's output goes round the batch norm as well."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.norm = nn.Linear(4, 4), nn.BatchNorm1d(4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer(x)
        return x + F.relu(self.norm(x))


class Branching(nn.Module):
    """Control flow that depends on data."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.norm = nn.Linear(4, 4), nn.BatchNorm1d(4)

    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else self.norm(self.layer(x))


class Unused(nn.Module):
    """A batch norm that is never called."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.norm = nn.Linear(4, 4), nn.BatchNorm1d(4)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.layer(x)
        return result


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.BatchNorm1d(4)), r"batch norm 2 .* follows ReLU.*skip: \[2\]"),
        (nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 4)), "batch norm 0 .* follows input"),
        (nn.Sequential(nn.ConvTranspose2d(4, 4, 3), nn.BatchNorm2d(4)), "follows ConvTranspose2d"),
        (nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4, track_running_stats=False)), "no running statistics"),
        (nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(4)), "0 has 6 outputs, it normalises 4"),
        (nn.Sequential(nn.Conv2d(4, 4, 3), timm.layers.BatchNormAct2d(4)), "it is a BatchNormAct2d"),
        (Shared(), "first shares its weight"),
        (Residual(), "others read the output of layer"),
        (Unused(), "called 0 times"),
        (Branching(), "cannot follow Branching"),
    ],
    ids=["relu", "input", "transposed", "no statistics", "other axis", "activation inside", "shared", "residual", "unused", "control flow"],
)
def test_what_cannot_be_folded_is_named(model: nn.Module, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fold_batch_norm(model)


def test_skipped_layers_stay() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.BatchNorm1d(4))
    folded = fold_batch_norm(model, skip=["3"])
    assert [type(module).__name__ for module in folded] == ["Linear", "Identity", "ReLU", "BatchNorm1d"]
    with pytest.raises(ValueError, match=r"'bn\*' matches no batch norm; there are 1, 3"):
        fold_batch_norm(model, skip=["bn*"])
