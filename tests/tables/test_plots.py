"""A chart's points, its front and its caption; and files that show the same wherever they are opened."""

import csv
import io
import itertools
import re
from pathlib import Path
from textwrap import dedent
from xml.etree import ElementTree

import pytest
from fabricated import TABLE, accuracies, made_up, measurement, record

from espalier.tables.comparison import Cell, compare
from espalier.tables.labelling import HEIGHT, axis_label, placed
from espalier.tables.plots import caption, drawn, plot
from espalier.tables.points import front, points
from espalier.tables.schema import Table

CONTEST = """
    paper: made-up
    table: tab
    title: ADMM against MEST
    source: {where: this machine, provenance: derived}
    data: {desk: mnist_10k}
    seeds: {desk: [0, 1]}
    contestants: [method]
    columns:
      top1_pct: {}
      loss_pct: {unit: points, better: lower, kind: accuracy, computed: dense.top1_pct - top1_pct}
      rate: {}
      stored_bytes: {}
      latency_ms_p50: {}
      method: {kind: text}
    rows:
      dense: {overrides: []}
      admm-4x: {overrides: [], labels: {method: ADMM, rate: 4x}}
      admm-8x: {overrides: [], labels: {method: ADMM, rate: 8x}}
      mest-4x: {overrides: [], labels: {method: MEST, rate: 4x}}
      mest-8x: {overrides: [], labels: {method: MEST, rate: 8x}}
"""
FIGURES = {"dense": (98.0, 1.0, 4000), "admm-4x": (97.5, 4.0, 1200), "admm-8x": (95.0, 8.1, 700)}
FIGURES |= {"mest-4x": (97.0, 4.0, 1100), "mest-8x": (96.0, 8.0, 600)}


@pytest.fixture
def contest(tmp_path: Path) -> tuple[Table, list[Cell]]:
    """Return a comparison of two methods at two rates, two seeds each; two settings of time, one stale run."""
    table = made_up(tmp_path, table=CONTEST, claims=None).table("tab")
    own = [
        record(row, seed, metrics={"top1_pct": top1 + seed / 10, "rate": rate, "stored_bytes": size})
        for row, (top1, rate, size) in FIGURES.items()
        for seed in (0, 1)
    ]
    times = [measurement(f"{row}-desk-0", 1.0 / rate) for row, (_, rate, _) in FIGURES.items()]
    times += [measurement("dense-desk-0", 0.01, device="another")]
    return table, compare(table, own, [], "desk", measurements=times, stale={own[-1].name})


def test_the_front_is_what_no_point_beats(contest: tuple[Table, list[Cell]]) -> None:
    table, cells = contest

    def members(x: str, y: str = "top1_pct") -> list[str]:
        found = points(table, cells, x, y)
        every = {line["row"] for line in found if line["front"]}
        assert every == {line["row"] for line in front(table, found, x, y)}
        return [line["row"] for line in front(table, found, x, y)]

    assert members("rate") == ["dense", "admm-4x", "mest-8x", "admm-8x"]
    assert members("stored_bytes") == ["mest-8x", "mest-4x", "admm-4x", "dense"]
    assert members("rate", "loss_pct") == members("rate")


def test_no_point_beats_another_by_the_noise_of_one_computation(tmp_path: Path) -> None:
    table = made_up(tmp_path, table=CONTEST, claims=None).table("tab")
    taken = {"dense": 1.2, "admm-4x": 1.0, "admm-8x": 0.9, "mest-4x": 1.1, "mest-8x": 0.4}
    own = [
        record(row, metrics={"top1_pct": top1, "macs": 5e6 if row == "mest-8x" else 1e7, "parameters": 1e4})
        for row, (top1, _, _) in FIGURES.items()
    ]
    times = [measurement(f"{row}-desk-0", milliseconds) for row, milliseconds in taken.items()]
    cells = compare(table, own, [], "desk", measurements=times)
    found = points(table, cells, "latency_ms_p50")
    assert [line["row"] for line in found if line["front"]] == ["dense", "mest-8x"]  # the one that was cut is faster, the rest is noise
    assert {line["row"]: line["latency_ms_p50"] for line in found} == taken
    told = caption(table, cells, found, "latency_ms_p50", "top1_pct")
    assert "4 rows are timings of one computation" in told
    assert "timings of one computation" not in caption(table, cells, points(table, cells), "rate", "top1_pct")


