"""CIFAR from both forms, made small: the same data set, strictly read; the real one where ESPALIER_DATA holds it."""

import hashlib
import io
import os
import pickle
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from espalier.data import cifar
from espalier.data.cifar import OFFICIAL, PACKED, read_cifar
from espalier.data.fetch import fetch
from espalier.data.files import CorruptDataError, MissingDataError

REAL = Path(os.environ.get("ESPALIER_DATA", "data"))  # before a fixture moves it
NUM = {"train": 500, "test": 500}  # a strip each
KNOBS: dict[str, Any] = {
    "name": "small",
    "in_channels": 3,
    "batch_size": 16,
    "eval_batch_size": 100,
    "mean": (0.5, 0.5, 0.5),
    "std": (0.2, 0.2, 0.2),
    "channels_last": False,
    "crop_pad": 4,
    "mirror": True,
}


def pixels(seed: int, count: int) -> tuple[np.ndarray, list[int]]:
    generator = np.random.default_rng(seed)
    return generator.integers(0, 256, (count, 3, 32, 32), dtype=np.uint8), generator.permutation(count).__mod__(10).tolist()


def batch(images: np.ndarray, labels: list[int], key: str) -> bytes:
    """Return a pickled batch as Python 2 with NumPy 1 wrote it: keys are bytes, the array's module has its old name."""
    content = pickle.dumps({b"data": images.reshape(len(images), -1), key.encode(): labels}, protocol=2)
    return content.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


