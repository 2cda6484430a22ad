import builtins
import csv
import io
import json
import re
from dataclasses import replace
from pathlib import Path
from textwrap import dedent
from typing import Any

import pandas as pd
import pytest
from fabricated import TABLE, accuracies, made_up, measurement, record

from espalier.tables.comparison import JSON_KEYS, Cell, compare
from espalier.tables.export import export, wide
from espalier.tables.ranking import best, ranks
from espalier.tables.schema import Table

pytestmark = pytest.mark.tiny

CONTEST = """
    paper: made-up
    table: tab
    title: ADMM against MEST
    source: {where: this machine, provenance: derived}
    note: "paper defaults"
    data: {desk: mnist_10k}
    seeds: {desk: [0, 1]}
    contestants: [method, constraint]
    columns: {top1_pct: {}, stored_bytes: {}, latency_ms_p50: {}}
    rows:
      dense: {overrides: []}
      admm-filter-4x: {overrides: [], labels: {method: ADMM, constraint: filter, rate: 4x}}
      mest-filter-4x: {overrides: [], labels: {method: MEST, constraint: filter, rate: 4x}}
      set-filter-4x: {overrides: [], labels: {method: SET, constraint: filter, rate: 4x}}
      admm-filter-8x: {overrides: [], labels: {method: ADMM, constraint: filter, rate: 8x}}
      mest-filter-8x: {labels: {method: MEST, constraint: filter, rate: 8x}, note: refused}
"""


@pytest.fixture
def contest(tmp_path: Path) -> tuple[Table, list[Cell]]:
    """Return a comparison: at 4x ADMM and SET tie in print, MEST is worse but smaller; the dense row is above all."""
    table = made_up(tmp_path, table=CONTEST, claims=None).table("tab")
    figures = {"dense": (99.0, 900), "admm-filter-4x": (98.001, 300), "mest-filter-4x": (97.0, 200)}
    figures |= {"set-filter-4x": (97.999, 300), "admm-filter-8x": (96.0, 100)}
    own = [record(row, metrics={"top1_pct": top1, "stored_bytes": size}) for row, (top1, size) in figures.items()]
    times = [
        measurement(f"{row}-desk-0", milliseconds, device=device)
        for row, milliseconds, device in (
            ("admm-filter-4x", 2.0, "A"),
            ("mest-filter-4x", 3.0, "A"),
            ("mest-filter-4x", 0.5, "B"),
            ("set-filter-4x", 0.6, "B"),
        )
    ]
    return table, compare(table, own, [], "desk", measurements=times)


def test_contestants_rank_by_what_is_printed_among_rows_that_differ_in_the_method(contest: tuple[Table, list[Cell]]) -> None:
    assert ranks(*contest) == {"admm-filter-4x": 1, "set-filter-4x": 1, "mest-filter-4x": 3}  # at 8x ADMM alone can run
    grid = wide(*contest)
    assert grid.heads[-1] == ("rank", "yours")
    assert [texts[-1] for _, texts in grid.rows] == ["", "1", "3", "1", "", ""]
    frame = pd.read_csv(io.StringIO(export(*contest, "csv")))
    assert dict(frame.dropna(subset="rank").groupby("row")["rank"].first()) == ranks(*contest)


@pytest.mark.parametrize("to", ["md", "latex"])
def test_a_table_without_published_figures_speaks_of_none(contest: tuple[Table, list[Cell]], to: str) -> None:
    if to == "latex":
        pytest.importorskip("great_tables")
    assert "published" not in export(*contest, to).lower()


def test_nobody_ranks_until_the_round_is_full_of_equally_many_seeds(contest: tuple[Table, list[Cell]]) -> None:
    table, cells = contest
    assert ranks(table, [cell for cell in cells if cell.row != "mest-filter-4x"]) == {}
    longer = [replace(cell, seeds=(0, 1)) if cell.row == "mest-filter-4x" else cell for cell in cells]
    assert ranks(table, longer) == {}
    assert set(ranks(table, [replace(cell, seeds=(0, 1)) for cell in cells])) == {"admm-filter-4x", "set-filter-4x", "mest-filter-4x"}


def test_constraints_never_share_a_round(contest: tuple[Table, list[Cell]]) -> None:
    table, cells = contest
    rows = dict(table.rows)
    rows["set-filter-4x"] = rows["set-filter-4x"].model_copy(update={"labels": {"method": "SET", "constraint": "block", "rate": "4x"}})
    apart = table.model_copy(update={"rows": rows})
    assert ranks(apart, cells) == {"admm-filter-4x": 1, "mest-filter-4x": 2}
    assert {row for row, column, *_ in best(apart, cells) if column == "top1_pct"} == {"admm-filter-4x"}


