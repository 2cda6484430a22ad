"""Data sets in memory: uint8 tensors, deterministic batches."""

from espalier.data.augment import Augment
from espalier.data.cifar import cifar
from espalier.data.digits import digits, digits_rgb
from espalier.data.form import ImageFormat
from espalier.data.forgetting import Forgetting, Removal
from espalier.data.imagenet import imagenet, imagenet_sample
from espalier.data.loader import TensorLoader
from espalier.data.mnist import mnist
from espalier.data.module import ImageData
from espalier.data.split import Split
from espalier.data.synthetic_images import BatchNormImages, GaussianImages, SmoothedImages, SyntheticImages, UniformImages

__all__ = [
    "Augment",
    "BatchNormImages",
    "GaussianImages",
    "ImageData",
    "ImageFormat",
    "SmoothedImages",
    "Split",
    "SyntheticImages",
    "TensorLoader",
    "UniformImages",
    "Forgetting",
    "ImageData",
    "Removal",
    "Split",
    "TensorLoader",
    "cifar",
    "digits",
    "digits_rgb",
    "imagenet",
    "imagenet_sample",
    "mnist",
]
