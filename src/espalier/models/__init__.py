"""The papers' networks that timm and transformers lack, and timm's by name."""

from espalier.models.c3d import C3D
from espalier.models.from_timm import mobilenetv2_cifar, timm_model
from espalier.models.lenet5 import LeNet5
from espalier.models.lenet300 import LeNet300
from espalier.models.plain_convnet import PlainConvNet
from espalier.models.r2plus1d import R2Plus1D
from espalier.models.resnet_cifar import CifarResNet

__all__ = ["C3D", "CifarResNet", "LeNet5", "LeNet300", "PlainConvNet", "R2Plus1D", "mobilenetv2_cifar", "timm_model"]
