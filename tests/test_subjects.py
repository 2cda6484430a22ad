"""What is benched: names, rates of the whole network, groups, runs, files, and what is wrong with each."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

import espalier
from espalier import subjects
from espalier.constraints import BLOCK_PUNCHED
from espalier.record import Record, Store
from espalier.subjects import own_subject, random_subject, run_subject

QUICK = {"name": "resnet8_cifar", "constraint": "block_punched", "group": (8, 4)}


def test_the_rate_counts_the_whole_network_and_the_stem_stays_dense() -> None:
    subject = random_subject(**QUICK, rate=3.0)
    assert subject.rate_macs == pytest.approx(3.0, rel=0.01)
    assert subject.model.get_parameter("conv1.weight").count_nonzero() == 3 * 16 * 9
    kept = subject.model.get_parameter("layer3.0.conv2.weight")
    assert kept.count_nonzero() / kept.numel() == pytest.approx(1 / 3.4, abs=0.06)
    assert (subject.group, subject.constraint, subject.split, subject.weights) == ("8x4", ("block_punched 8x4",), "uniform", "random")
    assert subject.inputs[0].shape == (1, 3, 32, 32)
    assert not torch.equal(*subject.inputs)
    assert not any(parameter.requires_grad for parameter in subject.model.parameters())


def test_the_seed_decides() -> None:
    first, same, other = (random_subject(**QUICK, rate=2.0, seed=seed) for seed in (0, 0, 1))
    states = [torch.cat([value.float().flatten() for value in one.model.state_dict().values()]) for one in (first, same, other)]
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


def test_rate_1_prunes_nothing() -> None:
    subject = random_subject(**QUICK, rate=1.0)
    assert (subject.rate_macs, subject.split, subject.group) == (1.0, "dense", None)


@pytest.mark.parametrize("flags", [("avx2", "avx512f"), ("avx2",)])
@pytest.mark.parametrize("constraint", ["block_punched", "kgs", "vanilla", "block_column", "filter", "block_row"])
def test_the_group_is_the_machines_where_the_structure_has_one(
    flags: tuple[str, ...], constraint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subjects, "cpu", lambda: type("Cpu", (), {"flags": flags}))
    wide = "avx512f" in flags
    blocks = {"block_column": "32" if wide else "16", "filter": None, "block_row": "8x32"}
    wanted = blocks.get(constraint, "32x4" if wide else "16x4")
    assert random_subject("resnet8_cifar", constraint=constraint, rate=1.5).group == wanted


def test_depthwise_layers_stay_dense() -> None:
    subject = random_subject("mobilenetv2_cifar", constraint="block_punched", rate=2.0)
    convolutions = [module for module in subject.model.modules() if isinstance(module, nn.Conv2d)]
    assert all(module.weight.count_nonzero() == module.weight.numel() for module in convolutions if module.groups > 1)
    assert subject.rate_macs == pytest.approx(2.0, rel=0.02)


def test_a_timm_network_takes_its_own_input_or_another() -> None:
    subject = random_subject("resnet10t", constraint="block_punched", rate=2.0, shape=(3, 64, 64))
    assert subject.inputs[0].shape == (1, 3, 64, 64)
    assert subject.rate_macs == pytest.approx(2.0, rel=0.01)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "rate", "counted", "split"),
    [
        ("c3d", 3.57, 3.57, "rt3d/c3d-3.57x"),
        ("c3d", 2.52, 2.53, "rt3d/c3d-2.53x"),
        ("r2plus1d_18", 3.2, 3.23, "rt3d/r2plus1d_18-3.20x"),
        ("r2plus1d_18", 4.0, 4.0, "uniform"),
    ],
)
def test_video_networks_take_the_released_rates(name: str, rate: float, counted: float, split: str) -> None:
    subject = random_subject(name, constraint="kgs", group=(8, 4), rate=rate)
    assert subject.rate_macs == pytest.approx(counted, abs=0.01)
    assert subject.split == split


def test_released_rates_are_for_their_rate_and_structure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        subjects.KNOWN, "resnet8_cifar", replace(subjects.KNOWN["vgg16_cifar"], config="resnet8_cifar", splits={2.53: "file"})
    )
    monkeypatch.setattr(subjects, "rate_file", lambda name: name)
    monkeypatch.setattr(subjects, "read_rate_file", lambda path: type("Rates", (), {"rates": {"layer3.*": 2.0}}))
    splits = {
        (rate, constraint): random_subject("resnet8_cifar", constraint=constraint, group=(4, 4), rate=rate).split
        for rate, constraint in ((2.52, "kgs"), (2.5, "kgs"), (2.53, "block_punched"))
    }
    assert splits == {(2.52, "kgs"): "file", (2.5, "kgs"): "uniform", (2.53, "block_punched"): "uniform"}


def test_the_seed_decides_the_inputs_too() -> None:
    model, example = nn.Sequential(nn.Conv2d(4, 8, 3)), torch.zeros(1, 4, 5, 5)
    first, same, other = (own_subject(model, example, seed=seed).inputs for seed in (0, 0, 1))
    assert all(map(torch.equal, first, same))
    assert not torch.equal(first[0], other[0])


def test_a_file_that_cannot_be_rebuilt_says_what_python_can_do(tmp_path: Path) -> None:
    espalier.save(nn.Sequential(nn.Conv2d(4, 8, 3)), tmp_path / "own.safetensors")
    with pytest.raises(ValueError, match=r"only Python can then do: model = espalier.load\('.*own.safetensors', network\)"):
        run_subject(str(tmp_path / "own.safetensors"), shape=(4, 5, 5))


def test_a_network_of_ones_own_is_copied_with_its_sets() -> None:
    model = espalier.prune(nn.Sequential(nn.Conv2d(4, 8, 3)), constraint="filter", rate=2).train()
    subject = own_subject(model, torch.zeros(1, 4, 5, 5))
    assert model.training
    assert model.get_parameter("0.weight").requires_grad
    assert not subject.model.training
    assert espalier.frozen(subject.model) is not None


@pytest.mark.slow
def test_the_names_of_the_readme_are_known() -> None:
    for name, macs in (("vgg16_cifar", 313.2e6), ("resnet50", 4.09e9), ("mobilenetv2", 300.8e6)):
        assert random_subject(name, constraint="block_punched", rate=2.0).macs == pytest.approx(macs, rel=1e-3)


def test_a_run_and_its_file_are_benched_as_they_are(store_folder: Path) -> None:
    (record,) = espalier.run("progressive-admm/lenet5", rows=["admm-70x"], overrides=["budgets.smoke.train=1"])
    assert isinstance(record, Record)
    subject = run_subject("progressive-admm/lenet5/admm-70x")
    assert (subject.name, subject.weights, subject.split) == (record.name, "trained", "checkpoint")
    assert subject.rate_macs > 1.0
    assert subject.inputs[0].shape[1:] == tuple(record.input_shape or ())
    assert espalier.frozen(subject.model) is not None
    path = store_folder / record.name / "model.safetensors"
    again = run_subject(str(path), shape=subject.inputs[0].shape[1:])
    assert again.macs_effective == subject.macs_effective
    with pytest.raises(ValueError, match=r"model.safetensors does not say what its network takes; add input=, such as input=3x32x32"):
        run_subject(str(path))
    with pytest.raises(ValueError, match=r"add --input, such as --input 3x32x32"):
        run_subject(str(path), word="--input")
    assert again.weights == "trained"  # its run is here, and says so
    assert run_subject(str(path), shape=subject.inputs[0].shape[1:], store=Store(store_folder / "another")).weights == "as given"


def test_a_network_of_ones_own_keeps_the_zeros_it_has() -> None:
    model = espalier.prune(nn.Sequential(nn.Conv2d(4, 8, 3), nn.Flatten()), constraint=BLOCK_PUNCHED.sized([4, 4]), rate=2)
    subject = own_subject(model, torch.zeros(1, 4, 5, 5))
    assert (subject.name, subject.weights, subject.group, subject.rate_macs) == ("Sequential", "as given", "4x4", 2.0)
    with pytest.raises(ValueError, match="a batch of one that it takes, and has none"):
        own_subject(model, None)
    with pytest.raises(ValueError, match="and has 2 samples"):
        own_subject(model, torch.zeros(2, 4, 5, 5))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "resnet5O"}, r"model=resnet5O is neither one of vgg16_cifar.*nearest: resnet50"),
        ({"rate": 0.5}, r"rate=0.5 is not a pruning rate; .*starts at 1"),
        ({"rate": 1e6}, r"rate=1e\+06 for the whole model cannot be had.*largest possible is"),
        ({"constraint": "levels"}, r"constraint=levels keeps no groups of weights.*take .*block_punched"),
        ({"constraint": "block_punch"}, r"constraint=block_punch is no structure; nearest: block_punched"),
        ({"group": (8,)}, r"blocks=\[8\] do not fit 'block_punched'; it takes 2 sizes"),
    ],
    ids=["name", "rate-low", "rate-high", "no-groups", "structure", "group"],
)
def test_bad_input_names_the_value_and_the_way_out(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        random_subject(**{"rate": 2.0, **QUICK, **changes})  # type: ignore[arg-type]


def test_a_network_without_weights_is_refused() -> None:
    with pytest.raises(ValueError, match="Flatten has no layer with weights"):
        own_subject(nn.Flatten(), torch.zeros(1, 4))
