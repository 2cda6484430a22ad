import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from fabricated import CLAIMS, PAPER, TABLE, made_up, write_paper

from espalier import metrics
from espalier.tables.published import COMPARISONS, Paper, experiment_roots, paper, papers, rate_file, table

pytestmark = pytest.mark.tiny


AT = {"": "overrides: [recipe=train]", "dense:": "dense: {cells"}  # where the error is, if not where the text was changed


def line_of(text: str, part: str) -> int:
    return text[: text.index(part)].count("\n") + 1


@pytest.mark.parametrize(
    ("wrong", "right", "message"),
    [
        ("overrides: [recipe=train]", "overides: [recipe=train]", "rows.dense.overides: unknown key 'overides'; did you mean 'overrides'?"),
        ("overrides: [recipe=train]", "overrides: recipe=train", "rows.dense.overrides: Input should be a valid list, not 'recipe=train'"),
        ("top1_pct: 98}", "top1_pct: [98]}", "rows.quoted.cells.top1_pct: a cell is a number, ? or {value, provenance, note}, not [98]"),
        ("top1_pct: 98}", "top1_pct: yes}", "a cell is a number, ? or {value, provenance, note}, not True"),
        ("top1_pct: 98}", "top1_pct: lossless}", "'lossless' is no number; write ? for unknown, or give the column kind: text"),
        ("top1_pct: 98}", "top_pct: 98}", "rows.quoted.cells.top_pct: the table has no column 'top_pct'; did you mean 'top1_pct'"),
        ("provenance: derived", "provenance: guessed", "rows.admm.cells.top1_pct.provenance: Input should be 'full text'"),
        ("title: ", "titel: ", "titel: unknown key 'titel'; did you mean 'title'?"),
        ("row: dense,", "row: dens,", "dense_gate.row: the table has no row 'dens'; did you mean 'dense'?"),
        ("metric: top1_pct", "metric: top_pct", "dense_gate.metric: no metric 'top_pct'; did you mean 'top1_pct'"),
        ("latency_ms_p50: {}", "latency_ms_p51: {kind: measured}", "no run gives 'latency_ms_p51'; did you mean"),
        ("latency_ms_p50: {}", "latency_ms_p50: {kind: counted}", "'latency_ms_p50' is measured, not counted; kinds never share a column"),
        (
            "dense.weights_nonzero / weights",
            "dense.weights_nonzeros / weights",
            "reads 'weights_nonzeros', which is neither column nor metric; did you mean",
        ),
        ("computed: dense.top1_pct -", "computed: (dense.top1_pct -", "is no arithmetic expression"),
        ("computed: dense.top1_pct -", "computed: open('x') -", "calls open; a computed column knows abs, min, max"),
        ("computed: dense.top1_pct -", "computed: admm.top1_pct -", "reads admm.top1_pct; only dense.NAME has a dot"),
        ("desk: mnist_10k, ", "", "rows.dense: seeds are given for scale 'desk', but no data; name it under data"),
        ("desk: mnist_10k, ", "dsk: mnist_10k, ", "data.dsk: Input should be 'smoke', 'desk' or 'paper'"),
        ("table: tab", "table: tob", "'tob' lies in file 'tab.yaml'; the two must agree"),
        ("paper: made-up", "paper: other", "'other' lies in the folder of 'made-up'; the two must agree"),
        ("quoted:", "dense:", "key 'dense' stands here a second time; remove one."),
    ],
    ids=lambda text: text[:24],
)
def test_a_malformed_table_names_file_line_key_and_way_out(tmp_path: Path, wrong: str, right: str, message: str) -> None:
    assert wrong in TABLE
    text = TABLE.replace(wrong, right, 1)
    line = line_of(text, AT.get(right, right))
    made = made_up(tmp_path, table=text)
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        made.table("tab")
    assert f"tab.yaml:{line}: " in str(caught.value)


