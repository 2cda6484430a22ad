"""A benchmark as a chart: one bar an engine, from its median, with a line from p10 to p90."""

import os
from pathlib import Path
from typing import Any

from espalier.bench_result import OURS, Bench
from espalier.files import replacing
from espalier.tables.drawing import COLORS, axes_of

FORMATS = (".pdf", ".svg", ".png")
WIDTH_IN = 5.0


def chart(found: Bench, to: Path) -> Path:
    """Draw a benchmark to a file; return it.

    Args:
        found: The benchmark.
        to: File to write; its ending says the format.

    Raises:
        ValueError: As ``check_chart``; or no engine was timed.
        OSError: The file cannot be written.
    """
    check_chart(to)
    figure = drawn(found)
    with replacing(to) as temporary:
        figure.savefig(temporary, format=to.suffix[1:], dpi=300)
    return to


def check_chart(to: Path) -> None:
    """Check that a file can be drawn to.

    Raises:
        ValueError: Its ending is no format, or there is no folder for it that can be written.
    """
    if to.suffix not in FORMATS:
        raise ValueError(f"cannot write '{to.name}': the ending says the format, one of {', '.join(FORMATS)}.")
    folder = next(parent for parent in to.absolute().parents if parent.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise ValueError(f"cannot write {to}: {folder} is no folder that can be written; name a file elsewhere.")


def drawn(found: Bench) -> Any:
    """Return the figure; raises ``ValueError`` where no engine was timed."""
    timed = found.timed
    if not timed:
        reasons = "; ".join(f"{entry.engine} {entry.status}: {entry.reason}" for entry in found.engines)
        raise ValueError(f"no engine was timed, so there is nothing to draw: {reasons}.")
    figure, axes = axes_of(WIDTH_IN)
    for place, entry in enumerate(timed):
        low, middle, high = entry.latency_ms_p10 or 0.0, entry.latency_ms_p50 or 0.0, entry.latency_ms_p90 or 0.0
        ours = entry.engine in OURS
        axes.barh(place, middle, color=COLORS[0] if ours else "#c3c9d0", hatch="//" if ours else None, edgecolor="#ffffff")
        axes.plot([low, high], [place, place], color="#20262d", linewidth=1)
        axes.annotate(f"{middle:.3g}", (max(high, middle), place), (3, 0), textcoords="offset points", va="center", fontsize=7)
    names = [entry.title if entry.precision == found.precision else f"{entry.title} ({entry.precision})" for entry in timed]
    axes.set_yticks(range(len(timed)), names)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_xlabel(f"ms a pass, batch 1, {found.threads}: median, p10 to p90")
    what = f"{found.subject.name}, {found.subject.rate_macs:.3g}x of the MACs, {found.precision}"
    axes.set_title(f"{what}\n{found.device}, {found.started[:10]}", fontsize=8)
    return figure