def test_times_of_one_setting_are_drawn_and_the_others_said(contest: tuple[Table, list[Cell]]) -> None:
    table, cells = contest
    found = points(table, cells, "latency_ms_p50")
    assert {line["setting"] for line in found} == {"cpu A, 2 threads, batch 1, fp32, pytorch-eager, cpu"}
    assert {line["row"]: line["latency_ms_p50"] for line in found}["dense"] == 1.0
    told = caption(table, cells, found, "latency_ms_p50", "top1_pct")
    assert "measured on cpu A, 2 threads, batch 1, fp32, pytorch-eager, cpu (left out, in other settings: 1)" in told


def test_a_caption_says_seeds_scale_front_and_what_is_stale(contest: tuple[Table, list[Cell]]) -> None:
    table, cells = contest
    told = caption(table, cells, points(table, cells), "rate", "top1_pct")
    assert told == (
        "made-up/tab, scale desk; mean ± standard deviation over n = 2 seeds; * made by code that has changed since; "
        "dashed: Pareto front of yours (dense, admm-4x, mest-8x, admm-8x)."
    )


def test_published_points_are_told_apart_and_not_compared(tmp_path: Path) -> None:
    table = made_up(tmp_path).table("tab")
    cells = compare(table, accuracies("dense", 98.0), [], "desk")
    found = points(table, cells, "weights_nonzero")
    assert {(line["row"], line["source"], line["n"]) for line in found} == {("dense", "published", 0), ("admm", "published", 0)}
    assert "not to be set against the others" in caption(table, cells, found, "weights_nonzero", "top1_pct")


def test_a_csv_has_each_point_with_its_records(contest: tuple[Table, list[Cell]], tmp_path: Path) -> None:
    lines = list(csv.DictReader(io.StringIO(plot(*contest, tmp_path / "a.csv", x="stored_bytes").read_text())))
    assert [line["row"] for line in lines] == list(FIGURES)
    assert (lines[1]["contestant"], lines[1]["stored_bytes"], lines[1]["n"], lines[1]["front"]) == ("ADMM", "1200.0", "2", "True")
    assert lines[1]["records"].split() == [f"made-up/tab/admm-4x/desk/seed{seed}-admm-4" for seed in (0, 1)]


@pytest.mark.parametrize("width", [3.33, 7.0])
def test_a_pdf_embeds_its_font_and_is_as_wide_as_asked(contest: tuple[Table, list[Cell]], tmp_path: Path, width: float) -> None:
    content = plot(*contest, tmp_path / "a.pdf", width_in=width).read_bytes()
    assert content.startswith(b"%PDF")
    assert b"/FontFile2" in content  # TrueType, whole letters and all
    assert b"/Type3" not in content
    assert b"/Subtype /Image" not in content
    box = re.search(rb"/MediaBox \[ ?0 0 ([\d.]+) ([\d.]+) ?\]", content)
    assert box is not None
    assert float(box[1]) == pytest.approx(72 * width, abs=0.1)
    assert content == plot(*contest, tmp_path / "b.pdf", width_in=width).read_bytes()


def test_an_svg_needs_no_font_and_holds_no_bitmap(contest: tuple[Table, list[Cell]], tmp_path: Path) -> None:
    root = ElementTree.parse(plot(*contest, tmp_path / "a.svg")).getroot()
    tags = {element.tag.rpartition("}")[2] for element in root.iter()}
    assert "path" in tags
    assert not tags & {"text", "image", "font-face"}
    assert root.attrib["width"] == "239.76pt"


def test_a_png_is_three_hundred_dots_an_inch(contest: tuple[Table, list[Cell]], tmp_path: Path) -> None:
    content = plot(*contest, tmp_path / "deep" / "a.png", width_in=2.0).read_bytes()
    assert content.startswith(b"\x89PNG")
    assert int.from_bytes(content[16:20], "big") == 600


def test_names_of_points_never_overlap_and_stay_in_the_axes() -> None:
    points_ = [(0.05 + i / 30, 0.99 - i / 1000) for i in range(9)] + [(0.9, 0.5), (0.97, 0.5)]
    found = list(placed([(f"a_long_name_of_row-{i}", point) for i, point in enumerate(points_)], points_, width_pt=200.0))
    assert len(found) == len(points_)
    for one, other in itertools.combinations(found, 2):
        apart = one.left >= other.left + other.width or other.left >= one.left + one.width
        assert apart or abs(one.middle - other.middle) >= HEIGHT - 1e-9
    assert all(0 <= one.left <= one.left + one.width <= 1 + 1e-9 for one in found)
    assert all(HEIGHT / 2 <= one.middle <= 1 - HEIGHT / 2 for one in found)
    assert not any(one.hides(point) for one in found for point in points_)


