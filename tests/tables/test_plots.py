"""What the plots say."""

import itertools
from pathlib import Path

import pytest

from espalier.tables.comparison import compare
from espalier.tables.plots import SPACING, _names, plot, points
from espalier.tables.published import table


def test_points_keep_published_and_own_apart(fabricated_records: list) -> None:
    lenet5 = table("progressive-admm/lenet5")
    lines = points(lenet5, compare(lenet5, fabricated_records, [], "desk"))
    found = {(line["row"], line["source"]) for line in lines}
    assert {("admm-70x", "published"), ("admm-70x", "yours"), ("dense", "yours")} <= found
    assert ("progressive-246x", "published") not in found  # its accuracy is not known


def test_names_of_points_never_overlap_and_stay_in_the_axes() -> None:
    lines = [{"row": f"r{i}", "source": "yours", "rate": 70.0 + i, "top1_pct": 99.0 - i / 1000} for i in range(9)]
    heights = sorted(height for _, _, height in _names(lines, 98.0, 99.0))
    assert len(heights) == 9
    assert all(after - before >= SPACING - 1e-9 for before, after in itertools.pairwise(heights))
    assert heights[-1] <= 99.0


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
