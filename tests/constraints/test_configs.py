"""Every constraint of the config, and the identity of rows that have run before the newer ones came."""

import json
from pathlib import Path

import pytest
import yaml
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import nn

from espalier.composing import composed, identity_of, register_rows, resolved
from espalier.constraints import assign

ROOT = Path(__file__).parents[2]
CONF = ROOT / "conf" / "constraint"
SHARED = {"set", "rate", "rates", "kept", "rate_file", "include", "skip"}
OWN = {"blocks", "rate_of", "costs"}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(8, 16, 3)
        self.bn1 = nn.BatchNorm2d(16)
        self.conv2 = nn.Conv2d(16, 32, 3)
        self.fc = nn.Linear(32, 24)


@pytest.mark.parametrize("path", sorted(CONF.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_constraint_of_the_config_assigns(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    content = yaml.safe_load(text)
    assert SHARED <= content.keys() <= SHARED | OWN
    assert text.startswith("# ")
    assert "Source: " in text or path.stem in ("nm", "budget"), "where the set comes from"
    config = OmegaConf.create({"rate": 2.0, "constraint": content}).constraint
    knobs = {key: value for key, value in config.items() if key not in ("set", "rate_file")}
    model = Net()
    assignment = assign(model, instantiate(config.set), **knobs)
    weights = assignment.read(model)
    projected = assignment.project(weights)
    assert assignment.freeze(weights).outside(projected) == 0
    assert any(not weight.equal(projected[target]) for target, weight in weights.items())


@pytest.mark.parametrize("row", ["admm-70x", "progressive-246x"])
def test_rows_that_have_run_keep_their_identity(row: str) -> None:
    folder = ROOT / "experiments" / "progressive-admm" / "results" / "lenet5" / row / "desk"
    records = [json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("seed0-*/record.json")]
    register_rows("progressive-admm/lenet5", "desk")
    config = resolved(composed("progressive-admm/lenet5", [f"row={row}", "scale=desk", "seed=0"]))
    assert [record["config"] for record in records] == [identity_of(config, records[0]["config"]["fingerprint"])]


@pytest.mark.parametrize("blocks", [[4, 2], [16, 4]], ids=str)
def test_block_sizes_come_from_constraint_blocks(blocks: list[int]) -> None:
    overrides = ["row=admm-70x", "scale=smoke", "constraint=block_punched", f"constraint.blocks={blocks}", "rate=4"]
    register_rows("progressive-admm/lenet5", "smoke")
    config = resolved(composed("progressive-admm/lenet5", overrides))
    constraint = config["recipe"]["steps"]["constrain"]["constraint"]
    assert constraint["set"]["structure"]["blocks"] == blocks == constraint["blocks"]
