"""Sizes of the papers' networks, counted from the graph: what the papers state, exactly."""

from pathlib import Path

import pytest
import torch
import yaml
from torch import Tensor, nn

from espalier.composing import config_dir
from espalier.models import CifarResNet, PlainConvNet, mobilenetv2_cifar, timm_model
from espalier.runner import built
from espalier.workload import Workload, workload

RGB = (1, 3, 32, 32)


def config(name: str, **changes: object) -> dict[str, object]:
    """Return a model config with the data set's part filled in."""
    content = yaml.safe_load((config_dir() / "model" / f"{name}.yaml").read_text(encoding="utf-8"))
    grey = name.startswith("lenet")
    return content | {"num_classes": 10, "in_channels": 1 if grey else 3} | changes


def counts(name: str, shape: tuple[int, ...] = RGB, **changes: object) -> Workload:
    return workload(built(config(name, **changes)), torch.zeros(shape))


def split(work: Workload, model: nn.Module) -> tuple[int, int, int, int]:
    """Return (weights, MACs) of the 3x3 convolutions after the first, and of the rest."""
    first = work.weight_names[0]
    sparse = {name for name in work.weight_names if name != first and model.get_parameter(name).shape[2:] == (3, 3)}
    macs = {name: sum(op.macs for op in work.operators if op.weight_name == name) for name in work.weight_names}
    sizes = {name: model.get_parameter(name).numel() for name in work.weight_names}
    inside, outside = sorted(sparse), sorted(macs.keys() - sparse)
    return tuple(sum(table[name] for name in names) for names in (inside, outside) for table in (sizes, macs))  # type: ignore[return-value]


@pytest.mark.parametrize(("num_classes", "dense", "dense_macs"), [(10, 12_384, 1_934_592), (100, 23_904, 1_946_112)])
def test_resnet32x2_is_the_mest_papers(num_classes: int, dense: int, dense_macs: int) -> None:
    model = built(config("resnet32x2_cifar", num_classes=num_classes))
    work = workload(model, torch.zeros(RGB))
    weights, macs, rest, rest_macs = split(work, model)
    assert (weights, rest) == (1_843_200, dense)
    assert (macs, rest_macs) == (273_678_336, dense_macs)  # the paper: 273.68 and 1.93 (C10) or 1.95 (C100) MMAC
    batch_norm, biases = 2 * (32 * 11 + 64 * 11 + 128 * 11), num_classes
    assert work.parameters == weights + rest + batch_norm + biases  # the paper: 1.86 M on C10


def test_vgg19_convolutions_are_the_mest_papers() -> None:
    model = built(config("vgg19_bn_cifar"))
    work = workload(model, torch.zeros(RGB))
    weights, macs, rest, rest_macs = split(work, model)
    assert weights + 1_728 == pytest.approx(20.02e6, abs=5e3)
    assert rest == 1_728 + 5_120
    assert rest_macs == 1_769_472 + 5_120
    assert macs + 1_769_472 == pytest.approx(398.1e6, abs=5e4)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("resnet20_cifar", 269_722),
        ("resnet32_cifar", 464_154),
        ("resnet56_cifar", 853_018),
        ("resnet18_cifar", 11_173_962),
    ],
)
def test_resnets_have_the_published_parameters(name: str, parameters: int) -> None:
    assert counts(name).parameters == parameters


@pytest.mark.parametrize(
    ("name", "shape", "weights"),
    [
        ("lenet300_100", (1, 1, 28, 28), 266_200),
        ("resnet8_cifar", RGB, 432 + 73_728 + 512 + 2_048 + 640),
        ("vgg16_bn_cifar", RGB, 14_710_464 + 5_120),
        ("vgg_tiny", RGB, 286_560 + 1_280),
        ("conv4", RGB, 432 + 4_608 + 18_432 + 36_864 + 640),
        ("conv4_wide", RGB, 864 + 9_216 + 18_432 + 36_864 + 640),
        ("convnet_cifar", RGB, 122_560),
    ],
)
def test_weights_by_hand(name: str, shape: tuple[int, ...], weights: int) -> None:
    assert counts(name, shape).weights == weights


def test_mobilenetv2_keeps_maps_large() -> None:
    maps: list[tuple[int, ...]] = []
    model = mobilenetv2_cifar(width=1.0, num_classes=10, in_channels=3).eval()

    def note(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        maps.append(tuple(inputs[0].shape[1:]))

    model.get_submodule("conv_head").register_forward_pre_hook(note)
    with torch.no_grad():
        model(torch.zeros(RGB))
    assert maps == [(320, 4, 4)]
    plain = timm_model(name="mobilenetv2_100", num_classes=10, in_channels=3, pretrained=False)
    assert [value.shape for value in model.state_dict().values()] == [value.shape for value in plain.state_dict().values()]


def test_timm_networks_follow_classes_and_channels() -> None:
    model = timm_model(name="resnet18", num_classes=7, in_channels=1, pretrained=False).eval()
    with torch.no_grad():
        assert model(torch.zeros(2, 1, 32, 32)).shape == (2, 7)


def test_an_unknown_network_lists_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"model.name=resnet_18 is not in timm .*nearest: .*resnet18"):
        timm_model(name="resnet_18", num_classes=10, in_channels=3, pretrained=False)


def test_settings_that_no_network_has_name_the_way_out() -> None:
    with pytest.raises(ValueError, match=r"model.depth=21.*8, 14, 20"):
        CifarResNet(depth=21, width=1.0, shortcut="pad", num_classes=10, in_channels=3)
    with pytest.raises(ValueError, match=r"model.shortcut=zero.*pad.*conv"):
        CifarResNet(depth=20, width=1.0, shortcut="zero", num_classes=10, in_channels=3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"model.plan holds 'pol'"):
        PlainConvNet(plan=[8, "pol"], batch_norm=True, pooled=1, width=1.0, num_classes=10, in_channels=3)  # type: ignore[list-item]
    with pytest.raises(ValueError, match=r"model.width=0.3; .*0.35"):
        mobilenetv2_cifar(width=0.3, num_classes=10, in_channels=3)


def test_every_model_config_says_what_it_is() -> None:
    for path in sorted(Path(config_dir() / "model").glob("*.yaml")):
        assert path.read_text(encoding="utf-8").startswith("# "), path.name
