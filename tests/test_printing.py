"""What people read: brackets stay, and a time stands beside its setting."""

import io
from pathlib import Path

import pytest
from rich.console import Console

import espalier
from espalier import printing
from espalier.comparing import Comparison
from espalier.record import Store
from espalier.standing import Standing
from espalier.tables.comparison import Cell
from espalier.tables.export import Grid


def shown(*parts: object, width: int = 200) -> str:
    console = Console(file=io.StringIO(), width=width)
    for part in parts:
        console.print(part)
    return str(console.file.getvalue())  # type: ignore[attr-defined]


def test_brackets_of_a_message_are_no_markup(monkeypatch: pytest.MonkeyPatch) -> None:
    console = Console(file=io.StringIO(), width=200)
    monkeypatch.setattr(printing, "errors", console)
    with pytest.raises(SystemExit), printing.readable_errors():
        raise ValueError("pip install 'espalier[report]', or skip: [bn1] [/x]")
    assert "pip install 'espalier[report]', or skip: [bn1] [/x]" in console.file.getvalue()  # type: ignore[attr-defined]


def test_a_printed_form_keeps_its_marks() -> None:
    assert "99.2 [derived]" in shown(
        *printing.layout_grid("paper/table", Grid("row", [("top1_pct", "published")], [("a", ["99.2 [derived]"])]))
    )


def test_a_time_stands_beside_its_setting() -> None:
    facts = {"published": None, "provenance": None, "note": "", "shipped_mean": None, "shipped_std": None, "shipped_n": 0, "ours_std": None}
    cells = [
        Cell(row="dense", column="latency_ms_p50", ours_mean=mean, seeds=(0,), scale="smoke", device=device, comparable=False, **facts)  # type: ignore[arg-type]
        for mean, device in ((0.5, "a CPU, 1 thread"), (0.3, "a CPU, 2 threads"))
    ]
    text = shown(*printing.cells_grid("progressive-admm/lenet5", cells))
    assert "published" not in text  # nothing is
    assert "latency_ms_p50 (ms)" in text
    assert "1 thread" in text
    assert "2 threads" in text
    alone = shown(*printing.cells_grid("progressive-admm/lenet5", cells[:1]), width=40)
    assert "latency_ms_p50 (ms): yours 0.5; seeds 0" in " ".join(alone.split())
    assert "latency_ms_p50: measured on a CPU, 1 thread." in " ".join(alone.split())


@pytest.mark.parametrize("width", [40, 80, 200])
def test_a_comparison_loses_nothing_where_the_terminal_is_narrow(width: int) -> None:
    facts = {"labels": {}, "seeds": (0,), "num_seeds": 3, "top1_std": 0.25, "loss_pct": 1.25, "device": "a CPU", "note": ""}
    rows = [
        Standing(
            row=f"iterative_magnitude-block_punched-{rate}x",
            rank=rate,
            top1_pct=91.25,
            rate=rate + 0.125,
            macs_rate=rate + 0.375,
            stored_bytes=123_456.0,
            latency_ms_p50=0.4375,
            epochs=400.0,
            **facts,  # type: ignore[arg-type]
        )
        for rate in (2, 4)
    ]
    text = shown(*printing.standings_grid(Comparison("compare/mine", "smoke", "a note", rows)), width=width)
    assert "…" not in text
    for word in ("iterative_magnitude-block_punched-2x", "91.25 ± 0.25", "123,456", "0.4375", "4.125", "4.375", "400", "MAC rate"):
        assert word in " ".join(text.split()), word
    assert ("┃" in text) is (width == 200)


def test_brackets_are_no_markup_where_lines_are_stacked() -> None:
    grid = Grid("row", [("top1_pct [x]", "published")], [("a [/b]", ["99.2 [derived] " + 40 * "long "])])
    text = " ".join(shown(*printing.layout_grid("paper/table", grid), width=60).split())
    assert "a [/b]" in text
    assert "top1_pct [x] published 99.2 [derived] long" in text


def test_a_comparisons_cells_are_printed_from_the_store_they_come_from(tmp_path: Path) -> None:
    store = Store(tmp_path / "elsewhere")
    (store.root / "compare" / "mine").mkdir(parents=True)
    (store.root / "compare" / "mine" / "table.yaml").write_text(
        "paper: compare\ntable: mine\ntitle: one\nsource: {where: nowhere, provenance: proposal}\nexperiment: compare/any\n"
        "data: {smoke: digits}\nseeds: {smoke: [0]}\ncolumns: {top1_pct: {}}\nrows: {dense: {overrides: []}}\n"
    )
    cells = espalier.cells("compare/mine", scale="smoke", store=store)
    assert "top1_pct" in shown(*printing.cells_grid("compare/mine", cells, store=store))
