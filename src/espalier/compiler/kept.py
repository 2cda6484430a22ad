"""What was measured on this machine, kept as JSON in the user's cache folder: text keys, plain values.

A file is replaced as a whole, and each writer first reads what the others wrote, under a lock: processes that measure at once lose nothing.
A damaged file costs its measurements, never a run: it is moved aside with a warning, and a new one begun.
"""

import fcntl
import json
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from espalier.files import write_over

VERSION = 1
LOG = logging.getLogger(__name__)


class Kept:
    """A JSON file of what was measured.

    Args:
        path: The file; it need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def entries(self) -> dict[str, Any]:
        """Return key -> value; nothing where the file is missing, or damaged, which is warned of."""
        return self._read() or {}

    def add(self, new: Mapping[str, Any]) -> None:
        """Keep more entries beside those that the file holds by now; where it cannot be written, say so and go on."""
        try:
            with self._alone():
                entries = self._read()
                if entries is None:
                    self.path.replace(self.path.with_name(f"{self.path.name}.damaged"))
                text = json.dumps({"version": VERSION, "entries": (entries or {}) | dict(new)}, indent=1, sort_keys=True)
                write_over(self.path, f"{text}\n")
        except OSError as error:
            LOG.warning("%s cannot be written (%s): what was measured is used now, and measured again next time.", self.path, error)

    def _read(self) -> dict[str, Any] | None:
        """Return what the file holds; None where it is damaged."""
        try:
            content = json.loads(self.path.read_bytes())
            if content["version"] != VERSION:
                raise ValueError(f"it is of version {content['version']}, this espalier reads {VERSION}")
            return dict(content["entries"])
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError) as error:
            LOG.warning("%s is damaged (%s: %s): what it held is measured anew.", self.path, type(error).__name__, error)
            return None

    @contextmanager
    def _alone(self) -> Iterator[None]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(self.path.with_name(f".{self.path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
        finally:
            os.close(file)
