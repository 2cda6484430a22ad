"""A model and data of one's own through every verb, and a folder of one's own with a paper, a method and a structure."""

import json
import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import espalier
from espalier import cli
from espalier.composing import composed, resolved
from espalier.importing import imported
from espalier.packing import unpack
from espalier.record import Record
from espalier.running import run
from espalier.tables.published import paper
from pictures import write_classes

NET = """
from torch import nn

class Net(nn.Module):
    def __init__(self, num_classes, in_channels=3):
        super().__init__()
        self.first = nn.Conv2d(in_channels, 8, 3, stride=2)
        self.second = nn.Conv2d(8, 8, 3)
        self.fc = nn.Linear(8, num_classes)

    def forward(self, images):
        return self.fc(self.second(self.first(images).relu()).relu().mean((2, 3)))
"""
QUICK = ["budgets.smoke.train=1", "budgets.smoke.admm=2", "budgets.smoke.retrain=1", "logger=none"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Stand in a folder with a network and pictures of one's own."""
    (tmp_path / "own_net_under_test.py").write_text(NET)
    write_classes(tmp_path / "photos", count=10)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*sys.path])
    monkeypatch.setenv("ESPALIER_CONFIG", str(tmp_path))  # undone after the test, whatever --config-dir sets
    monkeypatch.delenv("ESPALIER_CONFIG")
    yield tmp_path
    sys.modules.pop("own_net_under_test", None)


def own(*words: str, root: str = "photos") -> Record:
    words = ("model=python", "model.target=own_net_under_test:Net", *words)
    (record,) = run("own/model", overrides=[*words, "data=imagefolder", f"data.root={root}", "data.size=16", *QUICK])
    return record


def test_a_network_and_photographs_of_ones_own_train_load_and_measure(folder: Path) -> None:
    record = own("method=magnitude", "constraint=filter", "rate=2")
    assert record.variant
    assert (record.paper, record.table, record.row) == ("own", "model", "pruned")
    assert record.input_shape == (3, 16, 16)
    assert record.metrics["weights_outside_set"] == 0
    assert record.config["model"]["num_classes"] == record.config["data"]["num_classes"] == 3
    assert "root" not in record.config["data"]
    assert dict(record.config["steps"])["train"]["optimizer"]["lr"] == 0.01, "weights of unknown origin start as trained ones"
    path = folder / "runs" / record.name / "model.safetensors"
    with pytest.raises(ValueError, match=r"names .*own_net_under_test:Net; pass trust=True"):
        espalier.load(path)
    model = espalier.load(path, trust=True)
    kept = model.get_submodule("second").weight.detach().flatten(1).any(1)
    assert int(kept.sum()) == 4
    assert len(espalier.measure_runs(record.name, num_warmup=1, num_runs=3)) == 1
    shutil.move(folder / "photos", folder / "elsewhere")
    assert own("method=magnitude", "constraint=filter", "rate=2", root="elsewhere") == record, "where images lie is no part of a run"


def test_weights_of_ones_own_are_known_by_content_not_by_place(folder: Path) -> None:
    torch.manual_seed(3)
    torch.save(imported("own_net_under_test:Net", "model.target")(5).state_dict(), "five.pt")
    shutil.copy("five.pt", "copy.pt")
    words = ("recipe=train", "budgets.smoke.train=1")
    record = own("model.checkpoint=five.pt", *words)
    assert own("model.checkpoint=copy.pt", *words) == record
    assert "checkpoint" not in record.config["model"]
    assert re.fullmatch("[0-9a-f]{64}", record.config["model"]["checkpoint_digest"])
    assert own(*words).name != record.name
    _, _, meta = unpack(folder / "runs" / record.name / "model.safetensors")
    assert (meta["model"]["checkpoint"], meta["model"]["checkpoint_digest"]) == (None, None), "a checkpoint brings all weights itself"
    with pytest.raises(ValueError, match=r"model\.checkpoint=six\.pt: there is no such file"):
        own("model.checkpoint=six.pt", *words)


