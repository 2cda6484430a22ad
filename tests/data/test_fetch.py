"""Fetching from a server of our own: complete, damaged, missing."""

import gzip
import hashlib
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from espalier.data.fetch import fetch
from espalier.data.mnist import FILES, CorruptDataError, MissingDataError, mnist, read_idx


def idx(magic: int, shape: tuple[int, ...], seed: int) -> bytes:
    content = np.random.default_rng(seed).integers(0, 10, shape).astype(np.uint8)
    return np.array([magic, *shape], dtype=">u4").tobytes() + content.tobytes()


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Path]]:
    """Serve small files in MNIST's format, and make them the official ones."""
    served = tmp_path / "served"
    served.mkdir()
    small = {
        name: (magic, (300 if "train" in name else 50, *shape[1:]), seed) for seed, (name, (magic, shape, _)) in enumerate(FILES.items())
    }
    for name, (magic, shape, seed) in small.items():
        content = idx(magic, shape, seed)
        (served / name).write_bytes(gzip.compress(content))
        monkeypatch.setitem(FILES, name, (magic, shape, hashlib.md5(content, usedforsecurity=False).hexdigest()))
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(served)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/", served
    server.shutdown()
    server.server_close()


def test_fetched_files_load(source: tuple[str, Path], tmp_path: Path) -> None:
    url, _ = source
    assert fetch("mnist", tmp_path / "data", base_url=url) == tmp_path / "data" / "mnist"
    knobs = {"batch_size": 64, "eval_batch_size": 100, "mean": 0.1, "std": 0.3, "channels_last": True}
    data = mnist(root=str(tmp_path / "data"), name="mnist", num_train=100, num_val=50, **knobs)  # type: ignore[arg-type]
    assert (len(data.train), len(data.val), len(data.test)) == (100, 50, 50)
    again = mnist(root=str(tmp_path / "data"), name="mnist", num_train=100, num_val=50, **knobs)  # type: ignore[arg-type]
    assert data.fingerprint == again.fingerprint


@pytest.mark.parametrize("damage", ["truncated", "other", "not gzip"])
def test_a_damaged_download_is_named_and_not_filed(source: tuple[str, Path], tmp_path: Path, damage: str) -> None:
    url, served = source
    path = served / "t10k-images-idx3-ubyte.gz"
    content = path.read_bytes()
    other = gzip.compress(idx(2051, (50, 28, 28), seed=99))
    path.write_bytes({"truncated": content[: len(content) // 2], "other": other, "not gzip": b"<html>"}[damage])
    with pytest.raises(CorruptDataError, match="t10k-images"):
        fetch("mnist", tmp_path / "data", base_url=url)
    assert sorted(file.name for file in (tmp_path / "data/mnist").iterdir()) == ["train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"]
    path.write_bytes(content)
    fetch("mnist", tmp_path / "data", base_url=url)


def test_a_missing_file_names_the_address(source: tuple[str, Path], tmp_path: Path) -> None:
    url, served = source
    (served / "train-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(ValueError, match=r"train-labels.*404"):
        fetch("mnist", tmp_path / "data", base_url=url)


def test_an_unknown_name_lists_the_nearest() -> None:
    with pytest.raises(ValueError, match="nearest: mnist"):
        fetch("minst")


def test_a_truncated_file_on_disk_is_named(source: tuple[str, Path], tmp_path: Path) -> None:
    url, _ = source
    path = fetch("mnist", tmp_path / "data", base_url=url) / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CorruptDataError, match="train-images"):
        read_idx(path, *FILES[path.name])


def test_a_missing_data_set_names_both_ways_on(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"ESPALIER_DATA.*espalier fetch mnist"):
        read_idx(tmp_path / "mnist" / "train-images-idx3-ubyte.gz", 2051, (60000, 28, 28), "")