@pytest.mark.parametrize(
    ("wrong", "right", "message"),
    [
        (
            "tab/deep_admm",
            "tab/deep_adm",
            "claims.0.tests.0.expression: no table has a row 'tab/deep_adm' to run; did you mean 'tab/deep_admm'",
        ),
        ("tab/deep_admm", "tab/quoted", "no table has a row 'tab/quoted' to run"),
        ('"tab/deep_admm", "top1_pct"', '"tab/deep_admm", "top_pct"', "no metric 'top_pct'; did you mean 'top1_pct'"),
        ('m("tab/deep_admm", "top1_pct")', 'exec("x")', "calls exec; a claim knows m, series_mean, first, last, at_loss, abs, min, max"),
        ('m("tab/deep_admm", "top1_pct")', "m(row, name)", "needs two plain strings, TABLE/ROW and a name"),
        ("at_most: 0.5", "at_most: 0.5, at_least: 0", "claims.0.tests.0: give exactly one of at_least and at_most"),
        ("at_most: 0.5", "at_most: 0.5, at_most: 1", "key 'at_most' stands here a second time; remove one."),
        (
            '"top1_pct") - m("tab/deep_admm"',
            '"top1_pct") - m("tub/deep_admm"',
            "no table has a row 'tub/deep_admm' to run; did you mean 'tab/deep_",
        ),
        ("at_most: 0.5", "at_most: 0.5, scales: [dsk]", "claims.0.tests.0.scales.0: Input should be 'smoke', 'desk' or 'paper'"),
        ("at_most: 0.5", "tolerance: -1, at_most: 0.5", "claims.0.tests.0.tolerance: Input should be greater than or equal to 0"),
        ("paper: made-up", "paper: other", "'other' lies in the folder of 'made-up'; write that name"),
    ],
    ids=lambda text: text[:24],
)
def test_malformed_claims_name_file_line_key_and_way_out(tmp_path: Path, wrong: str, right: str, message: str) -> None:
    assert wrong in CLAIMS
    text = CLAIMS.replace(wrong, right, 1)
    line = line_of(text, right)
    made = made_up(tmp_path, claims=text)
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        _ = made.claims
    assert f"claims.yaml:{line}: " in str(caught.value)


def test_a_file_that_is_no_yaml_names_its_line(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"tab.yaml:4: not YAML: mapping values are not allowed in this context\.$"):
        made_up(tmp_path, table=TABLE.replace("title: ", "title: a: ")).table("tab")


def test_a_claim_without_tests_says_why(tmp_path: Path) -> None:
    silent = "paper: made-up\nclaims:\n  - {id: 1, statement: s, tests: []}\n"
    with pytest.raises(ValueError, match=r"claims.yaml:3: claims.0: a claim without tests says under 'untested' why"):
        _ = made_up(tmp_path, claims=silent).claims


def test_two_claims_with_one_number_are_an_error(tmp_path: Path) -> None:
    twice = (
        "paper: made-up\nclaims:\n  - {id: 1, statement: s, tests: [], untested: u}\n  - {id: 1, statement: s, tests: [], untested: u}\n"
    )
    with pytest.raises(ValueError, match=r"claims.yaml:4: claims.1.id: claim 1 stands here a second time"):
        _ = made_up(tmp_path, claims=twice).claims


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (PAPER.replace("made-up", "made"), r"paper.yaml:2: name: 'made' lies in folder 'made-up'"),
        (PAPER.replace("main_table: tab", "main_table: tob"), r"paper.yaml:8: main_table: no table 'tob'; did you mean 'tab'\?"),
        (PAPER.replace("year: 2020", ""), r"key 'year' is missing"),
        (PAPER.replace("year: 2020", "year: 2020\n    year: 2021"), r"paper.yaml:7: key 'year' stands here a second time; remove one"),
        ("[]", r"paper.yaml:1: the file holds no mapping; it needs name, title"),
    ],
    ids=["folder", "main-table", "missing", "twice", "no-mapping"],
)
def test_a_malformed_paper_names_file_and_key(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        made_up(tmp_path, paper=text)


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda roots: paper("made-op", roots), "no paper 'made-op'; did you mean 'made-up'?"),
        (lambda roots: table("made-up", roots), "'made-up' names no table; write PAPER/TABLE, such as made-up/tab."),
        (lambda roots: table("made-up/tub", roots), "paper made-up has no table 'tub'; did you mean 'tab'?"),
        (lambda roots: table("made-up/tab", roots).row("dens"), "table made-up/tab has no row 'dens'; did you mean 'dense'?"),
        (lambda roots: table("made-up/tab", roots).row("zzz"), "has no row 'zzz'; known: dense, admm, deep_admm, quoted."),
        (lambda roots: table("made-up/tab", roots).data_of("dense", "dask"), "names no data for scale 'dask'; did you mean 'desk'?"),
        (
            lambda roots: table("made-up/tab", roots).seeds_of("dense", "huge"),
            "names no seeds for scale 'huge'; known: smoke, desk, paper.",
        ),
        (lambda roots: rate_file("made-up/lenet5-70x", roots), "no rate file 'made-up/lenet5-70x'"),
    ],
    ids=["paper", "no-slash", "table", "row", "far-row", "data-scale", "seeds-scale", "rates"],
)
def test_an_unknown_name_lists_close_ones(tmp_path: Path, ask: object, message: str) -> None:
    write_paper(tmp_path)
    with pytest.raises(ValueError, match=re.escape(message)):
        ask([tmp_path])  # type: ignore[operator]


