"""What people read: brackets stay, and a time stands beside its setting."""

import io

import pytest
from rich.console import Console

from espalier import printing
from espalier.tables.comparison import Cell
from espalier.tables.export import Grid


def shown(*parts: object) -> str:
    console = Console(file=io.StringIO(), width=200)
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
