"""Where each data set comes from and under which licence, as its source states it; ``unknown`` where that states none."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class DataOrigin:
    """One data set.

    Args:
        name: What it is called.
        key: What model cards call it; empty for somebody's own.
        licence: Identifier as the Hugging Face hub lists them, ``unknown`` where the source states none, ``other`` for terms of its own.
        source: Official page.
        note: What a reader must know of the licence.
    """

    name: str
    key: str
    licence: str
    source: str
    note: str


_MNIST = "its official page states no licence; what other sites name is not the authors' word"
_CITED = "its official page states no licence and asks for a citation of Krizhevsky 2009"
ORIGINS = {
    "mnist": DataOrigin("MNIST", "mnist", "unknown", "http://yann.lecun.com/exdb/mnist/", _MNIST),
    "cifar10": DataOrigin("CIFAR-10", "cifar10", "unknown", "https://www.cs.toronto.edu/~kriz/cifar.html", _CITED),
    "cifar100": DataOrigin("CIFAR-100", "cifar100", "unknown", "https://www.cs.toronto.edu/~kriz/cifar.html", _CITED),
    "digits": DataOrigin(
        "UCI handwritten digits, as scikit-learn embeds them",
        "digits",
        "cc-by-4.0",
        "https://archive.ics.uci.edu/dataset/80/optical+recognition+of+handwritten+digits",
        "as the UCI repository states",
    ),
    "imagenet": DataOrigin(
        "ImageNet (ILSVRC 2012)",
        "imagenet-1k",
        "other",
        "https://www.image-net.org/download.php",
        "the terms of access: non-commercial research and education only",
    ),
}
_OWN_NAMES = {"espalier.data.digits_rgb": "digits", "espalier.data.imagenet_sample": "imagenet"}


def origin_of(data: Mapping[str, Any]) -> DataOrigin:
    """Return where the data of a config come from; anyone's own data carry what their owner says.

    Args:
        data: A run's data config, with ``_target_``.
    """
    target = str(data["_target_"])
    key = data.get("dataset") or _OWN_NAMES.get(target) or target.removeprefix("espalier.data.")
    if key in ORIGINS:
        return ORIGINS[key]
    return DataOrigin(str(data.get("name") or target), "", "unknown", "its owner's", "as the owner says")
