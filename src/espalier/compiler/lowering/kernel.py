"""What lowering gives for one operator: C text, and the arrays that it reads."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

NAME = "ES_NAME"  # stands for the function's name in ``source``; equal sources share one function


@dataclass(frozen=True)
class Kernel:
    """A function ``void NAME(const struct es_context *c, int tid, const float *x0, ..., float *y, arrays...)``.

    Every thread calls it with the same arguments and does its part. It writes all of its result but the border.

    Args:
        template: Id of compiler spec 4.3, such as ``F``.
        source: C text of the function and its helpers, its name written ``ES_NAME``.
        arrays: Its constants in the order of its arguments; int32 or float32.
        macs: Multiply-adds of one call, stored zeros included.
        detail: What ``explain`` says of it, such as ``gM=32 gN=4 tile=1x14``.
        scratch_floats: What each thread needs at ``c->scratch + tid * c->scratch_floats``; a multiple of 16.
        choice: Its knobs as its template has them, such as ``filters_rule.Choice``; None where there was nothing to choose.
        in_place: Whether what it adds, its last input, may lie where its result does: each number is read before one is written there.
    """

    template: str
    source: str
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
    macs: int = 0
    detail: str = ""
    scratch_floats: int = 0
    choice: object | None = None
    in_place: bool = False
