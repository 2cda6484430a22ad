"""Data sets in memory: uint8 tensors, deterministic batches."""

from espalier.data.augment import Augment
from espalier.data.cifar import cifar
from espalier.data.digits import digits, digits_rgb
from espalier.data.forgetting import Forgetting, Removal
from espalier.data.form import ImageFormat
from espalier.data.imagefolder import imagefolder
from espalier.data.imagenet import imagenet, imagenet_sample
from espalier.data.loader import TensorLoader
from espalier.data.mnist import mnist
from espalier.data.module import ImageData
from espalier.data.split import Split
from espalier.data.synthetic_images import BatchNormImages, GaussianImages, SmoothedImages, SyntheticImages, UniformImages

__all__ = [
    "Augment",
    "BatchNormImages",
    "Forgetting",
    "GaussianImages",
    "ImageData",
    "ImageFormat",
    "Removal",
    "SmoothedImages",
    "Split",
    "SyntheticImages",
    "TensorLoader",
    "UniformImages",
    "cifar",
    "digits",
    "digits_rgb",
    "imagefolder",
    "imagenet",
    "imagenet_sample",
    "mnist",
]
