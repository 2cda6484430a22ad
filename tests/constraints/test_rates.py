from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import yaml
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import nn

from espalier.constraints import (
    CHANNEL,
    FILTER,
    UNSTRUCTURED,
    Assignment,
    Binary,
    Constraint,
    Sparse,
    Structure,
    UniformLevels,
    assign,
    read_rate_file,
)

CONF = Path(__file__).parents[2] / "conf" / "constraint"
sparse = partial(Sparse, UNSTRUCTURED)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 4, 3)
        self.bn1 = nn.BatchNorm2d(4)
        self.conv2 = nn.Conv2d(4, 8, 3)
        self.fc = nn.Linear(8, 10)


def rates_of(assignment: Assignment) -> dict[str, float]:
    found = {}
    for targets, constraint in assignment.parts:
        assert isinstance(constraint, Sparse)
        found |= {str(target): constraint.rate for target in targets}
    return found


def test_rate_applies_to_those_not_named_and_a_full_name_beats_a_glob() -> None:
    assignment = assign(Net(), sparse, rate=2, rates={"conv*": 4, "conv2": 8})
    assert rates_of(assignment) == {"conv1.weight": 4, "conv2.weight": 8, "fc.weight": 2}
    assert rates_of(assign(Net(), sparse, rates={"conv*": 4})) == {"conv1.weight": 4, "conv2.weight": 4}  # the others are free
    assert rates_of(assign(Net(), sparse, rate=2, skip=["conv1", "fc.weight"])) == {"conv2.weight": 2}
    assert rates_of(assign(Net(), sparse, rate=2, include=["conv*"])) == {"conv1.weight": 2, "conv2.weight": 2}


@pytest.mark.parametrize("kept", [1, 7, 100, 287, 288])
def test_kept_counts_come_out_exactly(kept: int) -> None:
    model = Net()
    assignment = assign(model, sparse, kept={"conv2": kept})
    assert sum(int(mask.sum()) for mask in assignment.freeze(assignment.read(model)).parts[0][1].masks.values()) == kept


def test_kept_weights_round_to_whole_groups() -> None:
    model = Net()
    assignment = assign(model, partial(Sparse, FILTER), kept={"conv2": 80})  # filters of 36 weights
    assert int((assignment.project(assignment.read(model))[assignment.targets[0]] != 0).sum()) == 72


def test_level_sets_take_no_rate() -> None:
    assignment = assign(Net(), partial(UniformLevels, bits=2, zero=False))
    assert [str(target) for target in assignment.targets] == ["conv1.weight", "conv2.weight", "fc.weight"]
    with pytest.raises(ValueError, match=r"UniformLevels takes no rate, but rate=4, .* are given; set them to null"):
        assign(Net(), partial(UniformLevels, bits=2, zero=False), rate=4)


