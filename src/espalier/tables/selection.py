"""Which records a figure may be read from: the row's own, of one scale, one per seed, all on the same data."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from espalier.record import Record


@dataclass(frozen=True)
class Selection:
    """The records behind one row at one scale.

    Args:
        by_seed: Seed -> record, ordered by seed.
        notes: What was left out, and why; shown wherever the figures are.
    """

    by_seed: dict[int, Record] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def data(self) -> tuple[str, str] | None:
        """Return name and fingerprint of the data; None without records or for rows that see none."""
        for record in self.by_seed.values():
            return None if record.data is None else (record.data.name, record.data.fingerprint)
        return None

    def same_data(self, other: "Selection") -> bool:
        """Return whether figures of the two may be set against each other; a row that sees no data goes with any."""
        return self.data is None or other.data is None or self.data == other.data


class Records:
    """Records of one paper from one source, ready to be asked for rows. Variants never answer.

    Args:
        records: Any records.
        paper: Name of the paper; other papers' records are passed over.
    """

    def __init__(self, records: Iterable[Record], paper: str) -> None:
        self._rows: dict[tuple[str, str, str], list[Record]] = {}
        for record in records:
            if record.paper == paper and not record.variant:
                self._rows.setdefault((record.table, record.row, record.scale), []).append(record)
        self._selections: dict[tuple[str, str, str], Selection] = {}

    def has(self, row: str, scale: str) -> bool:
        """Return whether ``TABLE/ROW`` has a record at that scale."""
        return bool(self._rows.get((*_split(row), scale)))

    def of(self, row: str, scale: str) -> Selection:
        """Return what answers for ``TABLE/ROW`` at a scale: the newest record of each seed, on the newest record's data."""
        key = (*_split(row), scale)
        if key not in self._selections:
            self._selections[key] = _select(self._rows.get(key, []))
        return self._selections[key]


def _split(row: str) -> tuple[str, str]:
    table, _, name = row.partition("/")
    return table, name


def _select(records: Sequence[Record]) -> Selection:
    if not records:
        return Selection()
    oldest_first = sorted(records, key=lambda record: record.started)
    newest = oldest_first[-1]
    same = [record for record in oldest_first if record.data == newest.data]
    notes = []
    if others := len(oldest_first) - len(same):
        seen = f"{newest.data.name} {newest.data.fingerprint[:6]}" if newest.data else "no data"
        notes.append(f"{others} run{'s' if others > 1 else ''} left out: other data than {seen}")
    by_seed = {record.seed: record for record in same}
    if replaced := len(same) - len(by_seed):
        notes.append(f"{replaced} run{'s' if replaced > 1 else ''} left out: a newer one has the same seed")
    return Selection({seed: by_seed[seed] for seed in sorted(by_seed)}, tuple(notes))
