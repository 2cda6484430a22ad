"""Whose turn the machine is: measurements have it alone, trainings share it and let go at each epoch's end.

Two files are locked with ``flock``, whose hold ends with the process, however that ends. A measurement holds the turnstile from when it
comes until it is done, and the machine once the running epochs have ended; an epoch passes the turnstile before it takes its share, so
that a stream of epochs cannot keep a measurement waiting. Whoever has a share waits for nothing else: nobody can wait in a circle.
"""

import fcntl
import logging
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PATIENCE_S = 5.0  # before it is said what is waited for
PAUSE_S = 0.02  # between two tries
MACHINE, TURNSTILE = "espalier-measure.lock", "espalier-measure.turn"


class Share:
    """This process's share in the machine while it trains; taken anew for every epoch."""

    def __init__(self) -> None:
        self._machine: int | None = None

    @property
    def held(self) -> bool:
        """Return whether it is held."""
        return self._machine is not None

    def take(self) -> None:
        """Wait for the measurements that are under way or waiting, then hold a share; nothing happens where one is held."""
        if self._machine is None:
            turnstile = _locked(TURNSTILE, fcntl.LOCK_SH, "training pauses for a measurement on this machine; it holds %s")
            self._machine = _locked(MACHINE, fcntl.LOCK_SH, "training pauses for a measurement on this machine; it holds %s")
            os.close(turnstile)

    def give_up(self) -> None:
        """Let go; nothing happens where none is held."""
        if self._machine is not None:
            os.close(self._machine)
            self._machine = None


SHARE = Share()


@contextmanager
def machine_lock() -> Iterator[None]:
    """Have the machine alone; say so where that takes long. A share that this process holds is given up meanwhile."""
    shared = SHARE.held
    SHARE.give_up()
    turnstile = _locked(TURNSTILE, fcntl.LOCK_EX, "waiting for another measurement on this machine to end; it holds %s")
    try:
        machine = _locked(MACHINE, fcntl.LOCK_EX, "waiting for the epochs that train on this machine to end; they hold %s")
        try:
            yield
        finally:
            os.close(machine)
    finally:
        os.close(turnstile)
        if shared:
            SHARE.take()


def _locked(name: str, how: int, waiting: str) -> int:
    """Return the open file ``name``, locked; closing it lets go."""
    path = Path(tempfile.gettempdir()) / name
    file = _opened(path)
    start, told = time.monotonic(), False
    while True:
        try:
            fcntl.flock(file, how | fcntl.LOCK_NB)
        except BlockingIOError:
            if not told and time.monotonic() - start > PATIENCE_S:
                told = True
                logging.getLogger(__name__).warning(waiting, path)
            time.sleep(PAUSE_S)
        except BaseException:
            os.close(file)
            raise
        else:
            return file


def _opened(path: Path) -> int:
    """Return the file open for reading, which a lock needs no more than; made where it is missing, for every user of the machine."""
    with suppress(FileNotFoundError):
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    file = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
    with suppress(PermissionError):
        os.fchmod(file, 0o666)
    return file