def test_rows_take_seeds_data_and_model_from_the_table_unless_they_have_their_own(tmp_path: Path) -> None:
    own = TABLE.replace("quoted: {cells", "own: {overrides: [], seeds: {desk: [7]}, data: {desk: other}, model: {desk: wide}, cells")
    own = own.replace("dense_gate:", "model: {desk: narrow, paper: deep}\n    dense_gate:", 1)
    tab = made_up(tmp_path, table=own).table("tab")
    assert (tab.seeds_of("own", "desk"), tab.data_of("own", "desk"), tab.data_of("own", "paper")) == ([7], "other", "mnist")
    assert (tab.seeds_of("admm", "desk"), tab.data_of("admm", "desk")) == ([0, 1, 2], "mnist_10k")
    assert (tab.model_of("own", "desk"), tab.model_of("own", "paper"), tab.model_of("admm", "smoke")) == ("wide", "deep", None)
    assert tab.rows["admm"].overrides == ["recipe=one_shot", "rate=71.2"]


def test_rows_without_overrides_are_only_quoted(tmp_path: Path) -> None:
    made = made_up(tmp_path)
    assert made.rows == {"tab": ["dense", "admm", "deep_admm"]}


def test_unknown_stays_unknown_and_known_metrics_bring_their_unit(tmp_path: Path) -> None:
    tab = made_up(tmp_path).table("tab")
    assert tab.rows["deep_admm"].cells["top1_pct"].value == "?"
    assert (tab.columns["top1_pct"].unit, tab.columns["top1_pct"].better, tab.columns["top1_pct"].kind) == ("%", "higher", "accuracy")


def test_a_changed_file_is_read_anew(tmp_path: Path) -> None:
    made = made_up(tmp_path)
    assert made.table("tab").rows["quoted"].cells["top1_pct"].value == 98
    time.sleep(0.02)
    path = made.folder / "tables" / "tab.yaml"
    path.write_text(path.read_text().replace("top1_pct: 98", "top1_pct: 97"))
    assert made.table("tab").rows["quoted"].cells["top1_pct"].value == 97


def test_a_users_folder_is_found_and_may_not_shadow_a_paper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_paper(tmp_path / "experiments")
    monkeypatch.setenv("ESPALIER_CONFIG", str(tmp_path))
    assert experiment_roots()[-1] == tmp_path / "experiments"
    assert {"progressive-admm", "made-up"} <= papers().keys()
    write_paper(tmp_path / "again")
    with pytest.raises(ValueError, match=r"paper made-up lies in .* and in .*; rename one"):
        papers([tmp_path / "experiments", tmp_path / "again"])


def test_all_papers_are_read_in_no_time_and_without_torch() -> None:
    code = (
        "import sys, time, espalier.tables.published as p, espalier.tables.claims, espalier.tables.export\n"
        "start = time.process_time()\n"
        "[(paper.tables, paper.claims) for paper in p.papers().values()]\n"
        "assert 'torch' not in sys.modules and 'pandas' not in sys.modules\n"
        "sys.exit(0 if time.process_time() - start < 0.3 * max(1, len(p.papers())) else 1)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("name", sorted(papers().keys() - {COMPARISONS}))
def test_every_paper_at_hand_reads(name: str) -> None:
    one = paper(name)
    assert one.table_names[0] == one.facts.main_table
    assert all(tab.rows for tab in one.tables.values())
    assert [claim.id for claim in one.claims.claims] == list(range(1, len(one.claims.claims) + 1))


KEPT_IN_ALL = {"lenet5-20x": 21525, "lenet5-71x": 6050, "lenet5-167x": 2580, "lenet5-200x": 2152, "lenet5-246x": 1750}


def test_rate_files_keep_what_their_names_say_and_progressive_steps_nest() -> None:
    kept = {name: yaml.safe_load(rate_file(f"progressive-admm/{name}").read_text())["kept"] for name in KEPT_IN_ALL}
    assert {name: sum(counts.values()) for name, counts in kept.items()} == KEPT_IN_ALL
    for first, second in [("20x", "71x"), ("71x", "167x"), ("71x", "246x")]:
        assert all(kept[f"lenet5-{second}"][layer] <= count for layer, count in kept[f"lenet5-{first}"].items())


def test_rate_files_of_rows_exist() -> None:
    named = {
        override.partition("=")[2]
        for tab in paper("progressive-admm").tables.values()
        for row in tab.runnable.values()
        for override in row.overrides or []
        if "rate_file=" in override
    }
    assert {rate_file(name).stem for name in named} == set(KEPT_IN_ALL)


def test_progressive_admm_has_the_papers_fourteen_claims_and_all_metrics_exist() -> None:
    one: Paper = paper("progressive-admm")
    assert [claim.id for claim in one.claims.claims] == list(range(1, 15))
    runnable = {name for name, tab in one.tables.items() if tab.runnable}
    assert runnable == {"lenet5", "lenet5_claims"}
    for name in runnable:
        assert metrics.unknown([title for title, column in one.table(name).columns.items() if column.computed is None]) == []
