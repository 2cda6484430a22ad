"""Learning-rate factors: pure functions of the epoch within a step, so that a resumed run sees the same rates."""

import math
from collections.abc import Sequence


def constant(epoch: int, epochs: int, milestones: Sequence[int]) -> float:
    """Return 1."""
    del epoch, epochs, milestones
    return 1.0


def cosine(epoch: int, epochs: int, milestones: Sequence[int]) -> float:
    """Return half a cosine from 1 towards 0 over the step."""
    del milestones
    return 0.5 * (1 + math.cos(math.pi * epoch / epochs))


def restarts(epoch: int, epochs: int, milestones: Sequence[int], *, factor: float, drops: int) -> float:
    """Return ``factor ** floor(drops * e / E)`` within each period: the rate restarts where Z and U are refreshed (progressive-admm, M2).

    Args:
        epoch: Epoch within the step, from 0.
        epochs: Epochs of the step.
        milestones: First epochs of all periods but the first.
        factor: Factor of one drop.
        drops: Parts of equal length and falling rate that a period has.
    """
    starts = [0, *milestones, epochs]
    index = max(index for index, start in enumerate(starts[:-1]) if start <= epoch)
    length = starts[index + 1] - starts[index]
    return float(factor ** (drops * (epoch - starts[index]) // length))


def cycles(epoch: int, epochs: int, milestones: Sequence[int], *, rise: float, fall: float, restart_at: Sequence[float]) -> float:
    """Return a rate that falls by ``fall`` over each period and rises by ``rise`` where the next begins (blk-rew, Official code notes).

    The scripts rise 1.8 times at a refresh and fall 0.988 times at each other of 60 epochs; here a period falls 0.988 ** 59, whatever its
    length, so that shorter runs see the same cycle. Periods begin at fixed shares of the step, so that methods that refresh at other
    epochs, or never, are compared at one schedule.

    Args:
        epoch: Epoch within the step, from 0.
        epochs: Epochs of the step.
        milestones: Not read.
        rise: Factor where a period begins, the first aside.
        fall: Factor over a period.
        restart_at: Shares of the step, rising between 0 and 1, after which a period begins; those that fall on one epoch are merged.
    """
    del milestones
    starts = sorted({0, *(round(share * epochs) for share in restart_at), epochs})
    index = max(index for index, start in enumerate(starts[:-1]) if start <= epoch)
    progress = (epoch - starts[index]) / (starts[index + 1] - starts[index])
    return float((rise * fall) ** index * fall**progress)
