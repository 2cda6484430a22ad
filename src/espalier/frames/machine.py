"""Whose turn the machine is: measurements have it alone; runs share it, and make way at each epoch's end.

Two files are locked with ``flock``, whose hold ends with the process, however that ends. A measurement holds the turnstile from when it
comes until it is done, and the machine once all shares are given up. A run passes the turnstile before it takes its share, so that a stream
of epochs cannot keep a measurement waiting. It holds the share over all that it computes, and gives it up for an instant at each epoch's
end, while it measures, and while it waits for a lock that another process holds. Making way costs about 60 us an epoch.

Nobody can wait in a circle, because everybody waits upwards only, in the order run lock, step lock, turnstile, machine: whoever waits for
a run's or a step's lock holds neither turnstile nor machine; whoever waits for the turnstile does not hold the machine; and whoever has
the machine, shared or alone, waits for nobody until it has let go. What has no epochs (a decision, the final figures) holds its share to
its end.
"""

import errno
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
    """This process's share in the machine, while it computes."""

    def __init__(self) -> None:
        self._machine: int | None = None

    @property
    def held(self) -> bool:
        """Return whether it is held."""
        return self._machine is not None

    def take(self) -> None:
        """Wait for the measurements that are under way or waiting, then hold a share; nothing happens where one is held."""
        if self._machine is None:
            turnstile = _locked(TURNSTILE, fcntl.LOCK_SH, "computing pauses for a measurement on this machine; it holds %s")
            self._machine = _locked(MACHINE, fcntl.LOCK_SH, "computing pauses for a measurement on this machine; it holds %s")
            _let_go(turnstile)

    def give_up(self) -> None:
        """Let go; nothing happens where none is held."""
        if self._machine is not None:
            _let_go(self._machine)
            self._machine = None

    def make_way(self) -> None:
        """Let go for an instant, in which a measurement that waits gets in; nothing happens where none is held."""
        with self.lent():
            pass

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Hold a share."""
        self.take()
        try:
            yield
        finally:
            self.give_up()

    @contextmanager
    def lent(self) -> Iterator[None]:
        """Do without the share, where one is held: whoever waits for another process does not hold a measurement up."""
        held = self.held
        self.give_up()
        try:
            yield
        finally:
            if held:
                self.take()


SHARE = Share()


@contextmanager
def machine_lock() -> Iterator[None]:
    """Have the machine alone; say so where that takes long. A share that this process holds is given up meanwhile."""
    with SHARE.lent():
        turnstile = _locked(TURNSTILE, fcntl.LOCK_EX, "waiting for another measurement on this machine to end; it holds %s")
        try:
            machine = _locked(MACHINE, fcntl.LOCK_EX, "waiting for the epochs that train on this machine to end; they hold %s")
            try:
                yield
            finally:
                _let_go(machine)
        finally:
            _let_go(turnstile)


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


def _let_go(file: int) -> None:
    """Unlock and close; a child that was forked meanwhile has the file open too, and closing alone would leave it the lock."""
    fcntl.flock(file, fcntl.LOCK_UN)
    os.close(file)


def _opened(path: Path) -> int:
    """Return the file open for reading, which a lock needs no more than; made where it is missing, for every user of the machine.

    Everybody may write to the folder, so a link that somebody put there is not followed, and no file but a new one has its mode set.

    Raises:
        OSError: It cannot be opened; the message names it and the way out.
    """
    how = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        while True:
            with suppress(FileNotFoundError):
                return os.open(path, how)
            with suppress(FileExistsError):  # another process made it just now
                file = os.open(path, how | os.O_CREAT | os.O_EXCL, 0o644)
                os.fchmod(file, 0o644)  # whatever the umask
                return file
    except OSError as error:
        what = "is a symbolic link" if error.errno == errno.ELOOP else f"cannot be opened ({error.strerror})"
        raise OSError(f"{path} {what}; measurements take turns by it. Delete it, or set TMPDIR to a folder of your own") from error
