"""Fetch data sets from their official sources, checked before they are filed."""

import difflib
import http.client
import urllib.error
import urllib.request
from pathlib import Path

from espalier.data.cifar import OFFICIAL, extract, read_official
from espalier.data.files import CorruptDataError, data_root
from espalier.data.mnist import FILES, read_idx

CIFAR = "https://www.cs.toronto.edu/~kriz/"
SOURCES = {"mnist": "https://ossci-datasets.s3.amazonaws.com/mnist/", "cifar10": CIFAR, "cifar100": CIFAR}
TIMEOUT_S = 60


def fetch(name: str, root: Path | None = None, *, base_url: str | None = None) -> Path:
    """Download what is missing of a data set; return its folder.

    A file is written beside its place, checked against the official content, and only then moved there.

    Args:
        name: A data set of ``SOURCES``.
        root: Folder that holds the data sets; None takes ``ESPALIER_DATA``, else ``data``.
        base_url: Another place that holds the official files.

    Raises:
        ValueError: The name is unknown, or a file could not be had.
        CorruptDataError: What came is not the official content; nothing was filed.
    """
    if name not in SOURCES:
        near = difflib.get_close_matches(name, SOURCES, n=1, cutoff=0.0)
        raise ValueError(f"no data set is called '{name}'; nearest: {', '.join(near)}.")
    folder = data_root(None if root is None else str(root)) / name
    folder.mkdir(parents=True, exist_ok=True)
    url = base_url or SOURCES[name]
    if name in OFFICIAL:
        _fetch_cifar(name, folder, url)
    else:
        _fetch_mnist(folder, url)
    return folder


def _fetch_mnist(folder: Path, url: str) -> None:
    for file, facts in FILES.items():
        if (folder / file).exists():
            read_idx(folder / file, *facts)
            continue
        partial = folder / f".{file}"
        try:
            _download(f"{url}{file}", partial)
            read_idx(partial, *facts)
            partial.replace(folder / file)
        except CorruptDataError as error:
            raise CorruptDataError(f"{file}: what the source sent is not the official file ({error})") from error
        finally:
            partial.unlink(missing_ok=True)


def _fetch_cifar(name: str, folder: Path, url: str) -> None:
    official = OFFICIAL[name]
    if (folder / official.folder).is_dir():
        read_official(folder, official)
        return
    partial = folder / f".{official.archive}"
    try:
        _download(f"{url}{official.archive}", partial)
        extract(partial, official, folder)
    except CorruptDataError as error:
        raise CorruptDataError(f"{official.archive}: what the source sent is not the official file ({error})") from error
    finally:
        partial.unlink(missing_ok=True)


def _download(url: str, path: Path) -> None:
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer:  # noqa: S310  the scheme is ours, or the caller's
            path.write_bytes(answer.read())
    except (urllib.error.URLError, http.client.IncompleteRead, TimeoutError, ConnectionError) as error:
        raise ValueError(f"{url} could not be fetched ({error}); try again, or copy the official files to {path.parent}.") from error
