"""A table pivoted into the form its paper prints: rows by rate, columns by method; per-layer grids; several figures a place."""

import re
from pathlib import Path

import pytest
from fabricated import accuracies, made_up, measurement

from espalier.tables.comparison import compare
from espalier.tables.export import export, wide
from espalier.tables.layout import printed
from espalier.tables.published import paper, table

pytestmark = pytest.mark.tiny

LONG = """
    paper: made-up
    table: tab
    title: A grid
    source: {where: "Table 1", provenance: full text}
    data: {smoke: digits, desk: mnist_10k}
    seeds: {smoke: [0], desk: [0, 1, 2]}
    layout: {rows: method, columns: rate, value: top1_pct}
    columns:
      top1_pct: {}
      weights_nonzero: {}
      latency_ms_p50: {}
    rows:
      dense: {overrides: [recipe=train], labels: {method: dense, rate: 1x}, cells: {top1_pct: 99.2}}
      admm-2x: {overrides: [recipe=one_shot, rate=2], labels: {method: ADMM}, cells: {top1_pct: 99.1, weights_nonzero: 5}}
      admm-4x: {overrides: [recipe=one_shot, rate=4], labels: {method: ADMM}, cells: {top1_pct: "?"}}
      zhu-4x: {labels: {method: Zhu, rate: "4"}, cells: {top1_pct: {value: 97.5, provenance: derived}}}
"""
LAYERS = """
    paper: made-up
    table: tab
    title: Kept and bits by layer
    source: {where: "Table 2", provenance: full text}
    layout: {columns: layer, value: [kept_pct, bits]}
    columns:
      layer: {kind: text}
      kept_pct: {unit: "%", better: lower, kind: counted}
      bits: {unit: bit, better: lower, kind: counted}
    rows:
      conv1: {cells: {layer: conv1, kept_pct: 20, bits: 5}}
      fc1: {cells: {layer: fc1, kept_pct: 0.2, bits: 2}}
"""


def test_own_and_shipped_records_are_pivoted_with_the_published_figures(tmp_path: Path) -> None:
    grid = made_up(tmp_path, table=LONG, claims=None).table("tab")
    own, shipped = accuracies("admm-2x", 98.0, 98.5), accuracies("dense", 98.25)
    text = wide(grid, compare(grid, own, shipped, "desk"))
    assert text.corner == "method"
    assert text.heads == [
        ("1x (%)", "published"),
        ("1x (%)", "shipped"),
        ("2 (%)", "published"),
        ("2 (%)", "yours"),
        ("4 (%)", "published"),
    ]
    assert text.rows == [
        ("dense", ["99.2", "98.25", "", "", ""]),
        ("ADMM", ["", "", "99.1", "98.25 ± 0.35", "?"]),
        ("Zhu", ["", "", "", "", "97.5 [derived]"]),
    ]
    assert text.said == ["Shipped: n = 1 seed, no spread.", "Yours: mean ± standard deviation over n = 2 seeds."]


def test_measured_figures_keep_one_cell_a_setting(tmp_path: Path) -> None:
    grid = made_up(tmp_path, table=LONG.replace("value: top1_pct", "value: latency_ms_p50"), claims=None).table("tab")
    times = [measurement("admm-4x-desk-0", 0.5, device=device) for device in ("cpu A", "cpu B")]
    form = printed(grid, compare(grid, accuracies("admm-4x", 98.0), [], "desk", measurements=times))
    assert sorted(cell.ours_mean for cell in form.at("ADMM", "4")) == [0.5, 0.5]  # type: ignore[type-var]
    assert form.at("dense", "4") == []
    assert form.columns == {"4": "ms"}


def test_without_rows_each_figure_is_a_row_of_its_own_unit(tmp_path: Path) -> None:
    grid = made_up(tmp_path, table=LAYERS, claims=None).table("tab")
    text = wide(grid, compare(grid, [], [], "paper"))
    assert text.heads == [("conv1", "published"), ("fc1", "published")]
    assert text.rows == [("kept_pct (%)", ["20", "0.2"]), ("bits (bit)", ["5", "2"])]


def test_without_columns_each_figure_is_a_column(tmp_path: Path) -> None:
    text = LAYERS.replace("{columns: layer", "{rows: [layer, row]")
    grid = made_up(tmp_path, table=text, claims=None).table("tab")
    assert wide(grid, compare(grid, [], [], "paper")).rows == [("conv1, conv1", ["20", "5"]), ("fc1, fc1", ["0.2", "2"])]


