"""The group that a CPU's kernels like, by its flags."""

import pytest

from espalier.frames.groups import preferred_group


@pytest.mark.parametrize(
    ("flags", "group"),
    [(("avx2", "fma", "avx512f"), (32, 4)), (("avx2", "fma"), (16, 4)), (("asimd",), (8, 4)), ((), (8, 4))],
    ids=["avx512", "avx2", "arm", "nothing"],
)
def test_the_widest_vectors_decide(flags: tuple[str, ...], group: tuple[int, int]) -> None:
    assert preferred_group(flags) == group
