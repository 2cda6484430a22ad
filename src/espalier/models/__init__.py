"""Networks that timm and transformers lack."""

from espalier.models.lenet5 import LeNet5

__all__ = ["LeNet5"]
