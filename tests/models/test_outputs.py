"""Outputs of every network at smoke width against tests/golden/models.json; to renew them: python tests/models/test_outputs.py"""

import json
from pathlib import Path

import pytest
import torch
from test_counts import config

from espalier.runner import built
from espalier.workload import workload

GOLDEN = Path(__file__).parents[1] / "golden" / "models.json"
SMOKE = {
    "lenet300_100": 0.1,
    "lenet5": 0.25,
    "resnet8_cifar": 0.25,
    "resnet20_cifar": 0.25,
    "resnet32_cifar": 0.25,
    "resnet56_cifar": 0.25,
    "resnet32x2_cifar": 0.25,
    "resnet18_cifar": 0.125,
    "vgg16_bn_cifar": 0.125,
    "vgg19_bn_cifar": 0.125,
    "vgg_tiny": 0.25,
    "conv4": 0.5,
    "conv4_wide": 0.25,
    "convnet_cifar": 0.25,
    "mobilenetv2_cifar": 0.35,
    "c3d": 0.125,
    "r2plus1d_18": 0.125,
}
CLIPS = {"c3d": {"side": 32}, "r2plus1d_18": {}}  # networks that take clips, here of 16 frames of 32x32: what their configs change for it


def figures(name: str) -> dict[str, object]:
    """Return counts and logits of a freshly seeded network on one seeded image or clip."""
    settings = config(name, width=SMOKE[name], **CLIPS.get(name, {}))
    torch.manual_seed(0)
    model = built(settings)
    side = 28 if name.startswith("lenet") else 32
    frames = [16] if name in CLIPS else []
    image = torch.rand(1, int(str(settings["in_channels"])), *frames, side, side, generator=torch.Generator().manual_seed(1))
    work = workload(model, image)
    with torch.no_grad():
        logits = model.eval()(image).flatten()
    return {"parameters": work.parameters, "macs": work.macs, "logits": [round(float(logit), 5) for logit in logits]}


@pytest.mark.parametrize("name", SMOKE)
def test_outputs_are_as_committed(name: str) -> None:
    found, wanted = figures(name), json.loads(GOLDEN.read_text(encoding="utf-8"))[name]
    assert (found["parameters"], found["macs"]) == (wanted["parameters"], wanted["macs"])
    assert found["logits"] == pytest.approx(wanted["logits"], rel=1e-3, abs=1e-3)


def test_every_network_of_a_paper_has_its_golden_outputs() -> None:
    from espalier.composing import config_dir

    assert {path.stem for path in (config_dir() / "model").glob("*.yaml")} == SMOKE.keys() | {
        "timm",
        "python",
    }  # those two are nobody's in particular
    assert json.loads(GOLDEN.read_text(encoding="utf-8")).keys() == SMOKE.keys()


if __name__ == "__main__":
    lines = ",\n".join(f' "{name}": {json.dumps(figures(name))}' for name in SMOKE)
    GOLDEN.write_text("{\n" + lines + "\n}\n", encoding="utf-8")
