"""Small random networks: chains with branches, over one to three spatial axes, some with pruned weights."""

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
NORMS = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
MAX_POOLS = {1: nn.MaxPool1d, 2: nn.MaxPool2d, 3: nn.MaxPool3d}
AVG_POOLS = {1: nn.AvgPool1d, 2: nn.AvgPool2d, 3: nn.AvgPool3d}
GLOBAL_POOLS = {1: nn.AdaptiveAvgPool1d, 2: nn.AdaptiveAvgPool2d, 3: nn.AdaptiveAvgPool3d}
ACTIVATIONS = (nn.Identity, nn.ReLU, nn.ReLU6, nn.SiLU, nn.Hardswish, nn.GELU, nn.Sigmoid, nn.Tanh, nn.LeakyReLU, nn.Mish)
SIZES = {1: 12, 2: 9, 3: 6}


class Sum(nn.Module):
    """x + inner(x), then an activation."""

    def __init__(self, inner: nn.Module, after: nn.Module) -> None:
        super().__init__()
        self.inner, self.after = inner, after

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.inner(x) + x)


class Beside(nn.Module):
    """The channels of x and those of inner(x)."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.inner(x)], 1)


class Gate(nn.Module):
    """Squeeze and excitation: x times a gate a channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        gate = self.fc(x.mean([*range(2, x.ndim)])).sigmoid()
        return x * gate.view(*gate.shape, *[1] * (x.ndim - 2))


class Shuffle(nn.Module):
    """Two halves of the channels exchanged, one of them written in place."""

    def forward(self, x: Tensor) -> Tensor:
        first, second = x.clone()[:, : x.shape[1] // 2], x[:, x.shape[1] // 2 :]
        first.mul_(2.0)
        return torch.cat([second, 1.0 - first], 1).roll(1, 2)


@st.composite
def networks(draw: st.DrawFn, *, pruned: bool = False) -> tuple[nn.Module, Tensor]:
    """Draw a network in evaluation mode and an example.

    Args:
        draw: Of hypothesis.
        pruned: Whether filters, channels and single weights are zero.
    """
    torch.manual_seed(draw(st.integers(0, 10_000)))
    rank, channels = draw(st.integers(1, 3)), draw(st.integers(1, 5))
    shape = (1, channels, *[SIZES[rank] + axis for axis in range(rank)])
    layers: list[nn.Module] = []
    x = torch.randn(shape)
    for _ in range(draw(st.integers(1, 4))):
        layer = draw(_layer(rank, x))
        layers.append(layer)
        x = layer.eval()(x)
    if draw(st.booleans()):
        pool = GLOBAL_POOLS[rank](draw(st.sampled_from([1, 2]))) if min(x.shape[2:]) >= 2 and draw(st.booleans()) else nn.Identity()
        layers += [pool, nn.Flatten(), nn.Linear(pool(x).numel(), 7)]
    model = nn.Sequential(*layers).eval()
    settle(model)
    if pruned:
        prune(model)
    return model, torch.randn(shape)


@st.composite
def _layer(draw: st.DrawFn, rank: int, x: Tensor) -> nn.Module:
    kind, channels = draw(st.sampled_from(["conv", "conv", "sum", "beside", "pool", "gate", "shuffle", "norm", "pad"])), x.shape[1]
    if kind == "sum":
        return Sum(draw(_conv(rank, x, channels, same=True)), draw(st.sampled_from(ACTIVATIONS))())
    if kind == "beside":
        return Beside(draw(_conv(rank, x, draw(st.integers(1, 4)), same=True)))
    if kind == "pool" and min(x.shape[2:]) >= 4:
        pool = draw(st.sampled_from([MAX_POOLS, AVG_POOLS]))[rank]
        return pool(draw(st.sampled_from([2, 3])), stride=draw(st.sampled_from([1, 2])), padding=1, ceil_mode=pool in MAX_POOLS.values())
    if kind == "gate":
        return Gate(channels)
    if kind == "shuffle" and channels > 1:
        return Shuffle()
    if kind == "norm":
        return nn.Sequential(NORMS[rank](channels), draw(st.sampled_from(ACTIVATIONS))())
    if kind == "pad":
        return nn.Sequential(nn.ConstantPad1d((1, 2), 0.0), draw(_conv(rank, x, draw(st.integers(1, 8)), same=False)))
    return draw(_conv(rank, x, draw(st.integers(1, 8)), same=False))


@st.composite
def _conv(draw: st.DrawFn, rank: int, x: Tensor, out: int, *, same: bool) -> nn.Module:
    channels = x.shape[1]
    groups = draw(st.sampled_from([size for size in range(1, channels + 1) if channels % size == 0 and out % size == 0]))
    kernel = draw(st.sampled_from([1, 3]))
    dilation = draw(st.sampled_from([1, 2])) if min(x.shape[2:]) >= 5 else 1
    padding = dilation * (kernel // 2) if same or min(x.shape[2:]) < 5 else draw(st.sampled_from([0, 1, dilation]))
    stride = 1 if same else draw(st.sampled_from([1, 2]))
    conv = CONVOLUTIONS[rank](channels, out, kernel, stride, padding, dilation, groups, bias=draw(st.booleans()))
    norm = NORMS[rank](out) if draw(st.booleans()) else nn.Identity()
    return nn.Sequential(conv, norm, draw(st.sampled_from(ACTIVATIONS))())


@torch.no_grad()
def settle(model: nn.Module) -> None:
    """Give batch norms statistics, and every parameter that starts at one value others, so that none goes untested."""
    generator = torch.Generator().manual_seed(1)
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            buffer.copy_(torch.randn(buffer.shape, generator=generator) * 0.1)
        if name.endswith("running_var"):
            buffer.copy_(torch.rand(buffer.shape, generator=generator) * 0.5 + 0.75)
    for parameter in model.parameters():
        if parameter.min() == parameter.max():
            parameter.copy_(torch.rand(parameter.shape, generator=generator) * 0.5 + 0.5 * (parameter != 0))


@torch.no_grad()
def prune(model: nn.Module) -> None:
    """Set filters, input channels and single weights to zero, and the bias and shift of half the dead filters."""
    generator = torch.Generator().manual_seed(2)
    for module in model.modules():
        if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear):
            dead = torch.rand(module.weight.shape[0], generator=generator) < 0.3
            module.weight[dead] = 0
            module.weight[:, torch.rand(module.weight.shape[1], generator=generator) < 0.3] = 0
            module.weight[torch.rand(module.weight.shape, generator=generator) < 0.2] = 0
            if module.bias is not None and torch.rand((), generator=generator) < 0.7:
                module.bias[dead] = 0
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d) and torch.rand((), generator=generator) < 0.5:
            module.bias.zero_()
            module.running_mean.zero_()


def relative_error(got: Tensor, wanted: Tensor) -> float:
    """Return the largest difference over the largest wanted value."""
    assert got.shape == wanted.shape
    return float((got - wanted).abs().max() / wanted.abs().max().clamp(min=1e-6)) if wanted.numel() else 0.0