@pytest.mark.parametrize(
    ("make", "knobs", "message"),
    [
        (sparse, {"rate": 2, "include": ["cnv1"]}, r"constraint\.include: 'cnv1' matches no .* layer; nearest: conv1"),
        (sparse, {"rate": 2, "skip": ["bn1"]}, r"constraint\.skip: 'bn1' matches no linear, convolution or recurrent layer"),
        (sparse, {"rates": {"conv9": 2}}, r"constraint\.rates: 'conv9' matches no .* nearest: conv"),
        (sparse, {"kept": {"conv9": 2}}, r"constraint\.kept: 'conv9' matches no"),
        (sparse, {"rates": {"conv*": 2, "*1": 4}}, r"'\*1' gives conv1\.weight a second rate after constraint\.rates: 'conv\*'"),
        (sparse, {"rates": {"conv1": 2}, "kept": {"conv1": 4}}, r"constraint\.kept: 'conv1' gives conv1\.weight a second rate"),
        (sparse, {"rates": {"conv1": 2}, "skip": ["conv1"]}, r"gives conv1\.weight a rate, but constraint\.include and skip leave it out"),
        (sparse, {"kept": {"conv1": 0}}, r"conv1\.weight has 36 weights, so 0 cannot be kept; give 1 to 36"),
        (sparse, {"kept": {"conv1": 37}}, r"so 37 cannot be kept"),
        (sparse, {"rate": 0.25}, r"conv1\.weight: rate=0\.25 is not a pruning rate"),
        (sparse, {}, r"Sparse needs a rate; give constraint\.rate"),
        (sparse, {"rate": 2, "skip": ["*"]}, r"no layer is left to constrain: .*the model has conv1\.weight, conv2\.weight, fc\.weight"),
        (Binary, {"kept": {"conv1": 4}}, r"Binary takes no rate"),
        (partial(Sparse, CHANNEL), {"rate": 2}, r"conv1\.weight: shape \(4, 1, 3, 3\) is a single group of .*constraint\.skip"),
    ],
)  # fmt: skip
def test_errors_name_value_rule_and_way_out(make: Callable[..., Constraint], knobs: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        assign(Net(), make, **knobs)  # type: ignore[arg-type]


def test_a_structure_that_does_not_fit_names_layer_and_way_out() -> None:
    kernels = Structure("kernel", "f c kh kw -> (f c) (kh kw)", {}, "a conv2d structure")
    with pytest.raises(ValueError, match=r"fc\.weight: kernel groups weights as .*shape \(10, 8\).*constraint\.skip"):
        assign(Net(), partial(Sparse, kernels), rate=2)


def test_rate_files(tmp_path: Path) -> None:
    path = tmp_path / "lenet5.yaml"
    path.write_text("source: Table 2\nprovenance: full text\nkept: {conv1: 100, conv2: 500}\n")
    content = read_rate_file(path)
    assert (content.source, content.provenance, content.kept, content.rates) == ("Table 2", "full text", {"conv1": 100, "conv2": 500}, {})
    with pytest.raises(ValueError, match=r"there is no rate file .*lenet.yaml; rate files there: lenet5"):
        read_rate_file(tmp_path / "lenet.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("source: x\nprovenance: full text\n", "give kept or rates, one of both"),
        ("source: x\nprovenance: full text\nkept: {a: 1}\nrates: {a: 2}\n", "give kept or rates, one of both"),
        ("source: x\nprovenance: hearsay\nkept: {a: 1}\n", "provenance: .*'full text'"),
        ("provenance: full text\nkept: {a: 1}\n", "source: Field required"),
        ("source: x\nprovenance: full text\nkept: {a: 1.5}\n", "kept.a: .*integer"),
        ("source: x\nprovenance: full text\nkeep: {a: 1}\n", "keep: Extra inputs are not permitted"),
        ("source: x\nprovenance: full text\nkept: {a: 1, a: 2}\n", ":3: key 'a' stands here a second time; remove one"),
        ("- 1\n", "is no rate file"),
        ("a: [\n", "is no YAML"),
    ],
    ids=["neither", "both", "provenance", "source", "fraction", "unknown-key", "twice", "list", "broken"],
)
def test_a_rate_file_of_another_form_names_the_key(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "rates.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=rf"rates\.yaml.*{message}"):
        read_rate_file(path)


@pytest.mark.parametrize("name", ["unstructured", "filter", "channel", "column", "levels", "power_of_two", "binary"])
def test_every_constraint_of_the_config_assigns(name: str) -> None:
    content = yaml.safe_load((CONF / f"{name}.yaml").read_text())
    assert content.keys() == {"set", "rate", "rates", "kept", "rate_file", "include", "skip"}
    config = OmegaConf.create({"rate": 4.0, "constraint": content}).constraint
    model = Net()
    skip = ["conv1"] if name == "channel" else config.skip
    assignment = assign(
        model, instantiate(config.set), rate=config.rate, rates=config.rates, kept=config.kept, include=config.include, skip=skip
    )
    weights = assignment.read(model)
    projected = assignment.project(weights)
    assert assignment.freeze(weights).outside(projected) == 0
    assert any(not weight.equal(projected[target]) for target, weight in weights.items())
