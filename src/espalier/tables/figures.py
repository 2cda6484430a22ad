"""How a figure is written: published ones as they were, means with their spread."""

import math

from espalier.tables.schema import Column


def published_text(value: float | str) -> str:
    """Return a published figure as it was written, thousands apart."""
    return value if isinstance(value, str) else f"{value:,.10g}"


def mean_text(mean: float, std: float | None, column: Column) -> str:
    """Return mean ± standard deviation: two decimals for accuracies, else three significant digits of the mean."""
    if column.kind == "accuracy":
        digits = 2
    elif mean == int(mean) and not std:
        digits = 0
    else:
        digits = max(0, 2 - math.floor(math.log10(abs(mean)))) if mean else 2  # three significant digits
    spread = f" ± {std:,.{digits}f}" if std is not None else ""
    return f"{mean:,.{digits}f}{spread}"
