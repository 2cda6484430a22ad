"""Where data sets lie, and reading their files strictly: what is not bit for bit the official content is named and refused."""

import hashlib
import os
from pathlib import Path


class MissingDataError(ValueError):
    """A data set is not on this machine; the message names both ways on."""


class CorruptDataError(ValueError):
    """A data file is not what it should be; the message names it."""


def data_root(root: str | None) -> Path:
    """Return ``root``, else ``ESPALIER_DATA``, else ``data`` below the current folder."""
    return Path(root or os.environ.get("ESPALIER_DATA", "data"))


def checked_bytes(path: Path, checksum: str) -> bytes:
    """Return the content of a file whose checksum is known.

    Args:
        path: The file.
        checksum: Hexadecimal MD5 or SHA-256, told apart by length.

    Raises:
        CorruptDataError: The content has another checksum.
    """
    content = path.read_bytes()
    check_bytes(path, content, checksum)
    return content


def check_bytes(path: Path, content: bytes, checksum: str) -> None:
    """Raise ``CorruptDataError`` that names ``path`` unless ``content`` has the checksum (MD5 or SHA-256)."""
    kind = "md5" if len(checksum) == 32 else "sha256"
    if (found := hashlib.new(kind, content, usedforsecurity=False).hexdigest()) != checksum:
        raise CorruptDataError(
            f"{path} has {kind} {found} over {len(content):,} bytes, the official file {checksum}; put the official file in its place."
        )
