import statistics
from pathlib import Path

import pytest
from fabricated import TABLE, accuracies, made_up, measurement, record

from espalier.record import DataSource
from espalier.tables.comparison import JSON_KEYS, Cell, compare
from espalier.tables.published import table
from espalier.tables.schema import Table

pytestmark = pytest.mark.tiny


@pytest.fixture
def tab(tmp_path: Path) -> Table:
    return made_up(tmp_path).table("tab")


def only(cells: list[Cell], row: str, column: str) -> Cell:
    (cell,) = [cell for cell in cells if (cell.row, cell.column) == (row, column)]
    return cell


def test_a_cell_has_published_shipped_and_ours(tab: Table) -> None:
    own = accuracies("admm", 98.0, 98.4, 98.5)
    shipped = accuracies("admm", 97.0, 97.5)
    cell = only(compare(tab, own, shipped, "desk"), "admm", "top1_pct")
    assert cell.as_json() == {
        "row": "admm",
        "column": "top1_pct",
        "published": 99.1,
        "provenance": "derived",
        "shipped_mean": pytest.approx(97.25),
        "shipped_std": pytest.approx(statistics.stdev([97.0, 97.5])),
        "ours_mean": pytest.approx(98.3),
        "ours_std": pytest.approx(statistics.stdev([98.0, 98.4, 98.5])),
        "seeds": [0, 1, 2],
        "scale": "desk",
        "device": "cpu A",
    }
    assert tuple(cell.as_json()) == JSON_KEYS
    assert (cell.shipped_n, cell.note) == (2, "x_y")


def test_one_seed_has_no_spread_and_no_seed_no_mean(tab: Table) -> None:
    cells = compare(tab, accuracies("admm", 98.0), [], "desk")
    assert (only(cells, "admm", "top1_pct").ours_mean, only(cells, "admm", "top1_pct").ours_std) == (98.0, None)
    assert (only(cells, "dense", "top1_pct").ours_mean, only(cells, "dense", "top1_pct").seeds) == (None, ())


@pytest.mark.parametrize(
    "stranger",
    [
        record("admm", 9, variant=True),
        record("admm", 9, scale="paper"),
        record("admm", 9, table="tob"),
        record("admm", 9, paper="other"),
        record("dense", 9),
    ],
    ids=["variant", "scale", "table", "paper", "row"],
)
def test_only_the_rows_own_records_count(tab: Table, stranger: object) -> None:
    cell = only(compare(tab, [*accuracies("admm", 98.0), stranger], [], "desk"), "admm", "top1_pct")  # type: ignore[list-item]
    assert (cell.ours_mean, cell.seeds) == (98.0, (0,))


def test_data_are_never_pooled_and_the_note_says_what_was_left_out(tab: Table) -> None:
    old = record("admm", 0, data=DataSource(name="mnist", fingerprint="older"), metrics={"top1_pct": 1.0}, started="2025-01-01")
    cell = only(compare(tab, [*accuracies("admm", 98.0, 99.0), old], [], "desk"), "admm", "top1_pct")
    assert (cell.ours_mean, cell.note) == (98.5, "x_y; 1 run left out: other data than mnist desk")


def test_of_two_runs_of_one_seed_the_newer_counts(tab: Table) -> None:
    old = record("admm", 0, metrics={"top1_pct": 1.0}, started="2025-01-01")
    cell = only(compare(tab, [*accuracies("admm", 98.0), old], [], "desk"), "admm", "top1_pct")
    assert (cell.ours_mean, cell.note) == (98.0, "x_y; 1 run left out: a newer one has the same seed")


def test_loss_is_paired_with_dense_by_seed(tab: Table) -> None:
    own = accuracies("dense", 98.0, 99.0) + accuracies("admm", 97.5, 98.0, 90.0)
    cell = only(compare(tab, own, [], "desk"), "admm", "loss_pct")
    assert (cell.ours_mean, cell.seeds) == (pytest.approx(0.75), (0, 1))  # seed 2 has no dense run


def test_loss_against_a_dense_network_of_other_data_is_not_computed(tab: Table) -> None:
    own = accuracies("dense", 98.0, data=DataSource(name="mnist", fingerprint="other")) + accuracies("admm", 97.5)
    assert only(compare(tab, own, [], "desk"), "admm", "loss_pct").ours_mean is None


def test_a_missing_metric_is_no_figure(tab: Table) -> None:
    own = [record("admm", 0, metrics={"top1_pct": None}), record("admm", 1, metrics={})]
    assert only(compare(tab, own, [], "desk"), "admm", "top1_pct").ours_mean is None


