"""Photographs by class, generated: folders and tars; the thousand-image sample where ESPALIER_DATA holds it."""

import io
import os
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from espalier.data import imagenet, imagenet_sample
from espalier.data.files import CorruptDataError, MissingDataError
from espalier.data.imagenet import decoded, listing

REAL = Path(os.environ.get("ESPALIER_DATA", "data"))  # before a fixture moves it
WNIDS = ("n01440764", "n01443537", "n01484850")
NORMAL: dict[str, Any] = {"in_channels": 3, "mean": (0.5,) * 3, "std": (0.2,) * 3, "channels_last": True, "resize": 36, "size": 32}


def jpeg(shade: int, width: int, height: int) -> bytes:
    content = io.BytesIO()
    Image.fromarray(np.full((height, width, 3), shade, dtype=np.uint8)).save(content, "JPEG")
    return content.getvalue()


def write(folder: Path, *, form: str, count: int) -> None:
    """Write ``count`` images a class, the class's number in their shade, portrait and landscape in turn."""
    folder.mkdir(parents=True)
    for label, wnid in enumerate(WNIDS):
        files = {f"{wnid}_{number}.JPEG": jpeg(40 + 60 * label, *((50, 40) if number % 2 else (40, 60))) for number in range(count)}
        if form == "folders":
            (folder / wnid).mkdir()
            for name, content in files.items():
                (folder / wnid / name).write_bytes(content)
            continue
        with tarfile.open(folder / f"{wnid}.tar", "w") as archive:
            for name, content in files.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))


@pytest.mark.parametrize("form", ["folders", "tars"])
def test_subsets_have_each_class_in_proportion_and_its_pictures(tmp_path: Path, form: str) -> None:
    write(tmp_path / "imagenet/train", form=form, count=6)
    write(tmp_path / "imagenet/val", form=form, count=3)
    sizes = {"num_train": 9, "num_val": 6, "num_test": 3, "batch_size": 4, "eval_batch_size": 4}
    data = imagenet(root=str(tmp_path), name="few", num_classes=3, crop_pad=4, mirror=True, **sizes, **NORMAL)
    assert data.input_shape == (3, 32, 32)
    for split, count in ((data.train, 3), (data.val, 2), (data.test, 1)):
        assert torch.bincount(split.labels).tolist() == [count] * 3
        shades = split.images.double().mean((1, 2, 3))
        assert shades.tolist() == pytest.approx((40 + 60 * split.labels).tolist(), abs=2)
    with pytest.raises(ValueError, match=r"data.num_classes=1000, but few has 3"):
        imagenet(root=str(tmp_path), name="few", num_classes=1000, crop_pad=4, mirror=True, **sizes, **NORMAL)


def test_both_forms_are_one_data_set(tmp_path: Path) -> None:
    for form in ("folders", "tars"):
        write(tmp_path / form, form=form, count=2)
    (folders, names), (tars, tar_names) = (listing(tmp_path / form) for form in ("folders", "tars"))
    assert names == tar_names == list(WNIDS)
    assert decoded(folders, resize=36, size=32).digest() == decoded(tars, resize=36, size=32).digest()


def test_the_shorter_side_is_scaled_and_the_centre_cut(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    columns = np.zeros((64, 128, 3), dtype=np.uint8)
    columns[:, 32:96] = 200  # the centre square
    Image.fromarray(columns).save(tmp_path / "a/wide.png")
    images = decoded(listing(tmp_path)[0], resize=32, size=32).images
    assert images.shape == (1, 3, 32, 32)
    assert bool((images[..., 2:-2] == 200).all())


@pytest.mark.parametrize("form", ["folders", "tars"])
def test_a_truncated_picture_is_named(tmp_path: Path, form: str) -> None:
    (tmp_path / "a").mkdir()
    noise = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(noise, "JPEG")
    (tmp_path / "a/broken.jpg").write_bytes(noise.getvalue()[:1500])
    if form == "tars":
        with tarfile.open(tmp_path / "b.tar", "w") as archive:
            archive.add(tmp_path / "a/broken.jpg", "broken.jpg")
        (tmp_path / "a/broken.jpg").unlink()
        (tmp_path / "a").rmdir()
    pictures, _ = listing(tmp_path)
    with pytest.raises(CorruptDataError, match=r"broken\.jpg is no complete image"):
        decoded(pictures, resize=36, size=32)


def test_what_does_not_fit_names_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"ESPALIER_DATA.*image-net\.org"):
        listing(tmp_path / "imagenet/train")
    (tmp_path / "flat").mkdir()
    with pytest.raises(ValueError, match=r"holds 0 classes .*give one folder or tar a class"):
        listing(tmp_path / "flat")
    (tmp_path / "flat/n01440764").mkdir()
    with pytest.raises(ValueError, match=r"n01440764 holds no images"):
        listing(tmp_path / "flat")
    (tmp_path / "flat/n01440764.tar").write_bytes(b"no tar")
    with pytest.raises(ValueError, match=r"holds 2 classes \(1 different names\)"):
        listing(tmp_path / "flat")
    (tmp_path / "flat/n01440764").rmdir()
    with pytest.raises(CorruptDataError, match=r"n01440764\.tar is damaged"):
        listing(tmp_path / "flat")
    write(tmp_path / "some", form="folders", count=1)
    pictures, _ = listing(tmp_path / "some")
    with pytest.raises(ValueError, match=r"1,281,167 images of 3x224x224 take 180 GiB; lower data.num_train"):
        decoded(pictures[:1] * 1_281_167, resize=256, size=224)
    with pytest.raises(ValueError, match=r"data.size=40 and data.resize=36"):
        decoded(pictures, resize=36, size=40)


def test_classes_that_differ_between_train_and_val_are_named(tmp_path: Path) -> None:
    write(tmp_path / "imagenet/train", form="folders", count=2)
    write(tmp_path / "imagenet/val", form="tars", count=2)
    (tmp_path / "imagenet/val" / f"{WNIDS[0]}.tar").rename(tmp_path / "imagenet/val/n99999999.tar")
    sizes = {"num_train": 3, "num_val": 3, "num_test": None, "batch_size": 4, "eval_batch_size": 4}
    with pytest.raises(ValueError, match=r"different classes, such as n01440764, n99999999"):
        imagenet(root=str(tmp_path), name="few", num_classes=3, crop_pad=0, mirror=False, **sizes, **NORMAL)


def test_a_missing_sample_names_its_place(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"ESPALIER_DATA.*imagenet_sample_1000\.tar"):
        imagenet_sample(root=str(tmp_path), num_classes=1000, eval_batch_size=50, **NORMAL)


@pytest.mark.slow
@pytest.mark.skipif(not (REAL / "imagenet_sample").is_dir(), reason="ESPALIER_DATA holds no imagenet_sample/")
def test_the_sample_has_one_photograph_a_class() -> None:
    data = imagenet_sample(root=str(REAL), num_classes=1000, eval_batch_size=50, **NORMAL)
    assert data.test.labels.tolist() == list(range(1000))
    assert len(data.train) == 0
    assert len({image.numpy().tobytes() for image in data.test.images}) == 1000
