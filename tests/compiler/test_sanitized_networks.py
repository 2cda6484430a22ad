"""Whole networks under ASan and UBSan, as stand-alone programs: a step stays inside its own tensors, nothing is undefined."""

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from random_networks import settle
from torch import Tensor, nn

from espalier.compiler.compiling import lowered_model
from espalier.compiler.emission import emitted
from espalier.compiler.isas import ISAS
from espalier.compiler.runtime.exporting import Origin, Reference, write_standalone
from espalier.devices import cpu
from espalier.interface import prune

RUNNABLE = [isa.name for isa in ISAS.values() if set(isa.flags) <= set(cpu().flags)]


class Computed(nn.Module):
    """Layers, and what a function makes of them and the input."""

    def __init__(self, function: Callable[..., Tensor], **layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleDict(layers)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.layers, x)


def chain(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(*layers)


def planes() -> tuple[nn.Module, Tensor]:
    """Every kind of 2D convolution: ragged channels, strides, dilation, groups, uneven maps, and each activation behind one."""
    return chain(
        *(nn.Conv2d(3, 40, 3, 2, 1), nn.ReLU6()),
        *(nn.Conv2d(40, 33, 3, padding=2, dilation=2), nn.ReLU()),
        *(nn.Conv2d(33, 24, 1), nn.SiLU()),
        *(nn.Conv2d(24, 48, (1, 5), padding=(0, 2), groups=4, bias=False), nn.Hardswish()),
        *(nn.Conv2d(48, 70, 1, 2), nn.GELU()),
        *(nn.Conv2d(70, 5, 2), nn.Tanh()),
        *(nn.Conv2d(5, 16, 1), nn.Hardtanh(-0.5, 0.75)),
        *(nn.Conv2d(16, 18, 1), nn.LeakyReLU(0.1)),
    ), torch.randn(1, 3, 23, 17)


def pruned(structure: str) -> tuple[nn.Module, Tensor]:
    model = chain(nn.Conv2d(32, 70, 3, padding=1), nn.ReLU(), nn.Conv2d(70, 64, 1), nn.Sigmoid(), nn.Conv2d(64, 33, 3, 2, 1))
    return prune(model.eval(), constraint=structure, rate=4), torch.randn(1, 32, 9, 9)


def volumes() -> tuple[nn.Module, Tensor]:
    """3D: convolutions along all axes, some and one, depthwise ones, pools, and a residual stream."""
    layers = {
        "first": nn.Conv3d(3, 20, 3, padding=1),
        "time": nn.Conv3d(20, 20, (3, 1, 1), padding=(1, 0, 0)),
        "space": nn.Conv3d(20, 20, (1, 3, 3), (1, 2, 2), (0, 1, 1)),
        "deep": nn.Conv3d(20, 20, 3, padding=1, groups=20),
        "norm": nn.GroupNorm(5, 20),
        "pool": nn.MaxPool3d(2, ceil_mode=True),
    }

    def function(layer: nn.ModuleDict, x: Tensor) -> Tensor:
        x = layer["first"](x).relu()
        x = layer["space"]((layer["time"](x) + x).relu())
        x = F.avg_pool3d(layer["norm"](layer["deep"](x) + x), 2, 1)
        return F.adaptive_avg_pool3d(layer["pool"](x), 1).flatten(1)

    return Computed(function, **layers), torch.randn(1, 3, 5, 9, 11)


def sequence() -> tuple[nn.Module, Tensor]:
    """1D, and batch norms that fold into nothing."""
    return chain(
        *(nn.Conv1d(5, 24, 3, padding=1), nn.ReLU(), nn.BatchNorm1d(24), nn.ReLU(), nn.Conv1d(24, 24, 5, groups=24, padding=2)),
        *(nn.MaxPool1d(3, 2), nn.BatchNorm1d(24), nn.SiLU(), nn.AvgPool1d(2), nn.Flatten(), nn.Linear(120, 7), nn.Softmax(-1)),
    ), torch.randn(1, 5, 21)


def depthwise() -> tuple[nn.Module, Tensor]:
    return chain(
        *(nn.Conv2d(40, 40, 3, padding=1, groups=40), nn.ReLU6(), nn.Conv2d(40, 40, 5, 2, 2, groups=40), nn.Hardswish()),
        *(nn.Conv2d(40, 80, 3, padding=1, groups=40), nn.ReLU(), nn.Conv2d(80, 80, 7, padding=6, dilation=2, groups=80, bias=False)),
        *(nn.BatchNorm2d(80), nn.Sigmoid(), nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Linear(720, 33)),
    ), torch.randn(1, 40, 15, 19)


def moves() -> tuple[nn.Module, Tensor]:
    """Concatenation, slices, pads, shuffles, resizing and gates on maps of ragged channels."""

    def function(layer: nn.ModuleDict, x: Tensor) -> Tensor:
        x = torch.cat([layer["first"](x), x, layer["last"](x)[:, 2:19]], 1)
        x = x.view(1, 2, 22, *x.shape[2:]).transpose(1, 2).reshape(x.shape)
        x = F.pad(x[..., 1:, ::2], (1, 2, 0, 3)) * layer["gate"](x.mean((2, 3))).sigmoid()[..., None, None]
        x = F.interpolate(x, scale_factor=2, mode="bilinear") - F.interpolate(x, scale_factor=2)
        return torch.cat([F.max_pool2d(x, 3, 2, 1), F.avg_pool2d(x, 3, 2, 1, count_include_pad=False)], 1).permute(0, 2, 3, 1)

    layers = {"first": nn.Conv2d(5, 22, 1), "last": nn.Conv2d(5, 20, 3, padding=1), "gate": nn.Linear(44, 44)}
    return Computed(function, **layers), torch.randn(1, 5, 9, 13)


def attention() -> tuple[nn.Module, Tensor]:
    """Tokens: layer norms, heads, softmax, both forms of GELU, linear layers of whole and of ragged vectors, over one row and many."""

    def function(layer: nn.ModuleDict, x: Tensor) -> Tensor:
        y = layer["norm"](x)
        q, k, v = layer["qkv"](y).view(1, 11, 3, 4, 9).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(1, 11, 36)
        x = x + layer["out"](y)
        x = x + layer["down"](F.gelu(layer["up"](x), approximate="tanh"))
        return layer["head"](F.gelu(layer["squeeze"](x)).mean(1)).softmax(-1)

    layers: dict[str, nn.Module] = {"norm": nn.LayerNorm(36), "qkv": nn.Linear(36, 108), "out": nn.Linear(36, 36, bias=False)}
    layers |= {"up": nn.Linear(36, 64), "down": nn.Linear(64, 36), "squeeze": nn.Linear(36, 21), "head": nn.Linear(21, 10)}
    return Computed(function, **layers), torch.randn(1, 11, 36)


def arithmetic() -> tuple[nn.Module, Tensor]:
    """Functions of one and two numbers, reductions along every axis, norms and products of matrices."""

    def function(layer: nn.ModuleDict, x: Tensor) -> Tensor:
        y = x.exp().sqrt() / (x.abs() + 1.5) - x.mean(-1, keepdim=True).maximum(x.mean(1, keepdim=True))
        y = F.mish(y) * F.hardsigmoid(y.softmax(1)) + y.softmax(-1).expand(1, 18, 13) - x.sum((1, 2), keepdim=True)
        return torch.matmul(y.transpose(1, 2), -x) + y.square().mean(1).unsqueeze(1)

    return Computed(function), torch.randn(1, 18, 13)


def spatial() -> tuple[nn.Module, Tensor]:
    """Groups of 8 filters, which template S takes where vectors are longer: ragged channels, dilation, an activation that moves zero."""
    model = chain(nn.Conv2d(32, 70, 3, padding=1), nn.ReLU(), nn.Conv2d(70, 36, 3, padding=2, dilation=2), nn.Sigmoid())
    return prune(model.eval(), constraint="kgs", rate=4), torch.randn(1, 32, 40, 37)


NETWORKS: dict[str, Callable[[], tuple[nn.Module, Tensor]]] = {
    function.__name__: function for function in (planes, volumes, sequence, spatial, depthwise, moves, attention, arithmetic)
} | {structure: lambda structure=structure: pruned(structure) for structure in ("block_punched", "unstructured", "filter", "column")}


def exported(name: str, folder: Path, isa: str) -> Path:
    """Return the folder of a network that checks itself by what PyTorch gives for a sample."""
    torch.manual_seed(0)
    model, example = NETWORKS[name]()
    settle(model.eval())
    with torch.inference_mode():
        wanted = model(example)
    made = emitted(lowered_model(model, example, isa=ISAS[isa]))
    reference = Reference([example.numpy()], [wanted.contiguous().numpy()])
    return write_standalone(folder / "out", made.files, np.frombuffer(made.blob, np.uint8), Origin("0" * 64, "random"), reference)


def run(folder: Path, threads: int) -> subprocess.CompletedProcess[str]:
    """Build a network's program and run it; outputs far from PyTorch's are an error of it."""
    subprocess.run(["make", "-s", f"-j{os.cpu_count()}", "-C", str(folder), "SANITIZE=1"], check=True)
    return subprocess.run([folder / "network", str(threads), "3"], capture_output=True, text=True, check=False, timeout=300)


@pytest.mark.slow
@pytest.mark.parametrize("isa", RUNNABLE)
@pytest.mark.parametrize("name", NETWORKS)
def test_no_step_leaves_its_tensors(name: str, isa: str, tmp_path: Path) -> None:
    folder = exported(name, tmp_path, isa)
    for threads in (1, 2, 3):
        done = run(folder, threads)
        assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("place", "shift"),
    [(r"es_k1\(c, tid, c->arena \+ ", 16), (r"es_k1\(.*c->weights \+ ", 64)],
    ids=["the input", "the last constant"],
)
def test_a_step_that_leaves_its_tensors_is_caught(place: str, shift: int, tmp_path: Path) -> None:
    """A kernel that is given a place one cache line too far runs into what lies behind."""
    folder = exported("column", tmp_path, "generic")
    text = (folder / "network.c").read_text()
    moved, count = re.subn(rf"({place})(\d+)", lambda found: f"{found[1]}{int(found[2]) + shift}", text, count=1)
    assert count == 1
    (folder / "network.c").write_text(moved)
    done = run(folder, 1)
    assert done.returncode != 0
    assert "use-after-poison" in done.stderr
