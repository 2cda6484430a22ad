"""The groups of weights that a CPU's fp32 kernels like best, filters x channels, by feature flags.

Lanes hold filters, and one broadcast pixel serves them all, so a block of filters fills one or two vectors; its entries come in fours of
channels that lie side by side in the map. Measured, not derived: on AVX-512 two vectors of filters reach 83 to 90 % of the peak where one
reaches 60 to 83 % (compiler spec, section 8.2).
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
