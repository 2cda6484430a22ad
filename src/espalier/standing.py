"""How the rows of a comparison stand: their figures, and the rank of their accuracy among rows that differ in the method only."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from espalier.inventory import cells
from espalier.record import Store
from espalier.tables.comparison import Cell
from espalier.tables.ranking import num_seeds, ranked_part, ranks, value_of
from espalier.tables.schema import Table


@dataclass(frozen=True)
class Standing:
    """One row of a comparison; figures are means over seeds, None where there is no record.

    All rows are of one source: one's own records where the table has any, else those that ship.

    Args:
        row: Its name.
        labels: What tells it apart, in words.
        rank: Of its accuracy in its round, 1 the highest; None for the dense row, and until the round is full. See ``ranking.ranks``.
        seeds: One's own seeds behind it.
        num_seeds: Number of seeds behind its accuracy, whoever's.
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
    num_seeds: int
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
    return standings_in(table, cells(table.name, scale=scale, store=store))


def standings_in(table: Table, every: Sequence[Cell]) -> list[Standing]:
    """Return one line a row of a table's cells at one scale, in the table's order."""
    found: dict[tuple[str, str], list[Cell]] = {}
    for cell in every:
        found.setdefault((cell.row, cell.column), []).append(cell)
    places, part = ranks(table, every), ranked_part(every)
    return [_standing(table, row, found, places.get(row), part) for row in table.rows]


def _standing(table: Table, row: str, found: dict[tuple[str, str], list[Cell]], rank: int | None, part: str) -> Standing:
    accuracy = found[row, "top1_pct"][0]
    figures = {
        name: _mean(found[row, name], part) for name in ("top1_pct", "loss_pct", "rate", "macs_rate", "stored_bytes", "latency_ms_p50")
    }
    timed = found[row, "latency_ms_p50"]
    return Standing(
        row=row,
        labels=table.rows[row].labels,
        rank=rank,
        seeds=accuracy.seeds,
        num_seeds=num_seeds(accuracy, part),
        top1_std=accuracy.ours_std if part == "yours" else accuracy.shipped_std,
        **figures,
        device=timed[0].device if len(timed) == 1 else "",
        epochs=_mean(found[row, "train/epochs"], part),
        note=table.rows[row].note,
    )


def _mean(of: Sequence[Cell], part: str) -> float | None:
    """Return the mean of a column's only cell, of one source; a measured column has several cells where settings differ."""
    return value_of(of[0], part) if len(of) == 1 else None
