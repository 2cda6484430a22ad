"""Small images of known shades, written as users keep theirs."""

from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("ant", "bee", "cat")


def write_picture(path: Path, shade: int, *, mode: str = "RGB", width: int = 20, height: int = 16) -> None:
    """Write one image of even shade; its format is that of the suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((height, width), shade, dtype=np.uint8)).convert(mode).save(path)


def write_classes(folder: Path, *, count: int, classes: tuple[str, ...] = CLASSES, suffix: str = "png") -> Path:
    """Write ``count`` noisy images a class, the class's number in their shade; return the folder."""
    noise = np.random.default_rng(0)
    for label, name in enumerate(classes):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            pixels = noise.integers(0, 30, (16, 20, 3), dtype=np.uint8) + np.uint8(40 + 70 * label)
            Image.fromarray(pixels).save(folder / name / f"{number}.{suffix}")
    return folder