def test_the_best_are_bold_within_one_rate_and_one_setting(contest: tuple[Table, list[Cell]]) -> None:
    found = {(row, column, device if column.startswith("latency") else "") for row, column, _, device in best(*contest)}
    assert found == {
        ("admm-filter-4x", "top1_pct", ""),
        ("set-filter-4x", "top1_pct", ""),
        ("mest-filter-4x", "stored_bytes", ""),
        ("admm-filter-4x", "latency_ms_p50", "A, 2 threads, batch 1, fp32, pytorch-eager, cpu"),
        ("mest-filter-4x", "latency_ms_p50", "B, 2 threads, batch 1, fp32, pytorch-eager, cpu"),
    }
    line = next(line for line in export(*contest, "md").splitlines() if line.startswith("| mest-filter-4x"))
    assert line == (
        "| mest-filter-4x | 97.00 | **200** | 3 (A, 2 threads, batch 1, fp32, pytorch-eager, cpu); "
        "**0.500 (B, 2 threads, batch 1, fp32, pytorch-eager, cpu)** | 3 |"
    )
    pytest.importorskip("great_tables")
    assert r"mest-filter-4x & 97.00 & \textbf{200} & 3 (A" in export(*contest, "latex")


@pytest.mark.parametrize("to", ["md", "latex"])
def test_what_all_figures_share_is_said_once(tmp_path: Path, to: str) -> None:
    if to == "latex":
        pytest.importorskip("great_tables")
    table = made_up(tmp_path, table=CONTEST, claims=None).table("tab")
    rows = ("dense", "admm-filter-4x", "mest-filter-4x")
    own = [one for row in rows for one in accuracies(row, 98.0, 97.0)]
    times = [measurement(f"{row}-desk-{seed}", 1.0, device="cpu Z") for row in rows for seed in (0, 1)]
    text = export(table, compare(table, own, [], "desk", measurements=times), to)
    assert text.count("cpu Z") == 1
    assert "measured on cpu Z, 2 threads, batch 1, fp32, pytorch-eager, cpu." in text
    assert "(n=" not in text
    assert len(re.findall(r"over n = 2 seeds\.", text)) == 1
    longer = export(table, compare(table, [*own, record("dense", 2)], [], "desk", measurements=times), to)
    assert longer.count("(n=2)") == 5  # of the other rows accuracy and time, and of the dense row its time
    assert longer.count("(n=3)") == 1


def test_nothing_is_bold_where_all_tie(contest: tuple[Table, list[Cell]]) -> None:
    table, cells = contest
    level = [replace(cell, ours_mean=300.0) if cell.column == "stored_bytes" else cell for cell in cells]
    assert not [figure for figure in best(table, level) if figure[1] == "stored_bytes"]
    assert [figure for figure in best(table, level) if figure[1] == "top1_pct"]


TIMES = {"dense": 2.0, "admm-filter-4x": 1.0, "mest-filter-4x": 3.0, "set-filter-4x": 2.5}


@pytest.mark.parametrize(
    ("cut", "engine", "bold"),
    [
        ((), "pytorch-eager", []),  # masks alone: one computation, whatever the clock said
        (("set-filter-4x",), "pytorch-eager", ["admm-filter-4x", "mest-filter-4x"]),  # those two took 2.0 ms on average, the cut one 2.5
        ((), "generated", ["admm-filter-4x"]),  # code that skips zeros may well differ
    ],
    ids=["masked", "one-is-cut", "skips-zeros"],
)
def test_times_of_one_computation_are_not_ranked(tmp_path: Path, cut: tuple[str, ...], engine: str, bold: list[str]) -> None:
    table = made_up(tmp_path, table=CONTEST, claims=None).table("tab")
    own = [record(row, metrics={"top1_pct": 98.0, "macs": 5e6 if row in cut else 1e7, "parameters": 1e4}) for row in TIMES]
    times = [measurement(f"{row}-desk-0", taken, engine=engine) for row, taken in TIMES.items()]
    cells = compare(table, own, [], "desk", measurements=times)
    assert [row for row, column, *_ in sorted(best(table, cells)) if column == "latency_ms_p50"] == bold
    rows = "dense, admm-filter-4x, mest-filter-4x" if cut else "all rows"
    said = f"latency\\_ms\\_p50: {rows} are timings of one computation" in export(table, cells, "md")
    assert said is (engine == "pytorch-eager")