def test_a_table_without_a_layout_is_printed_row_by_row(tmp_path: Path) -> None:
    tab = made_up(tmp_path).table("tab")
    form = printed(tab, compare(tab, [], [], "desk"))
    assert (form.corner, form.rows, list(form.columns)) == ("row", tuple(tab.rows), list(tab.columns))


def line_of(text: str, part: str) -> int:
    return text[: text.index(part)].count("\n") + 1


@pytest.mark.parametrize(
    ("wrong", "right", "at", "message"),
    [
        ("value: top1_pct", "value: top_pct", None, "layout.value: the table has no column 'top_pct'; did you mean 'top1_pct'?"),
        ("rows: method", "rows: methd", None, "layout.rows: 'methd' is no column, override or label of a row; did you mean 'method'?"),
        (
            "labels: {method: ADMM}, cells: {top1_pct: 99",
            "cells: {top1_pct: 99",
            "admm-2x:",
            "rows.admm-2x: the layout names its rows by 'method', which 'admm-2x' lacks; add it under its cells or labels.",
        ),
        (
            'method: Zhu, rate: "4"',
            'method: ADMM, rate: "4"',
            None,
            "rows.zhu-4x: 'zhu-4x' and 'admm-4x' go to the same place of the layout, ADMM / 4; give one another label.",
        ),
        ("{rows: method, columns: rate, value", "{value", None, "layout: name rows, columns or both; without either the table"),
        (", value: top1_pct", "", "layout:", "layout: key 'value' is missing"),
        ("value: top1_pct", "valeu: top1_pct", None, "layout.valeu: unknown key 'valeu'; did you mean 'value'?"),
        ("layout: {rows: method, columns: rate, value: top1_pct}", "layout: grid", None, "a layout is {rows, columns, value}, not 'grid'"),
        ("value: top1_pct", "value: []", None, "layout.value: List should have at least 1 item"),
    ],
    ids=["value", "key", "row-without-key", "same-place", "no-axis", "no-value", "unknown-key", "no-mapping", "no-value-named"],
)
def test_a_malformed_layout_names_file_line_key_and_way_out(tmp_path: Path, wrong: str, right: str, at: str | None, message: str) -> None:
    assert wrong in LONG
    text = LONG.replace(wrong, right, 1)
    made = made_up(tmp_path, table=text, claims=None)
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        made.table("tab")
    assert f"tab.yaml:{line_of(text, at or right)}: " in str(caught.value)


def test_the_talks_plot_is_printed_as_rates_by_methods() -> None:
    one = table("progressive-admm/admm_vs_heuristics")
    text = wide(one, compare(one, [], [], "paper"))
    assert [title for title, _ in text.heads] == [
        f"{method} (points)" for method in ("progressive ADMM", "projected gradient", "Han iterative", "L2 + retrain", "L1 + retrain")
    ]
    assert text.rows[0] == ("90 %, 10x", ["0", "-0.9", "-0.1", "-0.7", "-1.8"])
    assert text.rows[-1] == ("96.7 %, 30x", ["?", "-8.3", "?", "?", "?"])


def test_two_figures_a_place_stand_beside_each_other() -> None:
    one = table("progressive-admm/admm_vs_oneshot")
    assert (
        export(one, compare(one, [], [], "paper"), "md")
        .splitlines()[2]
        .startswith(r"| method | 8/16, natural\_pct (%), published | 8/16, adversarial\_pct (%), published | 4/16,")
    )


@pytest.mark.parametrize("name", [f"progressive-admm/{name}" for name, one in paper("progressive-admm").tables.items() if one.layout])
def test_no_published_figure_is_lost_in_print(name: str) -> None:
    one = table(name)
    assert one.layout is not None
    text = wide(one, compare(one, [], [], "paper"))
    written = sum(value in row.cells for row in one.rows.values() for value in one.layout.value)
    assert sum(bool(cell) for _, texts in text.rows for cell in texts) == written


def test_latex_names_the_rows_by_the_layouts_key(tmp_path: Path) -> None:
    pytest.importorskip("great_tables")
    grid = made_up(tmp_path, table=LONG, claims=None).table("tab")
    text = export(grid, compare(grid, [], [], "desk"), "latex")
    assert r"\multicolumn{1}{c}{1x (\%)}" in text
    assert "ADMM &" in text
