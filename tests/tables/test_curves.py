"""Curves by hand, and as a claim reads them."""

from pathlib import Path

import pytest
from fabricated import CLAIMS, made_up, record

from espalier.record import Record
from espalier.tables.claims import judge
from espalier.tables.curves import NoCrossingError, at_accuracy
from espalier.tables.expressions import readings

pytestmark = pytest.mark.tiny


def test_the_figure_is_interpolated_in_its_logarithm() -> None:
    assert at_accuracy(98.0, [98.5, 97.5], [4.0, 16.0]) == pytest.approx(8.0)
    assert at_accuracy(98.0, [98.5, 98.0, 97.0], [4.0, 16.0, 64.0]) == pytest.approx(16.0)
    assert at_accuracy(98.0, [97.0, 98.4, 97.6], [4.0, 9.0, 16.0]) == pytest.approx(12.0), "the last point that meets the aim counts"


@pytest.mark.parametrize(
    ("accuracies", "values", "error", "message"),
    [
        ([97.0, 96.0], [1.0, 2.0], NoCrossingError, r"even the first row of the curve lies below 98\.00"),
        ([99.0, 98.5], [1.0, 2.0], NoCrossingError, r"even the last row of the curve reaches 98\.00"),
        ([99.0], [1.0], ValueError, r"a curve has two points or more"),
        ([99.0, 97.0], [0.0, 1.0], ValueError, r"figures above 0"),
    ],
    ids=["below", "above", "one-point", "zero"],
)
def test_what_is_no_curve_says_so(accuracies: list[float], values: list[float], error: type[ValueError], message: str) -> None:
    with pytest.raises(error, match=message):
        at_accuracy(98.0, accuracies, values)


CURVE = 'at_loss(0.5, "tab/dense", "rate", "tab/admm", "tab/deep_admm")'


def rows(*deep: float) -> list[Record]:
    figures = [("dense", 98.5, 1.0), ("admm", 98.5, 4.0)]
    records = [record(row, seed, metrics={"top1_pct": top1, "rate": rate}) for row, top1, rate in figures for seed in range(len(deep))]
    return records + [record("deep_admm", seed, metrics={"top1_pct": top1, "rate": 16.0}) for seed, top1 in enumerate(deep)]


@pytest.mark.parametrize(
    ("deep", "verdict", "reason"),
    [
        ((97.5, 97.5, 97.5), "holds", ""),
        ((97.5, 97.5, 98.0), "inconclusive", "rate: even the last row of the curve reaches 98.00 (seed 2)"),
    ],
    ids=["crosses", "never-falls"],
)
def test_a_claim_reads_a_curve_seed_by_seed(tmp_path: Path, deep: tuple[float, ...], verdict: str, reason: str) -> None:
    before = CLAIMS[CLAIMS.index("- {name: loss") :].rstrip()
    claims = CLAIMS.replace(before, f"- {{name: rate, expression: '{CURVE}', at_least: 7.9}}")
    (found,) = judge(made_up(tmp_path, claims=claims), rows(*deep), [])
    assert (found.verdict, found.reason) == (verdict, reason)
    if verdict == "holds":
        assert dict(found.figures[0].by_seed) == pytest.approx({0: 8.0, 1: 8.0, 2: 8.0})


def test_a_curve_reads_the_accuracy_of_all_rows_and_the_figure_of_its_own() -> None:
    assert {(row, name) for _, row, name in readings(CURVE)} == {
        ("tab/dense", "top1_pct"),
        ("tab/admm", "top1_pct"),
        ("tab/admm", "rate"),
        ("tab/deep_admm", "top1_pct"),
        ("tab/deep_admm", "rate"),
    }
    with pytest.raises(ValueError, match=r"needs points lost, then plain strings: the dense TABLE/ROW, a name, two rows or more"):
        readings('at_loss(0.5, "tab/dense", "rate", "tab/admm")')
