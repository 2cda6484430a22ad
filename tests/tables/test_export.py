import builtins
import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from fabricated import accuracies, made_up, measurement

from espalier.tables.comparison import JSON_KEYS, Cell, compare
from espalier.tables.export import export
from espalier.tables.schema import Table

pytestmark = pytest.mark.tiny


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
    assert r"| dense | 99.2 | 98.00 (n=1)\* |" in text
    assert "rerun=stale" in text
    assert "rerun=stale" not in export(table, compare(table, own, [], "desk"), "md")


def test_markdown_escapes_what_would_break_it(compared: tuple[Table, list[Cell]]) -> None:
    text = export(*compared, "md")
    lines = text.splitlines()
    assert lines[0] == r"**50 % & more\_or\_less #1** (made-up/tab, scale desk)"
    assert lines[2].startswith(
        r"| row | top1\_pct (%), published | top1\_pct (%), shipped | top1\_pct (%), yours | loss\_pct (points), published |"
    )
    assert lines[4].startswith("| dense | 99.2 | 98.25 (n=1) | 98.25 ± 0.35 (n=2) |")
    assert lines[6].startswith(r"| deep\_admm | ? |  | 97.25 ± 0.35 (n=2) |  |")
    assert r"0.125 (n=1) (cpu\_A & 2\|3, 2 threads, batch 1, fp32, pytorch-eager, cpu)" in lines[6]
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
    assert r"cpu\_A \& 2|3" in text


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