@pytest.fixture
def archives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make small archives in the official form, and make them the official ones; return their folder."""
    served = tmp_path / "served"
    served.mkdir()
    for dataset, official in list(OFFICIAL.items()):
        sums = {}
        with tarfile.open(served / official.archive, "w:gz") as archive:
            for seed, name in enumerate([*official.train, *official.test]):
                part = "train" if name in official.train else "test"
                images, labels = pixels(seed, NUM[part] // len(official.train if part == "train" else official.test))
                content = batch(images, labels, official.label.decode())
                entry = tarfile.TarInfo(f"{official.folder}/{name}")
                entry.size, sums[name] = len(content), md5(content)
                archive.addfile(entry, io.BytesIO(content))
        changed = replace(
            official,
            archive_md5=md5((served / official.archive).read_bytes()),
            train={name: sums[name] for name in official.train},
            test={name: sums[name] for name in official.test},
        )
        monkeypatch.setitem(OFFICIAL, dataset, changed)
    return served


@pytest.fixture
def url(archives: Path) -> Iterator[str]:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(archives)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/"
    server.shutdown()
    server.server_close()


def pack(folder: Path, images: dict[str, np.ndarray], labels: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    """Write the packed copy of a small CIFAR-10."""
    folder.mkdir(parents=True)
    for part, content in images.items():
        with tarfile.open(folder / f"cifar10_{part}.tar", "w") as archive:
            strip = io.BytesIO()
            Image.fromarray(content.transpose(0, 2, 3, 1).reshape(-1, 32, 3)).save(strip, "WEBP", lossless=True, exact=True)
            entry = tarfile.TarInfo(f"{part}_000.webp")
            entry.size = strip.tell()
            strip.seek(0)
            archive.addfile(entry, strip)
    np.savez_compressed(folder / "labels.npz", **{part: values.astype(np.uint8) for part, values in labels.items()})
    for name in PACKED:
        monkeypatch.setitem(PACKED, name, hashlib.sha256((folder / name).read_bytes()).hexdigest())


def test_fetched_batches_hold_what_was_packed_and_test_is_sorted_by_class(url: str, tmp_path: Path) -> None:
    assert fetch("cifar10", tmp_path / "data", base_url=url) == tmp_path / "data/cifar10"
    train, test = read_cifar(tmp_path / "data/cifar10", "cifar10")
    wanted = [pixels(seed, 100) for seed in range(5)]
    assert torch.equal(train.images, torch.from_numpy(np.concatenate([images for images, _ in wanted])))
    assert train.labels.tolist() == [label for _, labels in wanted for label in labels]
    images, labels = pixels(5, 500)
    order = np.argsort(labels, kind="stable")
    assert test.labels.tolist() == sorted(labels)
    assert torch.equal(test.images, torch.from_numpy(images[order]))
    assert sorted(path.name for path in (tmp_path / "data/cifar10").iterdir()) == ["cifar-10-batches-py"]
    fetch("cifar10", tmp_path / "data", base_url="http://127.0.0.1:1/")  # complete: nothing is asked of the source


def test_both_forms_are_one_data_set(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = fetch("cifar10", tmp_path / "official", base_url=url)
    train, test = read_cifar(folder, "cifar10")
    images = {"train": train.images.numpy(), "test": test.images.numpy()}
    labels = {"train": train.labels.numpy(), "test": test.labels.numpy()}
    pack(tmp_path / "packed/cifar10", images, labels, monkeypatch)
    sizes = {"dataset": "cifar10", "num_classes": 10, "num_train": 100, "num_val": 50, "num_test": 40}
    official, packed = (cifar(root=str(tmp_path / form), **sizes, **KNOBS) for form in ("official", "packed"))
    assert official.fingerprint == packed.fingerprint
    for part, count in ((packed.train, 10), (packed.val, 5), (packed.test, 4)):
        assert torch.bincount(part.labels).tolist() == [count] * 10
    damaged = tmp_path / "packed/cifar10/cifar10_test.tar"
    damaged.write_bytes(damaged.read_bytes()[:-700])
    with pytest.raises(CorruptDataError, match=r"cifar10_test\.tar has sha256"):
        read_cifar(tmp_path / "packed/cifar10", "cifar10")
    damaged.unlink()
    with pytest.raises(MissingDataError, match=r"cifar10_test\.tar is missing"):
        read_cifar(tmp_path / "packed/cifar10", "cifar10")


def test_cifar100_has_its_fine_labels(url: str, tmp_path: Path) -> None:
    fetch("cifar100", tmp_path, base_url=url)
    train, test = read_cifar(tmp_path / "cifar100", "cifar100")
    assert (len(train), len(test)) == (500, 500)
    assert train.labels.tolist() == pixels(0, 500)[1]


@pytest.mark.parametrize("damage", ["truncated", "other"])
def test_a_damaged_archive_is_named_and_nothing_is_filed(url: str, archives: Path, tmp_path: Path, damage: str) -> None:
    path = archives / "cifar-10-python.tar.gz"
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2] if damage == "truncated" else b"<html>")
    with pytest.raises(CorruptDataError, match=r"cifar-10-python\.tar\.gz: what the source sent"):
        fetch("cifar10", tmp_path / "data", base_url=url)
    assert list((tmp_path / "data/cifar10").iterdir()) == []
    path.write_bytes(content)
    fetch("cifar10", tmp_path / "data", base_url=url)


@pytest.mark.parametrize("damage", ["truncated", "flipped", "missing"])
def test_a_damaged_batch_on_disk_is_named(url: str, tmp_path: Path, damage: str) -> None:
    path = fetch("cifar10", tmp_path, base_url=url) / "cifar-10-batches-py/data_batch_3"
    content = bytearray(path.read_bytes())
    content[5000] ^= 1
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(content if damage == "flipped" else content[:-9])
    with pytest.raises(MissingDataError if damage == "missing" else CorruptDataError, match=r"data_batch_3"):
        read_cifar(tmp_path / "cifar10", "cifar10")


def test_a_batch_with_foreign_objects_is_refused(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = fetch("cifar10", tmp_path, base_url=url) / "cifar-10-batches-py/data_batch_1"
    path.write_bytes(pickle.dumps({b"data": Path("x")}, protocol=2))
    known = OFFICIAL["cifar10"]
    monkeypatch.setitem(OFFICIAL, "cifar10", replace(known, train=known.train | {"data_batch_1": md5(path.read_bytes())}))
    with pytest.raises(pickle.UnpicklingError, match=r"holds no pathlib"):
        read_cifar(tmp_path / "cifar10", "cifar10")


def test_missing_data_names_both_ways_on(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"ESPALIER_DATA.*espalier fetch cifar100"):
        read_cifar(tmp_path / "cifar100", "cifar100")
    with pytest.raises(ValueError, match=r"data.dataset=cifar; it is one of cifar10, cifar100"):
        cifar(root=None, dataset="cifar", num_classes=10, num_train=None, num_val=5, num_test=None, **KNOBS)


@pytest.mark.slow
@pytest.mark.skipif(not (REAL / "cifar10").is_dir(), reason="ESPALIER_DATA holds no cifar10/")
def test_the_real_data_set_has_the_known_statistics() -> None:
    train, test = read_cifar(REAL / "cifar10", "cifar10")
    assert torch.bincount(train.labels).tolist() == [5000] * 10
    assert torch.bincount(test.labels).tolist() == [1000] * 10
    pixel = train.images.double() / 255
    assert pixel.mean((0, 2, 3)).tolist() == pytest.approx([0.4914, 0.4822, 0.4465], abs=5e-5)
    assert pixel.std((0, 2, 3)).tolist() == pytest.approx([0.2470, 0.2435, 0.2616], abs=5e-5)
