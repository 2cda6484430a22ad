"""What the report and the plots say."""

import math
import re
from pathlib import Path

from fabricated import record

from espalier.record import Record
from espalier.tables.published import Paper
from espalier.tables.report import write_report
from espalier.tables.series import MAX_CURVES, _broken, series_svgs

MEGABYTE = 1_000_000


def test_the_page_is_small_and_holds_its_figures(report_page: Path) -> None:
    text = report_page.read_text(encoding="utf-8")
    assert len(text.encode()) < 3 * MEGABYTE
    assert "Progressive DNN Compression" in text
    assert "98.45 ± 0.07 <small>yours, n = 2</small>" in text  # the mean of 98.4 and 98.5
    assert "99.2 <small>published</small>" in text
    assert 'class="badge">secondary source</span>' in text
    assert re.search(r"<div>\? (<small>published</small> )?<span class=\"badge\">abstract</span>", text)  # an unknown figure stays unknown
    assert "scale: desk" in text
    assert "14 ○ not run" in text
    assert "Not run at this scale: magnitude-70x." in text
    assert 'rows behind the claims <span class="badge">not run</span>' in text
    assert "Not to be set against the published figures (other scale or hardware): top1_pct" in text


def test_the_page_needs_nothing_from_elsewhere(report_page: Path) -> None:
    text = report_page.read_text(encoding="utf-8")
    assert "http" not in text.replace("http://www.w3.org", "")
    assert re.search(r"<(script|link|img|iframe)|@import|src=", text) is None
    assert set(re.findall(r"url\((.)", text)) <= {"#"}


def test_ids_are_unique_and_every_inner_link_has_its_goal(report_page: Path) -> None:
    text = report_page.read_text(encoding="utf-8")
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:xlink:)?href="#([^"]+)"', text)) <= set(ids)


def test_a_table_with_a_layout_stands_in_its_papers_form(report_page: Path) -> None:
    text = report_page.read_text(encoding="utf-8")
    assert '<th scope="col">pruned, rate</th><th scope="col">progressive ADMM' in text
    assert '<th scope="row">96.7 %, 30x</th>' in text


def test_stale_runs_and_variants_are_marked(tmp_path: Path, unshipped: Paper, fabricated_records: list[Record]) -> None:
    odd = record("dense", 5, paper="progressive-admm", table="lenet5", identity="odd555", variant=True)
    dense = next(one.name for one in fabricated_records if one.row == "dense")
    page = write_report([unshipped], [*fabricated_records, odd], [], tmp_path, stale={dense}).read_text(encoding="utf-8")
    assert '<th scope="row">dense <span class="badge unsure">stale: code changed since</span></th>' in page
    assert page.count("stale: code") == 1
    assert f"stand in no cell: {odd.name}." in page


def test_a_curve_breaks_where_a_step_records_nothing() -> None:
    xs, ys = _broken([(1.0, 5.0), (2.0, 4.0), (3.0, 3.0), (9.0, 1.0)])
    assert xs == [1.0, 2.0, 3.0, 6.0, 9.0]
    assert math.isnan(ys[3])
    assert [y for y in ys if not math.isnan(y)] == [5.0, 4.0, 3.0, 1.0]


def test_texts_of_a_chart_are_not_rounded_with_its_coordinates() -> None:
    (svg,) = series_svgs([record("dense", series={"train/loss": [(1.0, 1.0), (2.0, 0.0009)]})], "train/loss", "training loss (nat)")
    assert {">1<", ">0.1<", ">0.01<", ">0.001<"} <= set(re.findall(r">[^<\n]+<", svg))
    assert re.search(r'd="[^"]*\d\.\d{3}', svg) is None


def test_many_curves_are_spread_over_charts_and_every_name_is_told() -> None:
    records = [
        record(f"row-{i}-of-a-very-long-name-indeed", series={"val/top1_pct": [(1.0, 90.0 + i), (2.0, 91.0 + i)]}) for i in range(18)
    ]
    charts = series_svgs(records, "val/top1_pct", "validation top-1 (%)")
    assert len(charts) == math.ceil(18 / MAX_CURVES)
    names = [name for svg in charts for name in re.findall(r">(row-\d+-[^<]*)<", svg)]
    assert len(names) == 18
    assert len(set(names)) == 18
    assert all("…" in name for name in names)
    assert series_svgs(records, "train/loss", "loss") == []
