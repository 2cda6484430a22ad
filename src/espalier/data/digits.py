"""The UCI handwritten digits inside scikit-learn, enlarged to 28x28: real data without a download, for smoke runs and tests."""

import torch
import torch.nn.functional as F

from espalier.data.loader import Split, stratified
from espalier.data.module import ImageData

SIZES = {"val": 200, "test": 300}  # of 1,797; the other 1,297 train
SPLIT_SEED = 0


def digits(*, batch_size: int, eval_batch_size: int, mean: float, std: float, channels_last: bool) -> ImageData:
    """Return the 1,797 digits: 8x8 enlarged to 24x24 (bilinear) on a 28x28 ground, as MNIST has it, split by class.

    Raises:
        ModuleNotFoundError: scikit-learn, which carries them, is not installed.
    """
    try:
        from sklearn.datasets import load_digits  # noqa: PLC0415  an extra
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("data=digits is carried by scikit-learn; pip install 'espalier[embedded]'.") from error
    content = load_digits()
    small = torch.tensor(content.images, dtype=torch.float32)[:, None] / 16
    large = F.pad(F.interpolate(small, size=(24, 24), mode="bilinear", align_corners=False), (2, 2, 2, 2))
    everything = Split((large * 255).round().to(torch.uint8), torch.tensor(content.target, dtype=torch.int64))
    held = stratified(everything.labels, SIZES["val"] + SIZES["test"], SPLIT_SEED)
    rest = torch.ones(len(everything), dtype=torch.bool).index_fill(0, held, False)
    return ImageData(
        name="digits",
        train=everything.take(rest.nonzero().squeeze(1)),
        val=everything.take(held[: SIZES["val"]]),
        test=everything.take(held[SIZES["val"] :]),
        num_classes=10,
        batch_size=batch_size,
        eval_batch_size=eval_batch_size,
        mean=mean,
        std=std,
        channels_last=channels_last,
    )
