"""Networks with random masks and statistics, small ones and those of the papers, for unused path removal and shrinking."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from espalier.models import CifarResNet, LeNet5, PlainConvNet, mobilenetv2_cifar

VGG16 = [64, 64, "pool", 128, 128, "pool", 256, 256, 256, "pool", 512, 512, 512, "pool", 512, 512, 512, "pool"]
MASKS = ("column", "filter", "both")


class Concatenated(nn.Module):
    """Two branches side by side, gated by a squeezed third, and a shape read from the tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.left, self.right = nn.Conv2d(8, 6, 3, padding=1, bias=False), nn.Conv2d(8, 10, 1)
        self.gate = nn.Conv2d(8, 16, 1)
        self.depthwise = nn.Conv2d(16, 16, 3, groups=16)
        self.fc = nn.Linear(16 * 4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        gate = torch.sigmoid(self.gate(x.mean((2, 3), keepdim=True)))
        x = torch.cat([self.left(x), self.right(x)], 1) * gate
        x = F.adaptive_avg_pool2d(self.depthwise(x), 2)
        result: Tensor = self.fc(x.view(x.size(0), -1))
        return result


def chain() -> nn.Module:
    return PlainConvNet(plan=[8, "pool", 12, "pool", 16, 16], batch_norm=True, pooled=2, width=1.0, num_classes=10, in_channels=3)


def lenet5() -> nn.Module:
    return LeNet5(width=0.5, num_classes=10, in_channels=1, batch_norm=False)


def resnet18(width: float = 0.125) -> nn.Module:
    return CifarResNet(depth=18, width=width, shortcut="conv", num_classes=10, in_channels=3)


def padded() -> nn.Module:
    return CifarResNet(depth=20, width=0.5, shortcut="pad", num_classes=10, in_channels=3)


def vgg16(width: float = 0.125) -> nn.Module:
    return PlainConvNet(plan=VGG16, batch_norm=True, pooled=1, width=width, num_classes=10, in_channels=3)


def mobilenet() -> nn.Module:
    return mobilenetv2_cifar(width=0.35, num_classes=10, in_channels=3)


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "chain": chain,
    "lenet5": lenet5,
    "resnet18": resnet18,
    "padded shortcuts": padded,
    "vgg16": vgg16,
    "concatenated": Concatenated,
}
PUBLISHED: dict[str, Callable[[], nn.Module]] = {
    "resnet18": lambda: resnet18(1.0),
    "vgg16": lambda: vgg16(1.0),
    "mobilenet": mobilenet,
}


def images(model: nn.Module, num: int = 2) -> Tensor:
    first = next(module for module in model.modules() if isinstance(module, nn.Conv2d))
    side = 28 if isinstance(model, LeNet5) else 32
    return torch.randn(num, first.in_channels, side, side, generator=torch.Generator().manual_seed(7))


@torch.no_grad()
def masked(make: Callable[[], nn.Module], mask: str, *, dropped: float = 0.5, seed: int = 0) -> nn.Module:
    """Return a network of which a share of the filters, of the columns or of both is zero, in every layer but the last."""
    torch.manual_seed(seed)
    model = make()
    layers = [module for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    for layer in layers[:-1]:
        matrix = layer.weight.view(len(layer.weight), -1)
        if mask in ("filter", "both"):
            matrix[torch.randperm(len(matrix))[: int(dropped * len(matrix))]] = 0
        if mask in ("column", "both") and matrix.shape[1] > 9:
            matrix[:, torch.rand(matrix.shape[1]) < 0.8] = 0
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2.0)
            module.weight.normal_(1, 0.3)
            module.bias.normal_(0, 0.3)
    return model.eval()


def nonzero(model: nn.Module) -> int:
    return sum(int(parameter.count_nonzero()) for parameter in model.parameters() if parameter.ndim > 1)
