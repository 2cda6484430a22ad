import json
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent, indent

import pytest
from fabricated import CLAIMS, TABLE, accuracies, made_up, record

from espalier.record import DataSource, Record
from espalier.tables.claims import Verdict, judge
from espalier.tables.published import paper

pytestmark = pytest.mark.tiny

DENSE = accuracies("dense", 98.5, 98.6, 98.7)


def verdict_of(tmp_path: Path, own: list[Record], shipped: list[Record] | None = None, claims: str = CLAIMS) -> Verdict:
    (verdict,) = judge(made_up(tmp_path, claims=claims), own, shipped or [])
    return verdict


def claim(body: str) -> str:
    return "paper: made-up\nclaims:\n  - id: 1\n    statement: s\n" + indent(dedent(body).strip(), "    ")


@dataclass(frozen=True)
class Case:
    name: str
    deep: tuple[float, ...]
    verdict: str
    reason: str = ""
    dense: tuple[float, ...] = (98.5, 98.6, 98.7)
    scale: str = "desk"


CASES = [
    Case("clear-of-the-bound", (98.3, 98.4, 98.5), "holds"),
    Case("on-the-bound", (98.0, 98.1, 98.2), "holds"),
    Case("wholly-below", (97.5, 97.6, 97.65), "fails", "loss: 1.017 [0.968, 1.065], asked <= 0.5"),
    Case("interval-has-the-bound", (98.5, 98.0, 97.8), "inconclusive", "loss: the 90 % interval contains the bound"),
    Case("two-seeds", (98.4, 98.5), "inconclusive", "loss: 2 of 3 seeds"),
    Case("one-seed", (98.4,), "inconclusive", "loss: 1 of 3 seeds"),
    Case("smoke", (98.4, 98.5, 98.6), "inconclusive", "loss: smoke scale concludes nothing", scale="smoke"),
    Case(
        "gate-not-reached",
        (97.4, 97.4, 97.4),
        "inconclusive",
        "loss: baseline not reached: tab/dense has 97.40, the reference at desk is 97.5 (top1_pct)",
        dense=(97.4, 97.4, 97.4),
    ),
    Case("not-run", (), "not run", "no records of tab/deep_admm"),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_verdicts(tmp_path: Path, case: Case) -> None:
    own = accuracies("dense", *case.dense, scale=case.scale) + accuracies("deep_admm", *case.deep, scale=case.scale)
    verdict = verdict_of(tmp_path, own)
    assert (verdict.verdict, verdict.reason) == (case.verdict, case.reason)
    assert verdict.source == (None if case.verdict == "not run" else "own")
    assert verdict.seeds == tuple(range(len(case.deep)))
    json.dumps(verdict.as_json(), allow_nan=False)


def test_figures_say_what_the_verdict_rests_on(tmp_path: Path) -> None:
    verdict = verdict_of(tmp_path, DENSE + accuracies("deep_admm", 98.1, 98.3, 98.5))
    (figure,) = verdict.figures
    assert dict(figure.by_seed) == pytest.approx({0: 0.4, 1: 0.3, 2: 0.2})
    assert (figure.mean, figure.low, figure.high) == pytest.approx((0.3, 0.3 - 0.168586, 0.3 + 0.168586), abs=1e-5)
    assert (figure.bound, verdict.scale) == ("<= 0.5", "desk")


def test_seeds_are_paired_not_averaged_apart(tmp_path: Path) -> None:
    """The accuracies scatter by points, their difference by nothing."""
    verdict = verdict_of(tmp_path, accuracies("dense", 97.6, 98.6, 99.6) + accuracies("deep_admm", 97.2, 98.2, 99.2))
    assert verdict.verdict == "holds"


def test_only_common_seeds_count(tmp_path: Path) -> None:
    own = DENSE + [record("deep_admm", seed, metrics={"top1_pct": 98.5}) for seed in (1, 2, 3)]
    assert verdict_of(tmp_path, own).seeds == (1, 2)


def test_no_common_seed_concludes_nothing(tmp_path: Path) -> None:
    verdict = verdict_of(tmp_path, [*DENSE, record("deep_admm", 7)])
    assert (verdict.verdict, verdict.reason) == ("inconclusive", "loss: no seed is common to tab/dense, tab/deep_admm")


def test_own_records_come_before_shipped_ones(tmp_path: Path) -> None:
    own = DENSE + accuracies("deep_admm", 98.4, 98.5, 98.6)
    shipped = DENSE + accuracies("deep_admm", 90.0, 90.0, 90.0)
    assert (verdict_of(tmp_path / "a", own, shipped).verdict, verdict_of(tmp_path / "b", [], shipped).verdict) == ("holds", "fails")
    assert verdict_of(tmp_path / "c", [], shipped).source == "shipped"


def test_own_and_shipped_records_are_never_mixed(tmp_path: Path) -> None:
    verdict = verdict_of(tmp_path, DENSE, DENSE + accuracies("deep_admm", 98.4, 98.5, 98.6))
    assert (verdict.verdict, verdict.source) == ("holds", "shipped")
    assert verdict_of(tmp_path / "apart", DENSE, accuracies("deep_admm", 98.4, 98.5, 98.6)).verdict == "not run"


def test_the_highest_scale_with_all_rows_is_judged(tmp_path: Path) -> None:
    desk = DENSE + accuracies("deep_admm", 98.4, 98.5, 98.6)
    paper_dense = accuracies("dense", 99.2, 99.2, 99.2, scale="paper")
    full = paper_dense + accuracies("deep_admm", 98.0, 98.0, 98.0, scale="paper")
    smoke = accuracies("dense", 90.0, scale="smoke") + accuracies("deep_admm", 90.0, scale="smoke")
    assert verdict_of(tmp_path / "a", smoke + desk + paper_dense).scale == "desk"
    assert (verdict_of(tmp_path / "b", desk + full).scale, verdict_of(tmp_path / "c", desk + full).verdict) == ("paper", "fails")
    assert verdict_of(tmp_path / "d", smoke, desk).scale == "desk"


def test_different_data_are_never_set_against_each_other(tmp_path: Path) -> None:
    own = DENSE + accuracies("deep_admm", 98.4, 98.5, 98.6, data=DataSource(name="mnist", fingerprint="other"))
    verdict = verdict_of(tmp_path, own)
    assert (verdict.verdict, verdict.reason) == ("inconclusive", "loss: the rows saw different data: tab/dense, tab/deep_admm")


def test_variants_are_not_judged(tmp_path: Path) -> None:
    assert verdict_of(tmp_path, DENSE + accuracies("deep_admm", 98.4, 98.5, 98.6, variant=True)).verdict == "not run"


def test_a_missing_metric_is_named(tmp_path: Path) -> None:
    own = DENSE + [record("deep_admm", seed, metrics={}) for seed in range(3)]
    verdict = verdict_of(tmp_path, own)
    assert (verdict.verdict, verdict.reason) == ("inconclusive", "loss: the record of tab/deep_admm lacks top1_pct (seed 0)")


@pytest.mark.parametrize(("tolerance", "word"), [(0.0, "fails"), (0.1, "holds")])
def test_tolerance_is_granted_on_top_of_the_bound(tmp_path: Path, tolerance: float, word: str) -> None:
    body = f'tests: [{{name: t, expression: \'m("tab/admm", "top1_pct")\', at_least: 98, tolerance: {tolerance}}}]'
    verdict = verdict_of(tmp_path, DENSE + accuracies("admm", 97.95, 97.95, 97.95), claims=claim(body))
    assert verdict.verdict == word
    assert verdict.figures[0].bound == (">= 98 (tolerance 0.1)" if tolerance else ">= 98")


def test_a_gate_whose_baseline_was_not_run_concludes_nothing(tmp_path: Path) -> None:
    body = 'tests: [{name: t, expression: \'m("tab/admm", "top1_pct")\', at_least: 90}]'
    verdict = verdict_of(tmp_path, accuracies("admm", 98.0, 98.0, 98.0), claims=claim(body))
    assert verdict.reason == "t: baseline not run: tab/dense has no top1_pct at desk"
    assert verdict_of(tmp_path / "free", accuracies("admm", 98.0, 98.0, 98.0), claims=claim(body + "\ngated: false")).verdict == "holds"


def test_a_claim_that_our_runs_cannot_answer_is_not_run(tmp_path: Path) -> None:
    verdict = verdict_of(tmp_path, DENSE, claims=claim("tests: []\nuntested: needs ImageNet"))
    assert (verdict.verdict, verdict.reason, verdict.scale) == ("not run", "needs ImageNet", None)


TWO_TESTS = """
    tests:
      - {name: a, expression: 'm("tab/admm", "top1_pct")', at_least: 98}
      - {name: d, expression: 'm("tab/deep_admm", "top1_pct")', at_least: 98}
"""


@pytest.mark.parametrize(
    ("deep", "word"),
    [((98.0, 98.0, 98.0), "holds"), ((90.0, 90.0, 90.0), "fails"), ((90.0, 99.0, 99.0), "inconclusive"), ((), "inconclusive")],
)
def test_all_tests_of_a_claim_must_hold(tmp_path: Path, deep: tuple[float, ...], word: str) -> None:
    own = DENSE + accuracies("admm", 99.0, 99.0, 99.0) + accuracies("deep_admm", *deep)
    verdict = verdict_of(tmp_path, own, claims=claim(TWO_TESTS))
    assert verdict.verdict == word
    if not deep:
        assert verdict.reason == "d: no records of tab/deep_admm"


def test_a_failing_part_shows_even_when_another_was_not_run(tmp_path: Path) -> None:
    assert verdict_of(tmp_path, DENSE + accuracies("admm", 90.0, 90.0, 90.0), claims=claim(TWO_TESTS)).verdict == "fails"


def test_a_part_made_for_another_scale_keeps_the_claim_open(tmp_path: Path) -> None:
    body = TWO_TESTS.replace("at_least: 98}\n      - {name: d", "at_least: 98}\n      - {scales: [paper], name: d")
    own = DENSE + accuracies("admm", 99.0, 99.0, 99.0) + accuracies("deep_admm", 90.0, 90.0, 90.0)
    verdict = verdict_of(tmp_path, own, claims=claim(body))
    assert (verdict.verdict, verdict.reason) == ("inconclusive", "d: made for scale paper")


PARTLY_PAPER = """
    tests:
      - {name: a, expression: 'm("tab/dense", "top1_pct") - m("tab/admm", "top1_pct")', at_most: 0.1}
      - {name: rest, expression: 'm("tab/dense", "top1_pct") - m("tab/other", "top1_pct")', at_most: 0.1}
      - {name: d, expression: 'm("tab/dense", "top1_pct") - m("tab/deep_admm", "top1_pct")', at_most: 0.5, scales: [paper]}
"""
WITH_OTHER = TABLE.replace("quoted:", "other: {overrides: [recipe=one_shot]}\n      quoted:")
DESK = [one for row in ("admm", "deep_admm", "other") for one in accuracies(row, 98.5, 98.6, 98.7)]


@pytest.mark.parametrize(
    ("deep_at_paper", "word", "reason"),
    [
        ((), "inconclusive", "d: made for scale paper"),
        ((99.2,), "inconclusive", "d (at paper scale): 1 of 3 seeds"),
        ((99.2, 99.2, 99.2), "holds", ""),
        ((98.0, 98.0, 98.0), "fails", "d (at paper scale): 1.2 [1.2, 1.2], asked <= 0.5"),
    ],
    ids=["no-row", "one-seed", "holds", "fails"],
)
@pytest.mark.parametrize("shipped", [False, True], ids=["own", "shipped"])
def test_a_claim_partly_run_at_paper_scale_is_judged_at_desk_and_its_paper_part_at_paper(
    tmp_path: Path, deep_at_paper: tuple[float, ...], word: str, reason: str, shipped: bool
) -> None:
    num = max(1, len(deep_at_paper))
    at_paper = accuracies("dense", *[99.2] * num, scale="paper") + accuracies("admm", *[90.0] * num, scale="paper")
    at_paper += accuracies("deep_admm", *deep_at_paper, scale="paper")
    made = made_up(tmp_path, table=WITH_OTHER, claims=claim(PARTLY_PAPER))
    (verdict,) = judge(made, DENSE + DESK + ([] if shipped else at_paper), at_paper if shipped else [])
    assert (verdict.verdict, verdict.reason, verdict.scale, verdict.source) == (word, reason, "desk", "own")
    assert verdict.seeds == (0, 1, 2)
    assert [figure.verdict for figure in verdict.figures[:2]] == ["holds", "holds"]
    if deep_at_paper:
        part = verdict.figures[2]
        assert (part.scale, part.source, tuple(part.by_seed)) == ("paper", "shipped" if shipped else "own", tuple(range(num)))


def test_a_part_judged_at_its_own_scale_needs_its_gate_and_fairness_there(tmp_path: Path) -> None:
    paper_rows = accuracies("dense", 98.9, 98.9, 98.9, scale="paper") + accuracies("deep_admm", 98.9, 98.9, 98.9, scale="paper")
    made = made_up(tmp_path / "gate", table=WITH_OTHER, claims=claim(PARTLY_PAPER))
    (verdict,) = judge(made, DENSE + DESK + paper_rows, [])
    assert "d (at paper scale): baseline not reached: tab/dense has 98.90, the reference at paper is 99" in verdict.reason
    given = 'given: [{name: same, expression: \'m("tab/dense", "top1_pct") - m("tab/deep_admm", "top1_pct")\', at_most: 0.2}]'
    unfair = accuracies("dense", 99.2, 99.2, 99.2, scale="paper") + accuracies("deep_admm", 98.9, 98.9, 98.9, scale="paper")
    made = made_up(tmp_path / "given", table=WITH_OTHER, claims=claim(given + dedent(PARTLY_PAPER)))
    (verdict,) = judge(made, DENSE + DESK + unfair, [])
    assert verdict.reason.startswith("the comparison is not fair: same (mean 0.3")


def test_a_fairness_condition_that_reads_a_row_missing_there_leaves_the_part_open(tmp_path: Path) -> None:
    """It was left out where it read more rows than the part itself, and the part judged as if it were fair."""
    at_paper = accuracies("dense", 99.2, 99.2, 99.2, scale="paper") + accuracies("deep_admm", 99.2, 99.2, 99.2, scale="paper")
    given = 'given: [{name: same, expression: \'m("tab/admm", "top1_pct") - m("tab/deep_admm", "top1_pct")\', at_most: 100}]'
    made = made_up(tmp_path, table=WITH_OTHER, claims=claim(given + dedent(PARTLY_PAPER)))
    (verdict,) = judge(made, DENSE + DESK + at_paper, [])
    assert (verdict.verdict, verdict.reason) == (
        "inconclusive",
        "whether the comparison is fair is not known: same (no records of tab/admm)",
    )


def test_a_verdict_names_the_stale_runs_of_ones_own_that_it_rests_on(tmp_path: Path) -> None:
    admm = accuracies("deep_admm", 98.4, 98.4, 98.4)
    names = {record.name for record in [*DENSE, *admm]}
    (verdict,) = judge(made_up(tmp_path), [*DENSE, *admm], [], stale=names)
    assert set(verdict.stale) == names
    assert verdict.as_json()["stale"] == list(verdict.stale)
    (fresh,) = judge(made_up(tmp_path / "again"), [*DENSE, *admm], [], stale={"another/run"})
    assert fresh.stale == ()
    (shipped,) = judge(made_up(tmp_path / "shipped"), [], [*DENSE, *admm], stale=names)
    assert shipped.stale == ()


def test_a_smoke_run_never_hides_what_a_larger_scale_says(tmp_path: Path) -> None:
    smoke = [one for row in ("admm", "deep_admm") for one in accuracies(row, 90.0, scale="smoke")]
    verdict = verdict_of(tmp_path, smoke, DENSE + accuracies("admm", 90.0, 90.0, 90.0), claims=claim(TWO_TESTS))
    assert (verdict.scale, verdict.source, verdict.verdict) == ("desk", "shipped", "fails")


def test_of_scales_that_are_all_partly_run_the_one_that_answers_most_is_taken(tmp_path: Path) -> None:
    made = made_up(tmp_path, table=WITH_OTHER, claims=claim(PARTLY_PAPER.replace(", scales: [paper]", "")))
    paper_rows = accuracies("dense", 99.2, scale="paper") + accuracies("admm", 99.2, scale="paper")
    (verdict,) = judge(made, DENSE + accuracies("admm", 98.5, 98.6, 98.7) + accuracies("other", 90.0, 90.0, 90.0) + paper_rows, [])
    assert (verdict.scale, verdict.verdict) == ("desk", "fails")


@pytest.mark.parametrize(("epochs", "word"), [(10.0, "holds"), (11.0, "inconclusive")])
def test_an_unfair_comparison_concludes_nothing(tmp_path: Path, epochs: float, word: str) -> None:
    body = """
        given: [{name: equal epochs, expression: 'abs(m("tab/admm", "train/epochs") - m("tab/deep_admm", "train/epochs"))', at_most: 0}]
        tests: [{name: t, expression: 'm("tab/admm", "top1_pct") - m("tab/deep_admm", "top1_pct")', at_least: 0}]
    """
    own = list(DENSE)
    for seed in range(3):
        own.append(record("admm", seed, metrics={"top1_pct": 99.0, "train/epochs": 10.0}))
        own.append(record("deep_admm", seed, metrics={"top1_pct": 98.0, "train/epochs": epochs}))
    verdict = verdict_of(tmp_path, own, claims=claim(body))
    assert verdict.verdict == word
    assert verdict.reason == ("" if word == "holds" else "the comparison is not fair: equal epochs (mean 1, asked <= 0)")


def test_a_condition_without_records_is_unknown_not_unfair(tmp_path: Path) -> None:
    given = 'given: [{name: same, expression: \'m("tab/deep_admm", "top1_pct")\', at_least: 0}]'
    verdict = verdict_of(tmp_path, DENSE + accuracies("admm", 98.5, 98.6, 98.7), claims=claim(given + dedent(TWO_TESTS)))
    assert verdict.verdict == "inconclusive"
    assert verdict.reason == "whether the comparison is fair is not known: same (no records of tab/deep_admm)"


def test_a_verdict_names_three_reasons_and_counts_the_others(tmp_path: Path) -> None:
    body = TWO_TESTS + "".join(f'      - {{name: n{i}, expression: \'m("tab/deep_admm", "top1_pct")\', at_least: 0}}\n' for i in range(4))
    verdict = verdict_of(tmp_path, DENSE + accuracies("admm", 98.5, 98.6, 98.7), claims=claim(body))
    missing = "no records of tab/deep_admm"
    assert verdict.reason == f"d: {missing}; n0: {missing}; n1: {missing}; and 2 more"
    assert len(verdict.figures) == 6


def test_each_stands_for_one_test_a_row(tmp_path: Path) -> None:
    body = (
        "gated: false\ntests: [{name: outside, expression: 'm(row, \"weights_outside_set\")', at_most: 0, each: [tab/admm, tab/deep_admm]}]"
    )
    own = [
        record(row, seed, metrics={"weights_outside_set": float(row == "deep_admm")}) for row in ("admm", "deep_admm") for seed in range(3)
    ]
    verdict = verdict_of(tmp_path, own, claims=claim(body))
    assert verdict.reason == "outside: tab/deep_admm: 1 [1, 1], asked <= 0"
    assert [figure.verdict for figure in verdict.figures] == ["holds", "fails"]


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ('series_mean("tab/admm", "train/loss")', 2.0),
        ('series_mean("tab/admm", "train/loss", 2)', 1.5),
        ('first("tab/admm", "train/loss")', 3.0),
        ('last("tab/admm", "train/loss")', 1.0),
        ('max(first("tab/admm", "train/loss"), abs(-4))', 4.0),
    ],
)
def test_series_are_read_in_order_of_epochs(tmp_path: Path, expression: str, value: float) -> None:
    body = f"gated: false\ntests: [{{name: t, expression: '{expression}', at_least: 0}}]"
    own = [record("admm", seed, series={"train/loss": [(3.0, 1.0), (1.0, 3.0), (2.0, 2.0)]}) for seed in range(3)]
    assert verdict_of(tmp_path, own, claims=claim(body)).figures[0].mean == value


