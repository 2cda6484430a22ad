"""The storage formula: expected size with relative indices when the kept weights lie at random.

Source: admm-nn-s, A2. With density d, a run of ``2^b`` zeros begins with probability ``q = (1 - d)^(2^b)``, so that each kept weight brings
``q / (1 - q)`` fillers.
"""

MAX_INDEX_BITS = 24  # a run of 16 million zeros


def expected_entries(kept: float, total: float, index_bits: int) -> float:
    """Return the entries, fillers included, of ``kept`` weights at random among ``total``.

    Raises:
        ValueError: More weights are kept than there are, or the width is below 1.
    """
    if not 0 <= kept <= total or index_bits < 1:
        raise ValueError(f"kept={kept:g} of total={total:g} with index_bits={index_bits}: keep 0 to all, with an index of at least 1 bit.")
    if kept == 0:
        return 0.0
    return float(kept / (1 - (1 - kept / total) ** (2**index_bits)))


def expected_bits(kept: float, total: float, value_bits: int, *, index_bits: int | None = None) -> tuple[float, int]:
    """Return the expected size in bits and the index width.

    Args:
        kept: Weights kept.
        total: Weights of the layer.
        value_bits: Bits w of a weight.
        index_bits: Width b of an index; None takes the one that makes the size smallest.
    """
    widths = range(1, MAX_INDEX_BITS + 1) if index_bits is None else [index_bits]
    return min((expected_entries(kept, total, width) * (value_bits + width), width) for width in widths)


def gap(rate: float, value_bits: int, index_bits: int) -> float:
    """Return the rate gap above which non-structured pruning stores less than structured: ``(w + b) / (w (1 - q))``.

    Args:
        rate: Non-structured rate, all / kept.
        value_bits: Bits w of a weight.
        index_bits: Width b of an index.
    """
    return expected_entries(1.0, rate, index_bits) * (value_bits + index_bits) / value_bits


def best_gap(rate: float, value_bits: int) -> tuple[float, int]:
    """Return the smallest ``gap`` over index widths, and that width."""
    return min((gap(rate, value_bits, width), width) for width in range(1, MAX_INDEX_BITS + 1))
