"""What all plots share: their look, and colours that colour-blind readers tell apart (Okabe and Ito, 2008).

No chart tells things apart by colour alone: points have marks of their own beside it, curves have dashes.
"""

from typing import Any

STYLE: Any = {
    "pdf.fonttype": 42,  # embedded as TrueType, so that text stays text
    "svg.fonttype": "none",  # a page's own font
    "svg.hashsalt": "espalier",
    "font.family": "DejaVu Sans",  # comes with matplotlib: a chart looks the same everywhere
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#d9dde2",
    "grid.linewidth": 0.5,
    "axes.edgecolor": "#7a828c",
}
COLORS = ("#0072b2", "#d55e00", "#009e73", "#000000", "#cc79a7", "#56b4e9", "#e69f00")
DASHES: tuple[Any, ...] = ("-", (0, (4, 1.5)), (0, (1, 1)), (0, (5, 1, 1, 1)))
MAX_NAME = 26  # characters of a row's name in a chart


def axes_of(width_in: float, extra_in: float = 0.0) -> tuple[Any, Any]:
    """Return a figure and its axes.

    Args:
        width_in: Width in inches.
        extra_in: Height for what stands below the axes, in inches.
    """
    import matplotlib as mpl  # noqa: PLC0415  an extra
    from matplotlib.figure import Figure  # noqa: PLC0415

    mpl.rcParams.update(STYLE)
    figure = Figure(figsize=(width_in, width_in * 0.62 + extra_in), layout="constrained")
    return figure, figure.subplots()


def short(name: str) -> str:
    """Return a name with its middle left out where it is long."""
    return name if len(name) <= MAX_NAME else f"{name[: MAX_NAME // 2 - 1]}…{name[-MAX_NAME // 2 :]}"
