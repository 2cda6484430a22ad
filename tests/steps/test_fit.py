"""Training that stops: a loss that is not finite, and going on from the checkpoint it leaves."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from surroundings import SGD, context, network

from espalier.steps.fit import fit
from espalier.tasks import NonFiniteLossError, constant


def exploding(epoch: int, epochs: int, milestones: list[int]) -> float:
    return 1e30 if epoch == 2 else 1.0


def test_training_goes_on_from_the_last_good_epoch_once_the_rate_is_lowered(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"epochs": 4, "first_epoch": 0, "method": None}
    with pytest.raises(NonFiniteLossError, match=r"not finite at step \d of epoch 2 \(learning rate 5e\+28\).*the epoch before is kept"):
        fit(network(), context(tmp_path), optimizer=SGD, schedule=exploding, **settings)
    kept = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert kept["epoch"] == 1
    assert all(value.isfinite().all() for value in kept["state_dict"].values())
    seen: list[int] = []
    surroundings = context(tmp_path, on_epoch=lambda progress, _: seen.append(progress))
    fitted = fit(network(), surroundings, optimizer=partial(torch.optim.SGD, lr=0.01), schedule=constant, **settings)
    assert seen == [1, 2, 3, 4]  # told of all, though the first two were trained before
    assert [rate for _, rate in fitted.series["train/lr"]] == [0.05, 0.05, 0.01, 0.01]
    assert all(value.isfinite().all() for value in fitted.last.values())


def test_training_flushes_numbers_too_small_for_full_precision(tmp_path: Path) -> None:
    """They cost a CPU several times the time: an epoch of LeNet-5 grew from 12 to 34 s as masked weights and their moments sank there."""
    seen: list[float] = []

    def watch(epoch: int, epochs: int, milestones: list[int]) -> float:
        seen.append(float(torch.tensor(1e-30) * torch.tensor(1e-10)))
        return 1.0

    torch.set_flush_denormal(False)
    fit(network(), context(tmp_path), optimizer=SGD, schedule=watch, epochs=1, first_epoch=0, method=None)
    assert seen
    assert set(seen) == {0.0}
    assert float(torch.tensor(1e-30) * torch.tensor(1e-10)) > 0  # and leaves the arithmetic of others alone
