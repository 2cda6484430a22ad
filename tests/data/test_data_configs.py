"""Data and model configs go together: networks take classes and channels from the data set that a run names."""

import pytest
import torch

from espalier.composing import composed, config_dir, identity_of, resolved
from espalier.data import digits_rgb
from espalier.runner import built

TABLE = "progressive-admm/lenet5"


@pytest.mark.parametrize(
    ("data", "classes", "channels"),
    [("mnist", 10, 1), ("digits", 10, 1), ("digits_rgb", 10, 3), ("cifar10_5k", 10, 3), ("cifar100", 100, 3), ("imagenet_50k", 1000, 3)],
)
def test_networks_follow_the_data(data: str, classes: int, channels: int) -> None:
    config = resolved(composed(TABLE, [f"data={data}", "model=vgg_tiny", "model.width=0.25"]))
    assert (config["model"]["num_classes"], config["model"]["in_channels"]) == (classes, channels)
    model = built(config["model"]).eval()
    with torch.no_grad():
        assert model(torch.zeros(1, channels, 32, 32)).shape == (1, classes)


def test_timm_follows_the_data() -> None:
    config = resolved(composed(TABLE, ["data=cifar100", "model=timm", "model.name=mobilenetv2_035"]))
    model = built(config["model"]).eval()
    with torch.no_grad():
        assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 100)


@pytest.mark.parametrize("data", ["digits", "mnist", "mnist_10k"])
def test_configs_of_existing_records_have_no_new_key(data: str) -> None:
    config = resolved(composed(TABLE, [f"data={data}"]))
    keys = {"_target_", "batch_size", "eval_batch_size", "mean", "std", "channels_last"}
    assert identity_of(config, None)["data"].keys() == keys | (set() if data == "digits" else {"name", "num_train", "num_val"})


def test_every_data_config_builds_or_names_what_is_missing() -> None:
    own = {"imagefolder": r"needs data\.root", "python": r"data\.target is not given"}  # of the user's, found when the config resolves
    for path in sorted((config_dir() / "data").glob("*.yaml")):
        if path.stem in own:
            with pytest.raises(ValueError, match=own[path.stem]):
                resolved(composed(TABLE, [f"data={path.stem}"]))
            continue
        config = resolved(composed(TABLE, [f"data={path.stem}"]))["data"]
        if path.stem.startswith("digits"):
            assert built(config).name == path.stem
        else:
            with pytest.raises(ValueError, match="ESPALIER_DATA"):
                built(config)


def test_digits_in_colour_have_the_stated_statistics_and_no_repeated_channel() -> None:
    config = resolved(composed(TABLE, ["data=digits_rgb"]))["data"]
    data = built(config)
    assert isinstance(data, type(digits_rgb(**{key: value for key, value in config.items() if key != "_target_"})))
    assert data.input_shape == (3, 32, 32)
    assert (len(data.train), len(data.val), len(data.test)) == (1297, 200, 300)
    pixel = data.train.images.double() / 255
    assert pixel.mean((0, 2, 3)).tolist() == pytest.approx(config["mean"], abs=0.005)
    assert pixel.std((0, 2, 3)).tolist() == pytest.approx(config["std"], abs=0.006)
    first, second = pixel[:, 0].flatten(), pixel[:, 1].flatten()
    assert float(torch.corrcoef(torch.stack([first, second]))[0, 1]) < 0.95