def test_published_figures_are_printed_ones_or_computed_from_them(tab: Table) -> None:
    cells = compare(tab, [], [], "paper")
    assert (only(cells, "admm", "rate").published, only(cells, "admm", "rate").note) == (72.0, "71.16 computed from the published cells")
    assert only(cells, "admm", "loss_pct").published == pytest.approx(0.1)
    assert only(cells, "admm", "loss_pct").provenance == "derived"
    assert (only(cells, "deep_admm", "top1_pct").published, only(cells, "deep_admm", "top1_pct").provenance) == ("?", None)
    assert only(cells, "deep_admm", "loss_pct").published is None
    assert only(cells, "quoted", "top1_pct").provenance == "full text"


@pytest.mark.parametrize(
    ("scale", "column", "comparable"),
    [
        ("desk", "top1_pct", False),
        ("desk", "loss_pct", True),
        ("smoke", "loss_pct", False),
        ("smoke", "rate", True),
        ("desk", "rate", True),
        ("paper", "top1_pct", True),
        ("paper", "latency_ms_p50", False),
    ],
)
def test_absolute_accuracy_of_small_scales_and_times_are_not_set_against_the_paper(
    tab: Table, scale: str, column: str, comparable: bool
) -> None:
    assert only(compare(tab, [], [], scale), "admm", column).comparable is comparable


def test_times_come_from_measurements_of_exactly_these_trained_weights(tab: Table) -> None:
    times = [
        measurement("admm-desk-0", 1.0),
        measurement("admm-desk-1", 3.0),
        measurement("admm-desk-0", 50.0, started="2025-01-01"),
        measurement("admm-desk-0", 99.0, weights="random"),
        measurement("else", 99.0),
    ]
    own = [record("admm", seed, metrics={"latency_ms_p50": 77.0}) for seed in (0, 1)]
    cell = only(compare(tab, own, [], "desk", measurements=times), "admm", "latency_ms_p50")
    assert (cell.ours_mean, cell.seeds) == (2.0, (0, 1))
    assert cell.device == "cpu A, 2 threads, batch 1, fp32, pytorch-eager, cpu"


@pytest.mark.parametrize(
    "change", [{"device": "cpu B"}, {"num_threads": 1}, {"engine": "onnx"}, {"batch_size": 8}, {"precision": "bf16"}, {"kind": "modelled"}]
)
def test_times_of_different_settings_have_cells_of_their_own(tab: Table, change: dict[str, object]) -> None:
    own, shipped = [record("admm")], [record("admm", checkpoint="theirs")]
    times = [measurement("admm-desk-0", 1.0), measurement("admm-desk-0", 5.0, **change)]
    cells = compare(tab, own, shipped, "desk", measurements=times, shipped_measurements=[measurement("theirs", 2.0)])
    found = [(cell.ours_mean, cell.shipped_mean) for cell in cells if (cell.row, cell.column) == ("admm", "latency_ms_p50")]
    assert found == [(1.0, 2.0), (5.0, None)]


def test_a_baseline_in_another_table_serves_published_and_run_figures() -> None:
    claims_table = table("progressive-admm/lenet5_claims")
    assert claims_table.dense_row == ("lenet5", "dense")
    here = {"paper": "progressive-admm", "table": "lenet5_claims"}
    own = accuracies("dense", 98.5, paper="progressive-admm", table="lenet5") + accuracies("progressive-167x", 98.25, **here)
    cell = only(compare(claims_table, own, [], "desk"), "progressive-167x", "loss_pct")
    assert (cell.published, cell.ours_mean) == (pytest.approx(0.2), pytest.approx(0.25))


def test_a_division_by_zero_is_no_figure(tmp_path: Path) -> None:
    tab = made_up(tmp_path, table=TABLE.replace("6050", "0")).table("tab")
    own = [record("dense", metrics={"weights_nonzero": 10.0}), record("admm", metrics={"weights_nonzero": 0.0})]
    assert only(compare(tab, own, [], "desk"), "admm", "rate").ours_mean is None


def test_seeds_of_stale_runs_are_named_where_they_are_ones_own(tab: Table) -> None:
    own = accuracies("admm", 98.0, 98.4) + accuracies("dense", 99.0)
    cells = compare(tab, own, accuracies("admm", 97.0), "desk", stale={own[1].name})
    assert only(cells, "admm", "top1_pct").stale == (1,)
    assert {cell.row for cell in cells if cell.stale} == {"admm"}


def test_an_unknown_scale_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no scale 'dsk' of made-up/tab; did you mean 'desk'\?"):
        compare(made_up(tmp_path).table("tab"), [], [], "dsk")


def test_what_a_check_step_measured_stands_under_the_device_of_its_record(tab: Table) -> None:
    own = [record("admm", seed, metrics={"top1_pct": 98.0, "latency_ms_p50": 2.0 + seed}, device=f"cpu {seed // 2}") for seed in range(3)]
    cells = [cell for cell in compare(tab, own, [], "desk") if (cell.row, cell.column) == ("admm", "latency_ms_p50")]
    assert [(cell.device, cell.ours_mean, cell.comparable) for cell in cells] == [("cpu 0", 2.5, False), ("cpu 1", 4.0, False)]
