"""Images of one's own, generated: how folders become splits, what images become, and what is refused."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from espalier.data import ImageData, imagefolder
from espalier.data.files import CorruptDataError, MissingDataError
from espalier.data.imagefolder import class_names
from pictures import CLASSES, write_classes, write_picture

SETTINGS: dict[str, Any] = {
    "name": "few",
    "num_classes": 3,
    "in_channels": 3,
    "num_train": None,
    "val_share": 0.1,
    "test_share": 0.2,
    "resize": 16,
    "size": 16,
    "interpolation": "bilinear",
    "batch_size": 4,
    "eval_batch_size": 4,
    "mean": (0.5,),
    "std": (0.25,),
    "channels_last": True,
    "crop_pad": 2,
    "mirror": True,
}


def read(root: Path, **changes: object) -> ImageData:
    return imagefolder(root=str(root), **{**SETTINGS, **changes})


def sizes(data: ImageData) -> list[list[int]]:
    return [torch.bincount(split.labels, minlength=3).tolist() for split in (data.train, data.val, data.test)]


def test_one_folder_of_classes_is_divided_by_class_and_always_the_same_way(tmp_path: Path) -> None:
    data = read(write_classes(tmp_path, count=10))
    assert sizes(data) == [[7] * 3, [1] * 3, [2] * 3]
    assert data.input_shape == (3, 16, 16)
    for split in (data.train, data.val, data.test):
        assert split.images.double().mean((1, 2, 3)).tolist() == pytest.approx((54.5 + 70 * split.labels).tolist(), abs=3)
    assert read(tmp_path).fingerprint == data.fingerprint
    assert sizes(read(tmp_path, num_train=9))[0] == [3] * 3


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ({"train": 10, "val": 4, "test": 5}, [[10] * 3, [4] * 3, [5] * 3]),
        ({"train": 10, "val": 4}, [[9] * 3, [1] * 3, [4] * 3]),
        ({"train": 10, "test": 5}, [[9] * 3, [1] * 3, [5] * 3]),
        ({"train": 10}, [[7] * 3, [1] * 3, [2] * 3]),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_splits_are_the_folders_and_what_they_lack_is_held_out(tmp_path: Path, parts: dict[str, int], expected: list[list[int]]) -> None:
    for part, count in parts.items():
        write_classes(tmp_path / part, count=count)
    assert sizes(read(tmp_path)) == expected


def test_every_kind_of_image_becomes_what_is_asked(tmp_path: Path) -> None:
    for label, name in enumerate(CLASSES):
        shade = 50 + 50 * label
        for file, mode in (("a.png", "L"), ("b.png", "RGBA"), ("c.jpg", "RGB"), ("d.webp", "RGB"), ("e.bmp", "P"), ("deep/f.png", "RGB")):
            write_picture(tmp_path / name / file, shade, mode=mode)
        (tmp_path / name / "._a.png").write_text("what a Mac leaves")
        (tmp_path / name / "notes.txt").write_text("no image")
    (tmp_path / ".hidden").mkdir()
    colour, grey = read(tmp_path), read(tmp_path, in_channels=1)
    assert [sum(counts) for counts in sizes(colour)] == [12, 2, 4]
    for data, channels in ((colour, 3), (grey, 1)):
        assert data.train.images.shape[1:] == (channels, 16, 16)
        assert data.train.images.double().mean((1, 2, 3)).tolist() == pytest.approx((50 + 50 * data.train.labels).tolist(), abs=3)


def missing(folder: Path) -> str:
    write_classes(folder.parent / "photos", count=1)
    return r"data\.root=.*there is no such folder; .* holds photos"


def without_classes(folder: Path) -> str:
    write_picture(folder / "one.png", 1)
    write_picture(folder / "two.png", 1)
    return r"holds no folders of classes, but one\.png, two\.png; give data\.root"


def empty_class(folder: Path) -> str:
    write_classes(folder, count=4)
    (folder / "bee" / "sub").mkdir()
    for path in (folder / "bee").glob("*.png"):
        path.unlink()
    return r"bee holds no images \(\.bmp, .*\); remove the class or complete it"


def corrupt(folder: Path) -> str:
    write_classes(folder, count=4)
    path = folder / "cat" / "2.png"
    path.write_bytes(path.read_bytes()[:60])
    return r"cat/2\.png is no complete image .*; replace it"


def other_classes(folder: Path) -> str:
    write_classes(folder / "train", count=4)
    write_classes(folder / "val", count=2, classes=("ant", "bee", "dog"))
    return r"train and val have different classes: dog only in val; cat only in train"


def one_class(folder: Path) -> str:
    write_classes(folder / "photos", count=4)
    return r"holds one class only, photos; .* It holds folders itself \(ant, bee, cat\); did you mean data\.root=.*photos\?"


def no_train(folder: Path) -> str:
    write_classes(folder / "val", count=4)
    return r"holds val, but no train; give data\.root"


def too_few(folder: Path) -> str:
    write_classes(folder, count=4)
    write_classes(folder, count=1, classes=("dog",))
    return r"dog has too few images"


@pytest.mark.parametrize("make", [missing, without_classes, empty_class, corrupt, other_classes, one_class, no_train, too_few])
def test_what_cannot_be_read_is_named_with_the_way_out(tmp_path: Path, make: Callable[[Path], str]) -> None:
    folder = tmp_path / "here"
    pattern = make(folder)
    with pytest.raises(ValueError, match=pattern) as caught:
        read(folder, num_classes=4 if make is too_few else 3)
    kinds = {missing: MissingDataError, corrupt: CorruptDataError}
    assert isinstance(caught.value, kinds.get(make, ValueError))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_classes": 5}, "data.num_classes=5, but few has 3"),
        ({"in_channels": 2}, "data.in_channels=2; images are read with 3 channels or with 1"),
        ({"val_share": 1.5}, "data.val_share=1.5; it is a share"),
        ({"interpolation": "cubic"}, "data.interpolation=cubic is not one of nearest"),
        ({"size": 20}, "data.size=20 and data.resize=16"),
        ({"num_train": 1000}, "cannot take 1000 of 21 samples"),
    ],
)
def test_a_setting_that_does_not_fit_is_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    write_classes(tmp_path, count=10)
    with pytest.raises(ValueError, match=re.escape(message)):
        read(tmp_path, **changes)


def test_no_root_says_what_it_would_be() -> None:
    with pytest.raises(MissingDataError, match=r"data=imagefolder needs data\.root; give data\.root a folder"):
        class_names(None)