@pytest.mark.parametrize("width", [2.0, 3.33, 7.0])
def test_no_text_of_a_drawn_chart_overlaps_another_or_is_cut(contest: tuple[Table, list[Cell]], width: float) -> None:
    table, cells = contest
    figure = drawn(table, points(table, cells), "rate", "top1_pct", width_in=width)
    figure.draw_without_rendering()
    (axes,), (legend,) = figure.axes, figure.legends
    texts = [*axes.texts, axes.xaxis.label, axes.yaxis.label, *legend.get_texts()]
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts if text.get_text() != "*"]
    assert {"admm-4x", "mest-8x", "ADMM", "MEST"} <= {name for name, _ in boxes}
    for (name, box), (other, its) in itertools.combinations(boxes, 2):
        assert not (box.shrunk(0.9, 0.7).overlaps(its.shrunk(0.9, 0.7))), (name, other)
    assert all(box.x0 >= 0 and box.x1 <= figure.bbox.width for _, box in boxes)


def test_axes_are_called_by_labels(contest: tuple[Table, list[Cell]]) -> None:
    table, _ = contest
    called = {name: axis_label(name, column) for name, column in table.columns.items() if column.kind != "text"}
    assert called == {
        "top1_pct": "top-1 accuracy (%)",
        "loss_pct": "top-1 lost (points)",
        "rate": "rate: all weights / kept weights",
        "stored_bytes": "size of the packed checkpoint (B)",
        "latency_ms_p50": "latency, median (ms)",
    }


def test_a_legend_of_many_contestants_tells_methods_by_colour_and_structures_by_mark(tmp_path: Path) -> None:
    pairs = list(itertools.product(("ADMM", "MEST", "RigL"), ("filter", "block_punched", "unstructured")))
    rows = "".join(f"  r{i}: {{overrides: [], labels: {{method: {a}, constraint: {b}, rate: 4x}}}}\n" for i, (a, b) in enumerate(pairs))
    text = dedent(CONTEST).partition("  admm-4x:")[0].replace("contestants: [method]", "contestants: [method, constraint]") + rows
    table = made_up(tmp_path, table=text, claims=None).table("tab")
    metrics = {"top1_pct": 97.0, "rate": 4.0}
    cells = compare(table, [record(row, metrics=metrics) for row in table.rows], [], "desk")
    (legend,) = drawn(table, points(table, cells), "rate", "top1_pct", width_in=3.33).legends
    labels = [one.get_text() for one in legend.get_texts()]
    assert labels == ["ADMM", "MEST", "RigL", "dense", "filter", "block_punched", "unstructured"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"to": "a.gif"}, r"a\.gif.*\.pdf, \.svg"),
        ({"x": "latencyms_p50"}, r"--x latencyms_p50: made-up/tab has no column .*did you mean 'latency_ms_p50'\?"),
        ({"y": "method"}, "--y method: made-up/tab has no column of figures"),
        ({"width_in": 85.0}, "--width 85 is in inches, 1.5 to 20"),
        ({"y": "loss_pct", "of": "nothing"}, "has no row with both rate and loss_pct at scale=desk; run some rows first"),
    ],
    ids=["ending", "x", "y", "width", "empty"],
)
def test_bad_words_name_the_way_out(contest: tuple[Table, list[Cell]], tmp_path: Path, words: dict, message: str) -> None:
    words = dict(words)
    table, cells = contest
    cells = compare(table, [], [], "desk") if words.pop("of", None) else cells
    with pytest.raises(ValueError, match=message):
        plot(table, cells, tmp_path / words.pop("to", "a.pdf"), **words)


def test_a_paper_without_a_rate_can_be_drawn_against_another_column(tmp_path: Path) -> None:
    text = dedent(TABLE).replace("  rate: {computed: dense.weights_nonzero / weights_nonzero}\n", "").replace(", rate: 72", "")
    table = made_up(tmp_path, table=text, claims=None).table("tab")
    cells = compare(table, accuracies("dense", 98.0), [], "desk")
    assert points(table, cells) == []
    assert plot(table, cells, tmp_path / "a.svg", x="weights_nonzero").exists()
