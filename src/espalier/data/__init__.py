"""Data sets in memory: uint8 tensors, deterministic batches."""

from espalier.data.digits import digits
from espalier.data.loader import Split, TensorLoader
from espalier.data.mnist import mnist
from espalier.data.module import ImageData

__all__ = ["ImageData", "Split", "TensorLoader", "digits", "mnist"]
