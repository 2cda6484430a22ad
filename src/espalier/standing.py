"""How the rows of a comparison stand: their figures, and the rank of their accuracy among rows of the same asked rate."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from espalier.inventory import cells
from espalier.record import Store
from espalier.tables.comparison import Cell
from espalier.tables.ranking import ranks
from espalier.tables.schema import Table


@dataclass(frozen=True)
class Standing:
    """One row of a comparison; figures are means over seeds, None where there is no record.

    Args:
        row: Its name.
        labels: What tells it apart, in words.
        rank: Of its accuracy among rows of the same asked rate, 1 the highest; None without a figure, and for the dense row.
        seeds: Seeds behind it.
        top1_pct: Test accuracy.
        top1_std: Its standard deviation over the seeds; None below two.
        loss_pct: Accuracy lost against the dense network of the same seed, points.
        rate: All weights / weights that are not zero.
        macs_rate: Multiply-adds of the dense network / those left.
        stored_bytes: Of the packed checkpoint.
        latency_ms_p50: Median of a forward pass; None too where its seeds were timed in different settings.
        device: What it was timed on.
        epochs: Epochs that led to it.
        note: Why it cannot be, or what tuning chose.
    """

    row: str
    labels: dict[str, str]
    rank: int | None
    seeds: tuple[int, ...]
    top1_pct: float | None
    top1_std: float | None
    loss_pct: float | None
    rate: float | None
    macs_rate: float | None
    stored_bytes: float | None
    latency_ms_p50: float | None
    device: str
    epochs: float | None
    note: str

    def as_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self) | {"seeds": list(self.seeds)}


def standings(table: Table, *, scale: str, store: Store) -> list[Standing]:
    """Return one line a row, in the table's order."""
    every = cells(table.name, scale=scale, store=store)
    found: dict[tuple[str, str], list[Cell]] = {}
    for cell in every:
        found.setdefault((cell.row, cell.column), []).append(cell)
    places = ranks(table, every)
    return [_standing(table, row, found, places.get(row)) for row in table.rows]


def _standing(table: Table, row: str, found: dict[tuple[str, str], list[Cell]], rank: int | None) -> Standing:
    accuracy = found[row, "top1_pct"][0]
    figures = {name: _mean(found[row, name]) for name in ("top1_pct", "loss_pct", "rate", "macs_rate", "stored_bytes", "latency_ms_p50")}
    timed = found[row, "latency_ms_p50"]
    return Standing(
        row=row,
        labels=table.rows[row].labels,
        rank=rank,
        seeds=accuracy.seeds,
        top1_std=accuracy.ours_std,
        **figures,
        device=timed[0].device if len(timed) == 1 else "",
        epochs=_mean(found[row, "train/epochs"]),
        note=table.rows[row].note,
    )


def _mean(of: Sequence[Cell]) -> float | None:
    """Return the mean of a column's only cell: one's own, else the shipped one; a measured column has several where settings differ."""
    if len(of) != 1:
        return None
    return of[0].ours_mean if of[0].ours_mean is not None else of[0].shipped_mean
