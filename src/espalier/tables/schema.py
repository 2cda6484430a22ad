"""What ``experiments/<paper>/`` holds: the paper, its published tables and its claims.

A published cell is a number, a text (in columns of kind ``text``) or ``?``: not known, and shown so. Where it comes from is part of it.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, model_validator

from espalier import metrics
from espalier.tables import expressions
from espalier.tables.names import did_you_mean

Scale = Literal["smoke", "desk", "paper"]
SCALES: tuple[Scale, ...] = ("smoke", "desk", "paper")  # from the quickest to the paper's own
Provenance = Literal["full text", "official repo", "abstract", "secondary source", "from memory", "derived", "proposal"]
UNKNOWN = "?"

Problem = tuple[tuple[str | int, ...], str]  # where in the file (keys from the top), and what is wrong


class Strict(BaseModel):
    """A schema that refuses keys it does not know."""

    model_config = ConfigDict(extra="forbid")


class Source(Strict):
    """Where a table was read, and how sure its cells are unless they say otherwise."""

    where: str
    provenance: Provenance


class PublishedCell(Strict):
    """One published figure.

    Args:
        value: The figure, a text, or ``?`` where nobody could find it.
        provenance: How the figure reached us; None takes the table's.
        note: What a reader must know, such as the predecessor paper that prints it.
    """

    value: float | str
    provenance: Provenance | None = None
    note: str = ""

    @model_validator(mode="before")
    @classmethod
    def _from_plain(cls, given: Any) -> Any:
        if isinstance(given, Mapping):
            return given
        if isinstance(given, int | float | str) and not isinstance(given, bool):
            return {"value": given}
        raise ValueError(f"a cell is a number, ? or {{value, provenance, note}}, not {given!r}")


class Column(Strict):
    """One column; what ``espalier.metrics`` knows of its name need not be repeated.

    Args:
        unit: Unit as printed.
        better: Direction of improvement.
        kind: Where the figures come from; kinds never share a column.
        computed: Expression over other metrics of the row and, as ``dense.NAME``, of its dense baseline.
        meaning: One line for the reader.
    """

    unit: str = ""
    better: metrics.Better = "neither"
    kind: metrics.Kind | Literal["text"]
    computed: str | None = None
    meaning: str = ""


class Row(Strict):
    """One row: what to run (nothing, where a table is only quoted) and what was published.

    Args:
        overrides: Hydra overrides on top of the table's experiment; None for a row that cannot be run.
        cells: Column -> published figure.
        seeds: Scale -> seeds, where they differ from the table's.
        data: Scale -> name of the data, where it differs from the table's.
        model: Scale -> name of the model, where it differs from the table's.
        labels: Key -> text, for keys of the table's layout that neither a cell nor an override gives as the paper prints them.
        note: What a reader must know of the row.
    """

    overrides: list[str] | None = None
    cells: dict[str, PublishedCell] = Field(default_factory=dict)
    seeds: dict[Scale, list[int]] = Field(default_factory=dict)
    data: dict[Scale, str] = Field(default_factory=dict)
    model: dict[Scale, str] = Field(default_factory=dict)
    labels: dict[str, str] = Field(default_factory=dict)
    note: str = ""


class Layout(Strict):
    """The grid a paper prints, made from one row here per place in it.

    A key is a label of the row, a column (the published cell), an override (``constraint.rate=4`` gives ``constraint.rate``), or ``row``,
    the row's name. Several keys of one axis stand beside each other, as in ``90 %, 10x``.

    Args:
        rows: Keys that name a row of the grid; where empty, each column under ``value`` is one.
        columns: Keys that name its column; where empty, each column under ``value`` is one.
        value: Columns whose figures fill it; several stand beside each other under each column.
    """

    rows: list[str] = Field(default_factory=list)
    columns: list[str] = Field(default_factory=list)
    value: list[str] = Field(min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _lists(cls, given: Any) -> Any:
        """Take a single key for a list of one."""
        if not isinstance(given, Mapping):
            raise ValueError(f"a layout is {{rows, columns, value}}, not {given!r}")
        return {axis: [keys] if isinstance(keys, str) else keys for axis, keys in given.items()}

    @model_validator(mode="after")
    def _has_an_axis(self) -> "Layout":
        if not self.rows and not self.columns:
            raise ValueError("name rows, columns or both; without either the table is printed as it is")
        return self


class DenseGate(Strict):
    """The accuracy a dense baseline must reach before a compressed row is judged.

    Args:
        row: Row of this table, or ``TABLE/ROW`` of the same paper.
        metric: Name in ``espalier.metrics``.
        at_least: Scale -> reference; null asks nothing at that scale.
    """

    row: str
    metric: str
    at_least: dict[Scale, float | None]


class Table(Strict):
    """One published table, ``experiments/<paper>/tables/<table>.yaml``.

    ``data`` and ``model`` name a config of their group for each scale; a scale without a model takes the experiment's.

    Args:
        experiment: The file of ``conf/experiment`` that its rows start from; None takes ``PAPER/TABLE``.
        contestants: Labels that tell apart what is compared: rows that agree in them lie on one curve. Empty for a paper's table.
        tuned: ``trials`` that each contestant of a comparison had, and the ``seed`` they ran at; empty where nothing was tuned.
    """

    paper: str
    table: str
    title: str
    source: Source
    note: str = ""
    experiment: str | None = None
    contestants: list[str] = Field(default_factory=list)
    tuned: dict[Literal["trials", "seed"], int] = Field(default_factory=dict)
    data: dict[Scale, str] = Field(default_factory=dict)
    model: dict[Scale, str] = Field(default_factory=dict)
    seeds: dict[Scale, list[int]] = Field(default_factory=dict)
    dense_gate: DenseGate | None = None
    columns: dict[str, Column]
    rows: dict[str, Row]
    layout: Layout | None = None
    _dense_cells: dict[str, PublishedCell] = PrivateAttr(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _fill_columns(cls, given: Any) -> Any:
        """Take unit, direction and kind of a known metric from ``espalier.metrics``."""
        if not isinstance(given, Mapping) or not isinstance(given.get("columns"), Mapping):
            return given
        filled: dict[Any, Any] = {}
        for name, column in given["columns"].items():
            if isinstance(name, str) and not metrics.unknown([name]) and (column is None or isinstance(column, Mapping)):
                known = metrics.metric(name)
                defaults = {"unit": known.unit, "better": known.better, "kind": known.kind, "meaning": known.meaning}
                column = {**defaults, **(column or {})}
            filled[name] = column
        return {**given, "columns": filled}

    @property
    def name(self) -> str:
        """Return ``PAPER/TABLE``."""
        return f"{self.paper}/{self.table}"

    @property
    def runnable(self) -> dict[str, Row]:
        """Return the rows that can be run, in order."""
        return {name: row for name, row in self.rows.items() if row.overrides is not None}

    @property
    def dense_row(self) -> tuple[str, str] | None:
        """Return (table, row) of the dense baseline: the gate's row, else this table's row ``dense``."""
        if self.dense_gate is not None:
            table, _, row = self.dense_gate.row.rpartition("/")
            return (table or self.table, row)
        return (self.table, "dense") if "dense" in self.rows else None

    @property
    def dense_cells(self) -> dict[str, PublishedCell]:
        """Return what was published of the dense baseline."""
        return self._dense_cells

    def row(self, name: str) -> Row:
        """Return one row.

        Raises:
            ValueError: There is no such row; the message lists close names.
        """
        if name not in self.rows:
            raise ValueError(f"table {self.name} has no row '{name}'; {did_you_mean(name, self.rows)}.")
        return self.rows[name]

    def data_of(self, row: str, scale: str) -> str:
        """Return the name of the data that a row uses at a scale.

        Raises:
            ValueError: There is no such row, or the table names no data for that scale.
        """
        data = {str(key): name for given in (self.data, self.row(row).data) for key, name in given.items()}
        self._require(scale, data, "data")
        return data[scale]

    def is_other_data(self, row: str, scale: str) -> bool:
        """Return whether a row's data at a scale is another task's than at the highest; NAME_5k is a part of NAME, of the same task."""
        data = {str(key): name.partition("_")[0] for given in (self.data, self.row(row).data) for key, name in given.items()}
        return bool(data) and data.get(scale) != next(data[highest] for highest in reversed(SCALES) if highest in data)

    def model_of(self, row: str, scale: str) -> str | None:
        """Return the name of the model that a row uses at a scale; None takes the experiment's.

        Raises:
            ValueError: There is no such row.
        """
        return {str(key): name for given in (self.model, self.row(row).model) for key, name in given.items()}.get(scale)

    def seeds_of(self, row: str, scale: str) -> list[int]:
        """Return the seeds that a row is run with at a scale; raises as ``data_of`` does."""
        seeds = {str(key): values for given in (self.seeds, self.row(row).seeds) for key, values in given.items()}
        self._require(scale, seeds, "seeds")
        return seeds[scale]

    def _require(self, scale: str, per_scale: Mapping[str, Any], what: str) -> None:
        if scale not in per_scale:
            raise ValueError(f"table {self.name} names no {what} for scale '{scale}'; {did_you_mean(scale, per_scale)}.")

    def problems(self) -> Iterator[Problem]:
        """Yield what the schema alone cannot see: names that nothing bears."""
        for name, column in self.columns.items():
            if column.computed is not None:
                yield from self._expression_problems(name, column.computed)
            elif self.runnable and column.kind != "text" and metrics.unknown([name]):
                known = [entry.name for entry in metrics.METRICS]
                yield ("columns", name), f"no run gives '{name}'; {did_you_mean(name, known)}, or add it to espalier/metrics.py"
            if not metrics.unknown([name]) and column.kind != (known_kind := metrics.metric(name).kind):
                yield ("columns", name, "kind"), f"'{name}' is {known_kind}, not {column.kind}; kinds never share a column"
        for name, row in self.rows.items():
            for cell, published in row.cells.items():
                where = ("rows", name, "cells", cell)
                if cell not in self.columns:
                    yield where, f"the table has no column '{cell}'; {did_you_mean(cell, self.columns)}"
                elif isinstance(published.value, str) and published.value != UNKNOWN and self.columns[cell].kind != "text":
                    yield where, f"'{published.value}' is no number; write ? for unknown, or give the column kind: text"
        for name in self.runnable:
            for scale in (scale for scale in SCALES if scale in self.seeds and scale not in {**self.data, **self.rows[name].data}):
                yield ("rows", name), f"seeds are given for scale '{scale}', but no data; name it under data"
        if self.dense_gate is not None:
            if metrics.unknown([self.dense_gate.metric]):
                known = [entry.name for entry in metrics.METRICS]
                yield ("dense_gate", "metric"), f"no metric '{self.dense_gate.metric}'; {did_you_mean(self.dense_gate.metric, known)}"
            if "/" not in self.dense_gate.row and self.dense_gate.row not in self.rows:
                yield ("dense_gate", "row"), f"the table has no row '{self.dense_gate.row}'; {did_you_mean(self.dense_gate.row, self.rows)}"

    def _expression_problems(self, column: str, expression: str) -> Iterator[Problem]:
        where = ("columns", column, "computed")
        try:
            used = expressions.names(expression)
        except ValueError as error:
            yield where, str(error)
            return
        known = [*self.columns, *(entry.name for entry in metrics.METRICS)]
        for name in sorted({name.removeprefix("dense.") for name in used}):
            if name not in self.columns and metrics.unknown([name]):
                yield where, f"'{expression}' reads '{name}', which is neither column nor metric; {did_you_mean(name, known)}"


class Inequality(Strict):
    """One inequality over record values of the same seed.

    Args:
        name: What it asks, in a few words.
        expression: Arithmetic over ``m("TABLE/ROW", "metric")``, ``series_mean``, ``first`` and ``last`` (``TABLE/ROW``, series name), and
            ``at_loss(POINTS, "DENSE ROW", "metric", "ROW", ..)``: the metric where a curve has lost so many points of top-1.
        at_least: Lower bound of the mean; or
        at_most: its upper bound.
        tolerance: Noise granted on top of the bound, in the expression's unit.
        each: Rows that the name ``row`` in the expression stands for, one test each.
        scales: Scales that the claim is made for; None is all.
    """

    name: str
    expression: str
    at_least: float | None = None
    at_most: float | None = None
    tolerance: float = Field(default=0.0, ge=0.0)
    each: list[str] = Field(default_factory=list)
    scales: list[Scale] | None = None

    @model_validator(mode="after")
    def _has_one_bound(self) -> "Inequality":
        if (self.at_least is None) == (self.at_most is None):
            raise ValueError("give exactly one of at_least and at_most")
        return self

    def expanded(self) -> "list[Inequality]":
        """Return one inequality per row of ``each``; itself where that is empty."""
        if not self.each:
            return [self]
        return [
            self.model_copy(update={"name": f"{self.name}: {row}", "expression": expressions.with_row(self.expression, row), "each": []})
            for row in self.each
        ]


class Claim(Strict):
    """What a paper says must hold.

    Args:
        id: Number in the paper's list.
        statement: The claim in our words, with the published figures and where they come from.
        given: What makes the comparison fair, such as equal epochs; where it does not hold in every seed, nothing is concluded.
        tests: All must hold; empty where our runs cannot answer.
        gated: False where the claim does not rest on the accuracy of the dense baseline.
        untested: The part (or the reason for all of it) that the tests leave out.
    """

    id: int
    statement: str
    given: list[Inequality] = Field(default_factory=list)
    tests: list[Inequality]
    gated: bool = True
    untested: str = ""

    @model_validator(mode="after")
    def _says_why_not(self) -> "Claim":
        if not self.tests and not self.untested:
            raise ValueError("a claim without tests says under 'untested' why")
        return self


class Claims(Strict):
    """All claims of a paper, ``experiments/<paper>/claims.yaml``."""

    paper: str
    claims: list[Claim]


class PaperFacts(Strict):
    """What identifies a paper, ``experiments/<paper>/paper.yaml``.

    Args:
        name: Name of the folder, and of the paper in every command.
        house: Whether this is no paper but tables of ours; it is not counted among the papers.
        sources: Tag used in notes of cells -> the text it stands for.
        main_table: Table that ``make reproduce`` reruns; empty only where the folder holds no table yet.
    """

    name: str
    title: str
    authors: list[str]
    venue: str
    year: int
    arxiv: str = ""
    code: list[str] = Field(default_factory=list)
    summary: str
    note: str = ""
    house: bool = False
    sources: dict[str, str] = Field(default_factory=dict)
    main_table: str