def test_published_and_own_figures_are_never_ranked_among_each_other(compared: tuple[Table, list[Cell]]) -> None:
    found = {(row, column, part) for row, column, part, _ in best(*compared)}
    assert ("admm", "top1_pct", "published") in found  # 99.1 against the quoted 98; the dense row's 99.2 does not compete
    assert not [figure for figure in found if figure[2] == "yours"]  # one row of ours beside the dense one: nothing to be better than


def test_methods_compete_down_a_grids_columns_or_across_its_rows(tmp_path: Path) -> None:
    text = dedent(TABLE).replace("quoted: {cells: {top1_pct: 98}}", "quoted: {cells: {top1_pct: 98}, labels: {method: Z, at: 2x}}")
    for row, labels in (("dense", "{method: dense, at: 1x}"), ("admm", "{method: A, at: 2x}"), ("deep_admm", "{method: A, at: 4x}")):
        text = re.sub(rf"(\b{row}:\s+){{?\s*overrides", rf"\1{{labels: {labels}, overrides", text)
    text = text.replace("rate: 72}\n", "rate: 72}}\n").replace("rate=71.2]\n    cells", "rate=71.2],\n    cells")
    down = made_up(tmp_path / "down", table=text + "layout: {rows: method, columns: at, value: top1_pct}\n", claims=None).table("tab")
    across = made_up(tmp_path / "across", table=text + "layout: {rows: at, columns: method, value: top1_pct}\n", claims=None).table("tab")
    expected = {("admm", "top1_pct", "published", "")}  # A 99.1 against Z 98, both at 2x
    assert best(down, compare(down, [], [], "paper")) == best(across, compare(across, [], [], "paper")) == expected


@pytest.mark.parametrize("to", ["md", "latex", "csv"])
def test_an_export_ends_with_where_its_figures_come_from(compared: tuple[Table, list[Cell]], to: str) -> None:
    if to == "latex":
        pytest.importorskip("great_tables")
    text = export(*compared, to)
    names = ["made-up/tab/dense/desk/seed0-densed", "shipped:made-up/tab/dense/desk/seed0-densed"]
    if to == "csv":
        line = pd.read_csv(io.StringIO(text)).iloc[0]
        assert line.command == "espalier table made-up/tab --scale desk --to csv"
        assert line.records.split() == [names[0], "made-up/tab/dense/desk/seed1-densed", names[1]]
        return
    comment = text[text.index("<!--") :] if to == "md" else "".join(re.findall(r"^% .*\n", text, flags=re.MULTILINE))
    assert f"espalier table made-up/tab --scale desk --to {to}   (espalier 0." in comment
    assert all(name in comment for name in names)
    assert text.rstrip().endswith(names[1] if to == "latex" else "-->")


HOSTILE = r"a&b%c$d#e_f{g}h~i^j\k|l<m>n [o]"


def read_latex(text: str) -> str:
    """Undo escapes as TeX would print them; whatever special sign is left was none of ours."""
    macros = {r"\textasciitilde{}": "~", r"\textasciitilde": "~", r"\textasciicircum{}": "^", r"\textasciicircum": "^"}
    macros |= {r"\textbackslash{}": "\\", r"\textbackslash": "\\", r"\textbar{}": "|", r"\textless{}": "<", r"\textgreater{}": ">"}
    macros |= {r"\textless": "<", r"\textgreater": ">", **{f"\\{sign}": sign for sign in "&%$#_{}"}}
    tokens = re.split("(" + "|".join(map(re.escape, sorted(macros, key=len, reverse=True))) + ")", text)
    bare = "".join(tokens[::2])
    assert not set(bare) & set("&%$#_{}~^\\|"), bare
    return "".join(macros.get(token, token) for token in tokens)


def test_latex_reads_back_a_row_full_of_special_signs(tmp_path: Path) -> None:
    pytest.importorskip("great_tables")
    text = dedent(CONTEST).replace("admm-filter-4x:", f"'{HOSTILE}':").replace('"paper defaults"', f"'* {HOSTILE}'")
    text = text.replace("stored_bytes: {}", f"stored_bytes: {{unit: '{HOSTILE}'}}")
    table = made_up(tmp_path, table=text, claims=None).table("tab")
    written = export(table, compare(table, [record(HOSTILE), record("dense", metrics={"stored_bytes": 3})], [], "desk"), "latex")
    row = next(line for line in written.splitlines() if "98.00" in line)
    assert read_latex(row.split(" & ")[0]) == HOSTILE
    head = re.search(r"stored\\_bytes \((.*?)\)}", written)
    assert head is not None
    assert read_latex(head[1]) == HOSTILE
    note = next(line for line in written.splitlines() if line.startswith("{}*"))
    assert read_latex(note.removeprefix("{}").removesuffix("\\\\")) == f"* {HOSTILE}"


