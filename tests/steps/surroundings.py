"""A small network, noise to train on, and a step's surroundings."""

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from espalier.constraints import UNSTRUCTURED, Assignment, Sparse, Structure, assign
from espalier.data import ImageData, Split
from espalier.methods import ADMM, RhoSchedule
from espalier.steps import Context, State, constrain
from espalier.tasks import Classification, constant

Optimizer = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
SGD: Optimizer = partial(torch.optim.SGD, lr=0.05, momentum=0.9, weight_decay=1e-2)
TRAINING: dict[str, Any] = {"optimizer": SGD, "schedule": constant}


def network(*, batch_norm: bool = False) -> nn.Module:
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(6) if batch_norm else nn.Identity()
    return nn.Sequential(nn.Conv2d(1, 6, 3), norm, nn.ReLU(), nn.Flatten(), nn.Linear(6 * 36, 4))


def data() -> ImageData:
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (96, 1, 8, 8), generator=generator, dtype=torch.uint8)
    split = Split(images, torch.randint(0, 4, (96,), generator=generator))
    return ImageData("noise", split, split, split, 4, batch_size=32, eval_batch_size=96, mean=0.5, std=0.3, channels_last=False)


def context(folder: Path, *, batch_norm: bool = False, **changes: Any) -> Context:
    settings: dict[str, Any] = {
        "name": "step",
        "key": "key",
        "seed": 0,
        "folder": folder,
        "data": data(),
        "model": partial(network, batch_norm=batch_norm),
        "task": partial(Classification, label_smoothing=0.0),
        "trainer": {"accelerator": "cpu", "devices": 1, "gradient_clip_val": None, "enable_progress_bar": False},
        "test_every_epoch": False,
        "on_epoch": lambda *_: None,
    }
    return Context(**settings | changes)


def sparse(model: nn.Module, *, rate: float = 3.0, structure: Structure = UNSTRUCTURED) -> Assignment:
    return assign(model, partial(Sparse, structure), rate=rate)


def admm(assignment: Assignment, *, epochs: int, frozen: Assignment | None) -> ADMM:
    return ADMM(assignment, epochs=epochs, num_periods=2, rho=RhoSchedule(0.1, 1.5), frozen=frozen)


def pruned(surroundings: Context, *, rate: float = 3.0, epochs: int = 0, state: State | None = None) -> State:
    constraint = partial(sparse, rate=rate)
    return constrain(state or State(), surroundings, epochs=epochs, **TRAINING, method=admm, constraint=constraint, freeze=True)
