"""What the report and the plots say."""

from pathlib import Path

import pytest

from espalier.tables.comparison import compare
from espalier.tables.plots import plot, points
from espalier.tables.published import table

MEGABYTE = 1_000_000


def test_the_page_is_small_and_holds_its_figures(report_page: Path) -> None:
    text = report_page.read_text(encoding="utf-8")
    assert len(text.encode()) < 3 * MEGABYTE
    assert "Progressive DNN Compression" in text
    assert "98.45" in text  # the mean of 98.4 and 98.5
    assert "n = 2" in text
    assert "secondary source" in text
    assert ">?</span>" in text  # an unknown figure stays unknown
    assert "not run" in text
    assert "http://" not in text.replace("http://www.w3.org", "").replace("http://purl.org", "").replace("http://creativecommons.org", "")
    assert "<script" not in text


def test_points_keep_published_and_own_apart(fabricated_records: list) -> None:
    lenet5 = table("progressive-admm/lenet5")
    lines = points(lenet5, compare(lenet5, fabricated_records, [], "desk"))
    found = {(line["row"], line["source"]) for line in lines}
    assert {("admm-70x", "published"), ("admm-70x", "yours"), ("dense", "yours")} <= found
    assert ("progressive-246x", "published") not in found  # its accuracy is not known


@pytest.mark.parametrize(
    ("ending", "start"), [("pdf", b"%PDF"), ("svg", b"<?xml"), ("png", b"\x89PNG"), ("csv", b"row,source,rate,top1_pct")]
)
def test_plots_are_written_in_the_format_of_their_ending(tmp_path: Path, fabricated_records: list, ending: str, start: bytes) -> None:
    lenet5 = table("progressive-admm/lenet5")
    path = plot(lenet5, compare(lenet5, fabricated_records, [], "desk"), tmp_path / f"plot.{ending}")
    assert path.read_bytes().startswith(start)


def test_an_unknown_ending_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"plot\.gif.*\.pdf, \.svg"):
        plot(table("progressive-admm/lenet5"), [], tmp_path / "plot.gif")