def test_a_missing_series_and_a_division_by_zero_are_named(tmp_path: Path) -> None:
    own = [record("admm", seed, metrics={"top1_pct": 0.0}) for seed in range(3)]
    body = "gated: false\ntests: [{name: t, expression: '%s', at_least: 0}]"
    missing = verdict_of(tmp_path / "a", own, claims=claim(body % 'last("tab/admm", "train/loss")'))
    assert missing.reason == "t: the record of tab/admm lacks the series train/loss (seed 0)"
    divided = verdict_of(tmp_path / "b", own, claims=claim(body % '1 / m("tab/admm", "top1_pct")'))
    assert "divides by zero (seed 0)" in divided.reason


def test_shipped_records_are_read_from_the_papers_folder(tmp_path: Path) -> None:
    made = made_up(tmp_path)
    for one in DENSE + accuracies("deep_admm", 98.4, 98.5, 98.6):
        path = made.folder / "results" / one.name / "record.json"
        path.parent.mkdir(parents=True)
        path.write_text(one.model_dump_json())
    (verdict,) = judge(made, [])
    assert (verdict.verdict, verdict.source) == ("holds", "shipped")


def test_progressive_admm_can_hold_in_full_at_desk_scale_but_for_what_it_leaves_to_paper_scale() -> None:
    """Every expression evaluates, and each claim can be met."""
    one = paper("progressive-admm")
    base = {"top1_pct": 98.0, "train/epochs": 10.0, "weights_nonzero": 6000.0, "weights_outside_set": 0.0, "retrain/train_loss_mean": 0.1}
    base |= {"admm/residual_max": 0.01, "hard/top1_pct": 90.0, "check/largest_rise": 0.0, "check/rounds": 4.0}
    special = {
        "dense": {"weights_nonzero": 430500.0},
        "magnitude-70x": {"top1_pct": 97.5},
        "magnitude-200x": {"top1_pct": 96.0},
        "projected-200x": {"top1_pct": 97.0},
        "oneshot-246x": {"top1_pct": 97.0, "retrain/train_loss_mean": 0.2},
        "admm-70x-rho1e-4": {"admm/residual_max": 0.5, "hard/top1_pct": 20.0},
    }
    own = [
        record(row, seed, paper=one.name, table=name, metrics=base | special.get(row, {}))
        for name, rows in one.rows.items()
        for row in rows
        for seed in range(3)
    ]
    verdicts = {verdict.id: verdict.verdict for verdict in judge(one, own, [])}
    assert verdicts == {id_: "inconclusive" if id_ == 5 else "holds" for id_ in range(1, 15)}
