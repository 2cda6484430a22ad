"""The records and measurements that the site shows, in order by paper, table and row, so that no page looks through all of them."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from espalier.record import Measurement, Record
from espalier.tables.comparison import Cell, compare
from espalier.tables.published import Paper
from espalier.tables.schema import SCALES, Table

Source = Literal["yours", "shipped"]
SOURCES: tuple[Source, ...] = ("yours", "shipped")


@dataclass(frozen=True)
class Run:
    """One finished run.

    Args:
        record: Its record.
        source: Whose it is.
        stale: Whether its code has changed since; own runs only.
        measurements: Timings of its checkpoint.
    """

    record: Record
    source: Source
    stale: bool
    measurements: tuple[Measurement, ...]


class Evidence:
    """All records and measurements of some papers.

    Args:
        papers: The papers.
        own: Records of the store, of any paper.
        measurements: Measurements of the store.
        stale: Names of own runs whose code has changed since.
    """

    def __init__(self, papers: Iterable[Paper], own: Iterable[Record], measurements: Iterable[Measurement], stale: Collection[str]) -> None:
        self.stale = stale
        self._records: dict[tuple[Source, str], list[Record]] = defaultdict(list)  # by source and paper
        self._times: dict[tuple[Source, str], dict[str, list[Measurement]]] = defaultdict(lambda: defaultdict(list))  # then by checkpoint
        taken: dict[str, list[Measurement]] = defaultdict(list)
        for one in measurements:
            taken[one.checkpoint].append(one)
        for record in own:
            self._records["yours", record.paper].append(record)
            if record.checkpoint in taken:
                self._times["yours", record.paper][record.checkpoint] = taken[record.checkpoint]
        for paper in papers:
            self._records["shipped", paper.name] = paper.shipped_records()
            for one in paper.shipped_measurements():
                self._times["shipped", paper.name][one.checkpoint].append(one)

    def records(self, source: Source, paper: str) -> Sequence[Record]:
        """Return a paper's records of one source."""
        return self._records.get((source, paper), [])

    def measurements(self, source: Source, paper: str) -> list[Measurement]:
        """Return a paper's measurements of one source."""
        return [one for taken in self._times.get((source, paper), {}).values() for one in taken]

    def of(self, table: Table, source: Source, scale: str) -> list[Record]:
        """Return the records of a table at one scale."""
        return [one for one in self.records(source, table.paper) if (one.table, one.scale) == (table.table, scale)]

    def scales(self, table: Table) -> list[str]:
        """Return the scales at which a table has records, the highest first."""
        every = [*self.records("yours", table.paper), *self.records("shipped", table.paper)]
        present = {record.scale for record in every if record.table == table.table}
        return [scale for scale in reversed(SCALES) if scale in present]

    def cells(self, table: Table, scale: str) -> list[Cell]:
        """Return what a table says at one scale: published | shipped | yours."""
        return compare(
            table,
            self.records("yours", table.paper),
            self.records("shipped", table.paper),
            scale,
            measurements=self.measurements("yours", table.paper),
            shipped_measurements=self.measurements("shipped", table.paper),
            stale=self.stale,
        )

    def runs(self) -> Iterator[Run]:
        """Yield every run, of every paper, own ones first."""
        for source, paper in sorted(self._records, key=lambda key: key[0] == "shipped"):
            times = self._times.get((source, paper), {})
            for record in self._records[source, paper]:
                taken = tuple(times.get(record.checkpoint, ())) if record.checkpoint else ()
                yield Run(record, source, source == "yours" and record.name in self.stale, taken)
