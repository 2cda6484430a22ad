"""The two 3-D networks: sizes and MACs as rt3d states them, and the rates of its released configurations."""

import functools

import pytest
import torch
from test_counts import config
from torch import nn

from espalier.constraints import KGS, Sparse, assign, read_rate_file
from espalier.models import C3D, R2Plus1D
from espalier.runner import built
from espalier.tables.published import rate_file
from espalier.workload import Workload, workload

CLIP = (1, 3, 16, 112, 112)


def video(name: str, **changes: object) -> nn.Module:
    return built(config(name, **{"num_classes": 101, **changes})).eval()


@functools.cache
def counted(name: str) -> tuple[nn.Module, Workload]:
    model = video(name)
    return model, workload(model, torch.zeros(CLIP))


def by_stage(work: Workload) -> dict[str, float]:
    """Return GMAC by the words before the layer's number: a convolution of C3D, a stage of R(2+1)D."""
    found: dict[str, float] = {}
    for operator in work.operators:
        if operator.weight_name is not None:
            parts = operator.weight_name.split(".")
            stage = parts[1] if parts[0] == "features" else parts[0]
            found[stage] = found.get(stage, 0.0) + operator.macs / 1e9
    return found


CONVOLUTIONS = {
    "conv1": 1.04,
    "conv2": 11.10,
    "conv3a": 5.55,
    "conv3b": 11.10,
    "conv4a": 2.77,
    "conv4b": 5.55,
    "conv5a": 0.69,
    "conv5b": 0.69,
}


@pytest.mark.parametrize(
    ("name", "macs_g", "stages"),
    [
        ("c3d", 38.55, CONVOLUTIONS | {"fc6": 0.03, "fc7": 0.02, "fc8": 0.0}),
        ("r2plus1d_18", 40.52, {"stem": 0.77, "layer1": 22.2, "layer2": 10.03, "layer3": 5.02, "layer4": 2.51, "fc": 0.0}),
    ],
)
def test_macs_are_the_papers(name: str, macs_g: float, stages: dict[str, float]) -> None:
    _, work = counted(name)
    assert {stage: round(macs, 2) for stage, macs in by_stage(work).items()} == stages
    assert work.macs / 1e9 == pytest.approx(macs_g, abs=0.005)


def test_r2plus1d_takes_the_weights_of_torchvision() -> None:
    from torchvision.models.video import r2plus1d_18

    with torch.device("meta"):
        theirs = r2plus1d_18(num_classes=101)
        ours = R2Plus1D(width=1.0, num_classes=101, in_channels=3)
    assert {name: value.shape for name, value in ours.state_dict().items()} == {name: v.shape for name, v in theirs.state_dict().items()}


def test_r2plus1d_computes_what_torchvision_computes() -> None:
    from torchvision.models.video import r2plus1d_18

    torch.manual_seed(0)
    theirs, ours = r2plus1d_18(num_classes=7).eval(), R2Plus1D(width=1.0, num_classes=7, in_channels=3).eval()
    ours.load_state_dict(theirs.state_dict())
    clip = torch.rand(1, 3, 4, 16, 16)
    with torch.no_grad():
        assert torch.equal(ours(clip), theirs(clip))


def test_c3d_has_the_published_parameters() -> None:
    with torch.device("meta"):
        model = video("c3d")
    assert sum(parameter.numel() for parameter in model.parameters()) == 78_409_573
    assert model.get_submodule("fc6").in_features == 8192


def kept(model: nn.Module, work: Workload, name: str) -> dict[str, float]:
    """Return weight -> share of its groups that the configuration keeps."""
    rates = read_rate_file(rate_file(f"rt3d/{name}")).rates
    assignment = assign(model, functools.partial(Sparse, KGS), rates=rates)
    shares = dict.fromkeys(work.weight_names, 1.0)
    for (target,), constraint in assignment.parts:
        shape = tuple(target.view(model).shape)
        shares[target.parameter] = constraint.weights_kept(shape) / model.get_parameter(target.parameter).numel()
    return shares


def operations(model: nn.Module, work: Workload, shares: dict[str, float]) -> float:
    """Return the operations that the release's profiler counts: 2 a MAC less 1 an output plus 1 for a bias, 4 an element of batch norm."""
    total = 0.0
    for operator in work.operators:
        outputs = torch.Size(operator.output_shape).numel()
        if operator.weight_name is not None:
            layer = model.get_submodule(operator.weight_name.rpartition(".")[0])
            total += 2 * operator.macs * shares[operator.weight_name] - outputs * (layer.bias is None)
        elif "batch_norm" in operator.kind:
            total += 4 * outputs
    return total


RELEASED = [  # file, GMAC left, rate of MACs, rate of the release's operations
    ("c3d-2.53x", 15.24, 2.53, 2.53),
    ("c3d-3.57x", 10.80, 3.57, 3.57),
    ("r2plus1d_18-2.56x", 15.77, 2.57, 2.56),
    ("r2plus1d_18-3.20x", 12.55, 3.23, 3.21),
]


@pytest.mark.parametrize(("file", "macs_g", "rate", "operation_rate"), RELEASED, ids=[entry[0] for entry in RELEASED])
def test_released_configurations_give_their_rates(file: str, macs_g: float, rate: float, operation_rate: float) -> None:
    """R(2+1)D's files are named by operations, batch norm included: 2.56 is met, 3.20 missed by 0.01; in MACs they are 2.57 and 3.23."""
    model, work = counted(file.partition("-")[0])
    shares = kept(model, work, file)
    macs = sum(operator.macs * shares[operator.weight_name] for operator in work.operators if operator.weight_name is not None)
    assert macs / 1e9 == pytest.approx(macs_g, abs=0.005)
    assert round(work.macs / macs, 2) == rate
    assert round(operations(model, work, dict.fromkeys(shares, 1.0)) / operations(model, work, shares), 2) == operation_rate


def test_a_clip_too_small_for_the_pools_says_so() -> None:
    with pytest.raises(ValueError, match=r"model.frames=8, model.side=112; .*16 or more"):
        C3D(width=0.125, num_classes=4, in_channels=3, frames=8, side=112, dropout=0.5)


@pytest.mark.parametrize("name", ["c3d", "r2plus1d_18"])
@pytest.mark.parametrize("width", [0.0, -1.0, float("nan")])
def test_a_width_that_leaves_no_channels_is_refused(name: str, width: float) -> None:
    with pytest.raises(ValueError, match=rf"model.width={width}; it is a factor on the channels, above 0"):
        video(name, width=width)
