"""The papers at hand: ``experiments/<paper>/{paper.yaml, tables/*.yaml, claims.yaml, rates/*.yaml, results/}``.

Tables are read when first asked for, so that naming the papers costs milliseconds. The folder ``compare`` is no paper: its tables are
comparisons, those that ship and those that ``espalier compare`` writes to the store, ``<store>/compare/NAME/table.yaml``.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path

from espalier import metrics
from espalier.record import Measurement, Record, read_measurement, read_record, store_root
from espalier.tables import expressions, layout
from espalier.tables.names import did_you_mean
from espalier.tables.reading import read_yaml
from espalier.tables.schema import Claims, PaperFacts, Problem, Table

COMPARISONS = "compare"  # the folder of comparisons, which counts among no papers


def comparison_file(store: Path, name: str) -> Path:
    """Return where a store keeps the table of the comparison ``name``."""
    return store / COMPARISONS / name / "table.yaml"


def read_comparison(path: Path) -> Table:
    """Read a file that lies as ``comparison_file`` says, in whatever store.

    Raises:
        ValueError: It is malformed; the message gives file, line and key.
    """
    return _read_table(path, _stamp(path))


def experiment_roots() -> list[Path]:
    """Return the folders that hold papers: the package's (in a wheel) or the repository's, then ``ESPALIER_CONFIG/experiments``."""
    packaged = Path(__file__).parents[1] / "_experiments"
    roots = [packaged if packaged.is_dir() else Path(__file__).parents[3] / "experiments"]
    if own := os.environ.get("ESPALIER_CONFIG"):
        roots.append(Path(own) / "experiments")
    return [root for root in roots if root.is_dir()]


class Paper:
    """One folder ``experiments/<paper>``.

    Args:
        folder: That folder.
        store: Root of the store whose comparisons are meant, of the folder ``compare``; None takes ``ESPALIER_STORE``, else ``runs``.

    Raises:
        ValueError: ``paper.yaml`` is malformed; the message gives file, line and key.
    """

    def __init__(self, folder: Path, *, store: Path | None = None) -> None:
        self.folder, self.store = folder, store
        self.facts = _read_facts(folder / "paper.yaml", _stamp(folder / "paper.yaml"))

    @property
    def name(self) -> str:
        """Return the name used in every command."""
        return self.facts.name

    @property
    def table_names(self) -> list[str]:
        """Return the names of its tables, the main one first."""
        return sorted(sorted(self._files), key=lambda name: name != self.facts.main_table)

    @property
    def _files(self) -> dict[str, Path]:
        """Return table -> file; a comparison that ships comes before one of the store."""
        shipped = {path.stem: path for path in sorted((self.folder / "tables").glob("*.yaml"))}
        if self.name != COMPARISONS:
            return shipped
        root = store_root() if self.store is None else self.store
        return {path.parent.name: path for path in root.resolve().glob(f"{COMPARISONS}/*/table.yaml")} | shipped

    def table(self, name: str) -> Table:
        """Return one table.

        Raises:
            ValueError: There is no such table (the message lists close names), or its file is malformed.
        """
        if name not in (files := self._files):
            raise ValueError(f"paper {self.name} has no table '{name}'; {did_you_mean(name, files)}.")
        path = files[name]
        table = _read_table(path, _stamp(path))
        if (dense := table.dense_row) is not None:
            table._dense_cells = (table if dense[0] == name else self.table(dense[0])).row(dense[1]).cells
        return table

    @property
    def tables(self) -> dict[str, Table]:
        """Return all tables by name, the main one first."""
        return {name: self.table(name) for name in self.table_names}

    @property
    def claims(self) -> Claims:
        """Return its claims; every row and metric they read exists.

        Raises:
            ValueError: ``claims.yaml`` is malformed; the message gives file, line, key and close names.
        """
        path = self.folder / "claims.yaml"
        if not path.is_file():
            return Claims(paper=self.name, claims=[])
        return read_yaml(path, Claims, self._claim_problems)

    @property
    def rows(self) -> dict[str, list[str]]:
        """Return table -> names of the rows that can be run, of tables that have any."""
        runnable = {name: list(table.runnable) for name, table in self.tables.items()}
        return {name: rows for name, rows in runnable.items() if rows}

    def shipped_records(self) -> list[Record]:
        """Return the reference records that came with the paper."""
        return [read_record(path) for path in sorted((self.folder / "results").rglob("record.json"))]

    def shipped_measurements(self) -> list[Measurement]:
        """Return the reference measurements that came with the paper."""
        return [read_measurement(path) for path in sorted((self.folder / "results").rglob("measurements/*.json"))]

    def _claim_problems(self, read: Claims) -> Iterator[Problem]:
        if read.paper != self.name:
            yield ("paper",), f"'{read.paper}' lies in the folder of '{self.name}'; write that name"
        rows = [f"{table}/{row}" for table, names in self.rows.items() for row in names]
        ids = [claim.id for claim in read.claims]
        for index, claim in enumerate(read.claims):
            if claim.id in ids[:index]:
                yield ("claims", index, "id"), f"claim {claim.id} stands here a second time; renumber one"
            for part, tests in (("given", claim.given), ("tests", claim.tests)):
                for number, test in enumerate(tests):
                    yield from self._test_problems(
                        ("claims", index, part, number, "expression"), [one.expression for one in test.expanded()], rows
                    )

    @staticmethod
    def _test_problems(where: tuple[str | int, ...], texts: Iterable[str], rows: Sequence[str]) -> Iterator[Problem]:
        known = [entry.name for entry in metrics.METRICS]
        for text in texts:
            try:
                read = expressions.readings(text)
            except ValueError as error:
                yield where, str(error)
                return
            for _, row, name in read:
                if row not in rows:
                    yield where, f"no table has a row '{row}' to run; {did_you_mean(row, rows)}"
                if metrics.unknown([name]):
                    yield where, f"no metric '{name}'; {did_you_mean(name, known)}"


def _stamp(path: Path) -> int:
    return path.stat().st_mtime_ns if path.is_file() else 0


@lru_cache(maxsize=256)
def _read_facts(path: Path, stamp: int) -> PaperFacts:  # noqa: ARG001 (a changed file has another stamp)
    def problems(read: PaperFacts) -> Iterator[Problem]:
        if read.name != path.parent.name:
            yield ("name",), f"'{read.name}' lies in folder '{path.parent.name}'; the two must agree"
        tables = sorted(table.stem for table in (path.parent / "tables").glob("*.yaml"))
        if read.main_table not in tables and (tables or read.main_table):
            yield ("main_table",), f"no table '{read.main_table}'; {did_you_mean(read.main_table, tables)}"

    return read_yaml(path, PaperFacts, problems)


@lru_cache(maxsize=1024)
def _read_table(path: Path, stamp: int) -> Table:  # noqa: ARG001 (a changed file has another stamp)
    def problems(read: Table) -> Iterator[Problem]:
        in_store = (path.name, path.parents[1].name) == ("table.yaml", COMPARISONS)
        if read.table != (path.parent.name if in_store else path.stem):
            yield (
                ("table",),
                f"'{read.table}' lies in {f'folder {path.parent.name!r}' if in_store else f'file {path.name!r}'}; the two must agree",
            )
        if read.paper != path.parents[1].name:
            yield ("paper",), f"'{read.paper}' lies in the folder of '{path.parents[1].name}'; the two must agree"
        yield from read.problems()
        yield from layout.problems(read)

    return read_yaml(path, Table, problems)


def papers(roots: Sequence[Path] | None = None, *, store: Path | None = None) -> dict[str, Paper]:
    """Return every paper by name.

    Args:
        roots: Folders that hold papers; None takes ``experiment_roots()``.
        store: Where comparisons lie, see ``Paper``.

    Raises:
        ValueError: A ``paper.yaml`` is malformed, or two folders hold the same paper.
    """
    found: dict[str, Paper] = {}
    for root in experiment_roots() if roots is None else roots:
        for path in sorted(root.glob("*/paper.yaml")):
            paper = Paper(path.parent, store=store)
            if paper.name in found:
                raise ValueError(f"paper {paper.name} lies in {found[paper.name].folder} and in {paper.folder}; rename one.")
            found[paper.name] = paper
    return found


def paper(name: str, roots: Sequence[Path] | None = None, *, store: Path | None = None) -> Paper:
    """Return one paper; see ``papers``.

    Raises:
        ValueError: There is no such paper; the message lists close names.
    """
    known = papers(roots, store=store)
    if name not in known:
        raise ValueError(f"no paper '{name}'; {did_you_mean(name, known)}.")
    return known[name]


def table(name: str, roots: Sequence[Path] | None = None, *, store: Path | None = None) -> Table:
    """Return the table ``PAPER/TABLE``; see ``papers``.

    Raises:
        ValueError: The name has no slash, or there is no such paper or table; the message lists close names.
    """
    of, _, rest = name.partition("/")
    if not rest:
        raise ValueError(f"'{name}' names no table; write PAPER/TABLE, such as {of}/{_first_table(of, roots)}.")
    return paper(of, roots, store=store).table(rest)


def _first_table(name: str, roots: Sequence[Path] | None) -> str:
    return paper(name, roots).facts.main_table


def rate_file(name: str, roots: Sequence[Path] | None = None) -> Path:
    """Return the file of per-layer counts named ``PAPER/NAME``: ``experiments/PAPER/rates/NAME.yaml``.

    A paper may have rate files before it has tables.

    Raises:
        ValueError: There is no such paper or file; the message lists close names.
    """
    of, _, rest = name.partition("/")
    folders = [root / of / "rates" for root in (experiment_roots() if roots is None else roots)]
    folder = next((known for known in folders if of and known.is_dir()), None) or paper(of, roots).folder / "rates"
    path = folder / f"{rest}.yaml"
    if not path.is_file():
        known = [f"{of}/{other.stem}" for other in sorted(folder.glob("*.yaml"))]
        raise ValueError(f"no rate file '{name}' ({path}); {did_you_mean(name, known)}.")
    return path
