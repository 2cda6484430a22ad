"""Several kernels in one library, without a network."""

import numpy as np
import pytest

from espalier.compiler.alone import Alone, Kernels
from espalier.compiler.isas import detect
from espalier.compiler.lowering.kernel import NAME, Kernel

SOURCE = f"""void {NAME}(const struct es_context *c, int tid, const float *x, float *y, const float *factor)
{{
  (void)c; (void)tid;
  for (int i = 0; i < 4; ++i) y[i] = factor[0] * x[i];
}}
"""


def times(factor: float) -> Alone:
    kernel = Kernel("test", SOURCE, {"factor": np.array([factor], np.float32)})
    return Alone(kernel, np.arange(4, dtype=np.float32), 4)


def test_each_kernel_has_its_own_arrays_and_result() -> None:
    with Kernels([times(2.0), times(-3.0)], detect()) as kernels:
        assert kernels.result(1).tolist() == [0, -3, -6, -9]
        assert kernels.result(0).tolist() == [0, 2, 4, 6]
        found = kernels.medians_ms([1, 0, 1], num_warmup=1, num_runs=3)
    assert len(found) == 3
    assert all(0 < time_ms < 1 for time_ms in found)


def test_no_kernels_are_refused() -> None:
    with pytest.raises(ValueError, match="there are no kernels to time; give at least one"):
        Kernels([], detect())
