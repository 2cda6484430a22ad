"""Losses of a tiny LeNet-5 under each method, its outputs, and the integers that its sets make of it, against tests/golden."""

from functools import partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import golden_files
from espalier.constraints import FILTER, UNSTRUCTURED, Assignment, Sparse, Structure, UniformLevels, assign
from espalier.methods import ADMM, MaskedRetraining, PartialMap, RhoSchedule
from espalier.methods.method import Method
from espalier.models import LeNet5
from golden_files import Golden

STEPS_PER_EPOCH = 3
WIDTH = 0.2


def network(*, batch_norm: bool = False) -> LeNet5:
    torch.manual_seed(0)
    return LeNet5(width=WIDTH, num_classes=10, in_channels=1, batch_norm=batch_norm)


def batches() -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (STEPS_PER_EPOCH, 16, 1, 28, 28), generator=generator) / 255.0
    labels = torch.randint(0, 10, (STEPS_PER_EPOCH, 16), generator=generator)
    return list(zip(images, labels, strict=True))


def train(model: nn.Module, method: Method | None, epochs: int) -> list[float]:
    """Return the loss of each step of a bare loop."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    losses = []
    if method is not None:
        method.start(model)
    for _ in range(epochs):
        for images, labels in batches():
            optimizer.zero_grad()
            loss = F.cross_entropy(model(images), labels)
            losses.append(loss.item())
            loss.backward()
            if method is not None:
                method.add_penalty_grad(model)
            optimizer.step()
            if method is not None:
                method.after_step(model)
        if method is not None:
            method.epoch_end(model)
    return losses


def kept(assignment: Assignment, model: nn.Module) -> list[int]:
    return [int(weight.count_nonzero()) for weight in assignment.read(model).values()]


def test_dense_training(golden: Golden) -> None:
    model = network()
    integers = {"weights": [parameter.numel() for parameter in model.parameters()]}
    golden.check("dense", floats={"loss": train(model, None, epochs=2)}, integers=integers)


@pytest.mark.parametrize("structure", [UNSTRUCTURED, FILTER], ids=lambda structure: structure.name)
def test_admm_with_a_refresh_then_masked_retraining(golden: Golden, structure: Structure) -> None:
    model = network()
    sets = assign(model, partial(Sparse, structure), rate=4.0, skip=["fc2"])
    admm = ADMM(sets, epochs=2, num_periods=2, rho=RhoSchedule(0.1, 1.5))
    losses = {"admm/loss": train(model, admm, epochs=2), "admm/residual_max": [admm.figures["admm/residual_max"]]}
    with torch.no_grad():
        sets.write(model, sets.project(sets.read(model)))
        frozen = sets.freeze(sets.read(model))
    masked = MaskedRetraining(frozen)
    losses["masked/loss"] = train(model, masked, epochs=1)
    integers = {"kept": kept(sets, model), "outside": [frozen.outside(frozen.read(model))]}
    golden.check(f"admm_{structure.name}", floats=losses, integers=integers)


def test_partial_map(golden: Golden) -> None:
    model = network()
    levels = assign(model, partial(UniformLevels, 3, zero=False))
    with torch.no_grad():
        weights = levels.read(model)
        codes = {
            str(target): torch.bincount(constraint.level_index({target: weights[target]})[target].flatten(), minlength=8).tolist()
            for (target,), constraint in levels.parts
        }
    method = PartialMap(levels, epochs=2, fractions=[0.5, 0.9])
    method.start(network())
    pinned = [int(mask.sum()) for mask in method.held.pinned.values()]
    method = PartialMap(levels, epochs=2, fractions=[0.5, 0.9])
    losses = train(model, method, epochs=2)
    floats = {"loss": losses, "map/snapped_pct": [method.figures["map/snapped_pct"]]}
    golden.check("partial_map", floats=floats, integers=codes | {"pinned at the start": pinned})


@pytest.mark.parametrize("batch_norm", [False, True], ids=["plain", "batch-norm"])
def test_outputs_of_lenet5(golden: Golden, batch_norm: bool) -> None:
    model = network(batch_norm=batch_norm).eval()
    with torch.no_grad():
        logits = model(batches()[0][0][:2])
    name = "lenet5_batch_norm" if batch_norm else "lenet5"
    golden.check(name, floats={"logits": logits.flatten().tolist()}, integers={"shape": list(logits.shape)})


def test_golden_files_are_exact_here_near_elsewhere_and_whole_in_integers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    floats, integers = {"loss": [1.0, 2.0]}, {"kept": [3]}
    monkeypatch.setattr(golden_files, "machine_key", lambda: "here")
    with pytest.raises(AssertionError, match="pytest --golden-write"):
        Golden(tmp_path, write=False).check("one", floats=floats, integers=integers)
    Golden(tmp_path, write=True).check("one", floats=floats, integers=integers)
    check = partial(Golden(tmp_path, write=False).check, "one")
    check(floats=floats, integers=integers)
    with pytest.raises(AssertionError):
        check(floats={"loss": [1.0, 2.0000002]}, integers=integers)
    monkeypatch.setattr(golden_files, "machine_key", lambda: "elsewhere")
    check(floats={"loss": [1.0, 2.001]}, integers=integers)
    for wrong in ({"loss": [1.0, 2.01]}, {"loss": [1.0]}, {"other": [1.0, 2.0]}):
        with pytest.raises(AssertionError):
            check(floats=wrong, integers=integers)
    with pytest.raises(AssertionError):
        check(floats=floats, integers={"kept": [4]})