@pytest.mark.slow
def test_a_papers_row_takes_a_network_of_timm_and_photographs() -> None:
    words = ["model=timm", "model.name=test_resnet", "data=imagefolder", "data.root=photos", "data.size=32", "constraint=filter"]
    rate = ["constraint.rate_file=null", "constraint.skip=[first_conv,last_linear]", "rate=2"]
    (record,) = run("progressive-admm/lenet5", rows=["admm-70x"], overrides=[*words, *rate, *QUICK, "recipe=finetune"])
    assert record.variant
    assert record.input_shape == (3, 32, 32)
    assert dict(record.config["steps"])["train"]["optimizer"]["lr"] == 0.01
    model = espalier.load(f"runs/{record.name}/model.safetensors")
    assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 3)
    assert record.config["data"]["resize"] == 33, "timm's crop of this network is 0.95"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["model=lenet5", "model.in_channels=3"], r"cannot take images of imagefolder, \(3, 16, 16\): .*data\.size"),
        (["model=resnet8_cifar", "model.num_classes=4", "model.width=0.25"], "has 4 outputs, imagefolder has 3 classes"),
        (["model=python", "model.target=torch.nn:Flatten", "model.args.start_dim=1"], r"has 768 outputs, imagefolder has 3 classes"),
        (["model=python", "model.target=torch.nn:Identity"], r"gives a tensor of shape \(1, 3, 16, 16\) for one image"),
        (["model=timm", "model.name=test_resnet", "data.size=32", "data.batch_size=1"], r"batches of 1: .*batch_size to 2 or more"),
        (["model=python", "model.target=own_net_under_test:Nett"], "has no 'Nett'; did you mean 'Net'"),
        (["model=timm", "model.name=resnet_18"], r"is not in timm .*; nearest: "),
    ],
)
def test_what_does_not_go_together_is_refused_before_training(words: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run("own/model", overrides=["data=imagefolder", "data.root=photos", "data.size=16", *words, *QUICK])
    assert not list(Path("runs").glob("**/record.json"))


def test_depthwise_layers_have_a_rule_that_the_message_names() -> None:
    words = ["model=timm", "model.name=mobilenetv3_small_050", "constraint=channel"]
    with pytest.raises(
        ValueError, match=r"conv_dw\.weight: .* is a single group .* The rule 'depthwise' in constraint\.skip leaves out all"
    ):
        run("own/model", overrides=[*words, "data=imagefolder", "data.root=photos", "data.size=32", *QUICK])


@pytest.mark.parametrize(("data", "root"), [("imagefolder", ["data.root=photos"]), ("imagenet_50k", [])])
def test_photographs_follow_the_network_unless_a_number_is_given(data: str, root: list[str]) -> None:
    def form(*words: str) -> list:
        found = resolved(composed("own/model", ["row=pruned", f"data={data}", *root, *words]))["data"]
        return [found[key] for key in ("size", "resize", "interpolation", "mean", "std", "crop_pad")]

    usual = [224, 256, "bilinear", [0.485, 0.456, 0.406], [0.229, 0.224, 0.225], 28]
    assert form() == usual
    assert form("model=timm", "model.name=vit_tiny_patch16_224") == [224, 248, "bicubic", [0.5] * 3, [0.5] * 3, 28]
    assert form("model=timm", "model.name=vit_tiny_patch16_224", "data.size=64", "data.mean=[0.1,0.2,0.3]") == [
        *(64, 71, "bicubic"),
        [0.1, 0.2, 0.3],
        *([0.5] * 3, 8),
    ]


def test_the_start_is_that_of_the_weights() -> None:
    def rate(*words: str) -> float:
        step = resolved(composed("own/model", ["row=pruned", *words]))["recipe"]["steps"]["train"]
        return float(step["optimizer"]["lr"])

    assert rate() == rate("model=timm") == 0.1
    assert rate("model=timm", "model.pretrained=true") == rate("model=python", "model.target=a:b") == 0.01
    assert rate("model=timm", "model.pretrained=true", "start=scratch") == 0.1
    assert rate("model=timm", "model.pretrained=true", "optimizers.train.lr=0.3") == 0.3


def test_the_default_row_runs_on_embedded_data() -> None:
    config = resolved(composed("own/model", ["row=pruned"]))
    assert (config["paper"], config["table"], config["row"]) == ("own", "model", "pruned")
    assert paper("own").facts.house
    assert "own" not in {entry.paper for entry in espalier.papers()}


OWN_PAPER = {
    "experiments/mine/paper.yaml": """
name: mine
title: A paper of my own
authors: [Me]
venue: desk
year: 2026
summary: Filters die in pairs.
main_table: tab
""",
    "experiments/mine/tables/tab.yaml": """
paper: mine
table: tab
title: Pairs
source: {where: here, provenance: proposal}
data: {smoke: photos}
seeds: {smoke: [0]}
columns: {top1_pct: {}, rate: {}}
rows:
  dense: {overrides: [recipe=train]}
  pairs: {overrides: [recipe=one_shot, method=pull_under_test, constraint=filter_pair, rate=2], cells: {top1_pct: 90}}
""",
    "experiment/mine/tab.yaml": """
# @package _global_
defaults: [/experiment/base/own@_global_, override /model: small, _self_]
paper: mine
table: tab
""",
    "data/photos.yaml": """
defaults: [imagefolder]
root: photos
name: photos
size: 16
""",
    "model/small.yaml": """
defaults: [python]
target: own_net_under_test:Net
""",
    "constraint/filter_pair.yaml": """
defaults: [filter]
set: {structure: {_target_: espalier.Structure, pattern: "(i f) ... -> i (f ...)", name: filter_pair, blocks: {f: 2}, source: my own}}
""",
    "method/pull_under_test.yaml": """
_target_: pull_under_test.Pull
_partial_: true
share: 0.05
""",
    "code/pull_under_test.py": """
import torch
from espalier.methods import Magnitude

class Pull(Magnitude):
    def __init__(self, assignment, *, epochs, share, frozen=None):
        super().__init__(assignment, epochs=epochs, frozen=frozen)
        self.share = share

    @torch.no_grad()
    def after_step(self, model):
        for target, nearest in self.assignment.project(self.assignment.read(model)).items():
            target.view(model).lerp_(nearest, self.share)
        super().after_step(model)
""",
}


@pytest.fixture
def own_folder(folder: Path) -> Path:
    for name, text in OWN_PAPER.items():
        (folder / "my-conf" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "my-conf" / name).write_text(text.lstrip())
    return folder / "my-conf"


def call(*words: str) -> str:
    done = CliRunner().invoke(cli.app, list(words), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_a_paper_a_method_and_a_structure_from_a_folder_of_ones_own(own_folder: Path) -> None:
    call("run", "mine/tab", "--config-dir", str(own_folder), *QUICK)
    assert os.environ["ESPALIER_CONFIG"] == str(own_folder)
    cells = json.loads(call(f"--config-dir={own_folder}", "table", "mine/tab", "--scale", "smoke", "--json"))
    assert {cell["published"] for cell in cells if (cell["row"], cell["column"]) == ("pairs", "top1_pct")} == {90}
    (record,) = [entry for entry in json.loads(call("runs", "--json")) if "/pairs/" in entry["run"]]
    found = espalier.find(record["run"])
    assert dict(found.config["steps"])["constrain"]["method"]["_target_"] == "pull_under_test.Pull"
    assert found.metrics["weights_outside_set"] == 0
    assert {"mine"} <= {entry["paper"] for entry in json.loads(call("papers", "--json"))}


def test_a_folder_that_is_not_there_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = CliRunner().invoke(cli.app, ["papers", "--config-dir", "nowhere"])
    assert done.exit_code == 2
    assert "nowhere" in done.stderr
    monkeypatch.setenv("ESPALIER_CONFIG", "nowhere")
    with pytest.raises(ValueError, match=r"ESPALIER_CONFIG \(--config-dir\) is nowhere, which is no folder"):
        run("own/model")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("experiment/mine/tab.yaml", None, "Could not find 'experiment/mine/tab'"),
        ("method/pull_under_test.yaml", "_target_: [", r"a config is no YAML: .*pull_under_test\.yaml"),
        ("method/pull_under_test.yaml", "_target_: pull_under_test.Pul\n_partial_: true\nshare: 1\n", r"pull_under_test\.Pul"),
        ("experiments/mine/tables/tab.yaml", OWN_PAPER["experiments/mine/tables/tab.yaml"].replace("rows:", "rowz:"), "rowz"),
    ],
    ids=["no experiment", "no YAML", "no class", "unknown key"],
)
def test_a_mistake_in_it_is_named(own_folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str | None, message: str) -> None:
    monkeypatch.setenv("ESPALIER_CONFIG", str(own_folder))
    if text is None:
        (own_folder / name).unlink()
    else:
        (own_folder / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        run("mine/tab", rows=["pairs"], overrides=QUICK)