@pytest.fixture
def compared(tmp_path: Path) -> tuple[Table, list[Cell]]:
    table = made_up(tmp_path).table("tab")
    own = accuracies("dense", 98.0, 98.5) + accuracies("deep_admm", 97.0, 97.5)
    times = [measurement("deep_admm-desk-0", 0.125, device="cpu_A & 2|3")]
    return table, compare(table, own, accuracies("dense", 98.25), "desk", measurements=times)


def test_csv_has_one_line_a_cell_at_full_precision(compared: tuple[Table, list[Cell]]) -> None:
    lines = list(csv.DictReader(io.StringIO(export(*compared, "csv"))))
    assert len(lines) == 4 * 5
    assert tuple(lines[0])[: len(JSON_KEYS)] == JSON_KEYS
    unknown = next(line for line in lines if (line["row"], line["column"]) == ("deep_admm", "top1_pct"))
    assert (unknown["published"], unknown["ours_mean"], unknown["seeds"], unknown["shipped_mean"]) == ("?", "97.25", "0 1", "")


def test_json_rows_have_the_agreed_keys(compared: tuple[Table, list[Cell]]) -> None:
    rows = json.loads(export(*compared, "json"))
    assert all(tuple(row) == JSON_KEYS for row in rows)
    assert rows[0] | {"shipped_std": None} == rows[0]


def test_stale_runs_are_marked_and_the_mark_explained(tmp_path: Path) -> None:
    table = made_up(tmp_path).table("tab")
    own = accuracies("dense", 98.0)
    text = export(table, compare(table, own, [], "desk", stale={own[0].name}), "md")
    assert r"| dense | 99.2 | 98.00\* |" in text
    assert "rerun=stale" in text
    assert "rerun=stale" not in export(table, compare(table, own, [], "desk"), "md")


def test_markdown_escapes_what_would_break_it(compared: tuple[Table, list[Cell]]) -> None:
    text = export(*compared, "md")
    lines = text.splitlines()
    assert lines[0] == r"**50 % & more\_or\_less #1** (made-up/tab, scale desk)"
    assert lines[2].startswith(
        r"| row | top1\_pct (%), published | top1\_pct (%), shipped | top1\_pct (%), yours | loss\_pct (points), published |"
    )
    assert lines[4].startswith("| dense | 99.2 | 98.25 | 98.25 ± 0.35 (n=2) |")
    assert lines[6].startswith(r"| deep\_admm | ? |  | 97.25 ± 0.35 (n=2) |  |")
    assert "| 0.125 (n=1) |" in lines[6]
    assert r"latency\_ms\_p50: measured on cpu\_A & 2\|3, 2 threads, batch 1, fp32, pytorch-eager, cpu." in text
    assert "Shipped: n = 1 seed, no spread." in text
    assert "Yours: mean ± standard deviation over n seeds." in text
    assert r"99.1 \[derived\]" in lines[5]
    assert "?: unknown." in text
    assert r"Not to be set against the published figures (other scale or hardware): latency\_ms\_p50, top1\_pct." in text
    widths = {line.replace(r"\|", "").count("|") for line in lines if line.startswith("|")}
    assert len(widths) == 1


def test_latex_escapes_what_would_break_it(compared: tuple[Table, list[Cell]]) -> None:
    pytest.importorskip("great_tables")
    text = export(*compared, "latex")
    assert r"50 \% \& more\_or\_less \#1" in text
    assert r"\multicolumn{3}{c}{top1\_pct (\%)}" in text
    assert r"98.25 $\pm$ 0.35 (n=2)" in text
    assert r"deep\_admm & ? &" in text
    assert r"cpu\_A \& 2\textbar{}3" in text


def test_latex_without_great_tables_says_how_to_install_it(compared: tuple[Table, list[Cell]], monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name == "great_tables":
            raise ModuleNotFoundError("gone", name=name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ModuleNotFoundError, match=r"LaTeX needs great_tables; install it with: pip install 'espalier\[report\]'"):
        export(*compared, "latex")


def test_an_unknown_format_lists_close_ones(compared: tuple[Table, list[Cell]]) -> None:
    with pytest.raises(ValueError, match=r"no format 'latx'; did you mean 'latex'\?"):
        export(*compared, "latx")


def test_a_table_that_is_only_quoted_has_only_published_columns(tmp_path: Path) -> None:
    table = made_up(tmp_path).table("tab")
    text = export(table, compare(table, [], [], "paper"), "md")
    assert ", yours" not in text
    assert ", shipped" not in text
