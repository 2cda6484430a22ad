"""What all figures of a table share and is said once, beside it, instead of in every cell: numbers of seeds, and settings of times."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from espalier.tables import ranking
from espalier.tables.comparison import Cell
from espalier.tables.ranking import PARTS
from espalier.tables.schema import Table


@dataclass(frozen=True)
class Common:
    """What is said once for many figures.

    Args:
        seeds: Source -> number of seeds, where all its figures have as many.
        settings: Measured column -> setting, where all its figures were measured in it.
        sources: The sources that have figures.
    """

    seeds: Mapping[str, int]
    settings: Mapping[str, str]
    sources: Sequence[str]

    @classmethod
    def of(cls, table: Table, cells: Sequence[Cell]) -> "Common":
        """Return what is common to the figures of some cells."""
        seeds: dict[str, set[int]] = {}
        settings: dict[str, set[str]] = {}
        for cell in cells:
            for part in PARTS[1:]:
                if ranking.value_of(cell, part) is not None:
                    seeds.setdefault(part, set()).add(ranking.num_seeds(cell, part))
                    if table.columns[cell.column].kind == "measured":
                        settings.setdefault(cell.column, set()).add(cell.device)
        once = {name: next(iter(found)) for name, found in settings.items() if len(found) == 1}
        return cls({part: next(iter(found)) for part, found in seeds.items() if len(found) == 1}, once, list(seeds))

    @property
    def sentences(self) -> list[str]:
        """Return what must stand beside the table."""
        said = [f"{self._spread(part)}." for part in PARTS if part in self.sources]
        if len({text.partition(":")[2] for text in said}) == 1 < len(said):
            said = [f"Shipped and yours:{said[0].partition(':')[2]}"]
        columns: dict[str, list[str]] = {}
        for column, setting in self.settings.items():
            columns.setdefault(setting, []).append(column)
        return said + [f"{', '.join(names)}: measured on {setting}." for setting, names in columns.items() if setting]

    def _spread(self, part: str) -> str:
        if part not in self.seeds:
            return f"{part.capitalize()}: mean ± standard deviation over n seeds"
        num = self.seeds[part]
        return f"{part.capitalize()}: " + (f"mean ± standard deviation over n = {num} seeds" if num > 1 else "n = 1 seed, no spread")
