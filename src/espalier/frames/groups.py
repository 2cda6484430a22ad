"""The groups of weights that a CPU's fp32 kernels like best, filters x channels, by feature flags.

Lanes hold filters, and one broadcast pixel serves them all, so a block of filters fills one or two vectors; its entries come in fours of
channels that lie side by side in the map. Measured on AVX-512, where two vectors of filters came closer to the peak than one; the other
groups are two vectors of filters as well. ``espalier bench group=FxC`` measures another one.
"""

from collections.abc import Collection

GROUPS: tuple[tuple[str, tuple[int, int]], ...] = (  # flag -> filters, channels; the first flag present decides
    ("avx512f", (32, 4)),
    ("avx2", (16, 4)),
    ("asimd", (8, 4)),
    ("neon", (8, 4)),
)
ANYWHERE = (8, 4)


def preferred_group(flags: Collection[str]) -> tuple[int, int]:
    """Return filters and channels of a group for a CPU with these flags, as ``espalier.devices.cpu().flags`` lists them."""
    return next((group for flag, group in GROUPS if flag in flags), ANYWHERE)
