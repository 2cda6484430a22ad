"""``compare`` on real runs: the table it writes, what the same command adds, trials, kills, and what it prints."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import espalier
from espalier.asking import compare_words, outline_words
from espalier.comparing import Comparison, _remarks, compare
from espalier.printing import outline_lines
from espalier.record import Store
from espalier.standing import standings
from espalier.tables.published import paper, table

WORDS = ["model=lenet5", "data=digits", "method=admm,mest_em", "constraint=unstructured", "rate=4", "epochs=2", "name=mine"]


def quick(**changed: Any) -> Comparison:
    asked = {
        "model": "lenet5",
        "data": "digits",
        "methods": ["admm", "mest_em"],
        "constraints": ["unstructured"],
        "rates": [4.0],
        "epochs": 1,
    }
    return compare(**{**asked, **changed})


def runs_of(store: Path) -> dict[str, int]:
    """Return folder of a row -> number of its records."""
    found: dict[str, int] = {}
    for path in store.glob("compare/*/*/*/*/record.json"):
        found[path.parents[2].name] = found.get(path.parents[2].name, 0) + 1
    return found


def test_a_comparison_is_a_table_that_every_verb_takes(store_folder: Path) -> None:
    found = compare_words([*WORDS, "logger=none"])
    assert found.name == "compare/mine"
    assert "logger" not in (store_folder / "compare" / "mine" / "table.yaml").read_text(encoding="utf-8")
    assert runs_of(store_folder) == {"dense": 1, "admm-unstructured-4x": 1, "mest_em-unstructured-4x": 1}
    assert (found.failed, found.remarks) == ({}, [])
    assert "Every contestant trains for 5 epochs" in found.note
    assert "paper defaults" in found.note
    dense, admm, mest = found.standings
    assert (dense.rank, dense.loss_pct, dense.epochs) == (None, 0, 2)
    assert (admm.num_seeds, mest.num_seeds) == (1, 1)
    shown = [round(one.top1_pct, 2) for one in (admm, mest)]  # type: ignore[arg-type]
    assert [admm.rank, mest.rank] == [1 + sum(other > own for other in shown) for own in shown]
    assert "The dense row, which loss_pct is against, trains for 2 epochs of its own." in found.note
    assert table("compare/mine").columns["loss_pct"].meaning.endswith("after 2 epochs of its own")
    assert (admm.epochs, mest.epochs) == (5, 5)
    for one in (admm, mest):
        assert one.loss_pct == pytest.approx(dense.top1_pct - one.top1_pct)  # type: ignore[operator]
        assert one.latency_ms_p50 is not None
        assert one.labels == {"method": {"a": "ADMM", "m": "MEST+EM"}[one.row[0]], "constraint": "unstructured", "rate": "4x"}
    assert admm.rate == pytest.approx(430_500 / 111_750)  # the first convolution and the last linear layer are dense
    assert mest.rate >= admm.rate  # type: ignore[operator]  # what grew at the digits' blank border is still zero
    admm_record, mest_record = (next(record for record in found.records if record.row == one.row) for one in (admm, mest))
    assert admm_record.command == "espalier run compare/mine row=admm-unstructured-4x scale=smoke seed=0 logger=none"
    assert not any(record.variant for record in found.records)
    assert mest_record.paper == "compare"
    assert "ADMM" not in str(mest_record.config)
    assert {cell.row for cell in espalier.cells("compare/mine")} == {"dense", admm.row, mest.row}
    assert "admm-unstructured-4x" in espalier.export("compare/mine", "md")
    assert espalier.run("compare/mine") == found.records
    json.dumps(found.as_json())
    again = compare_words(WORDS)
    assert [record.name for record in again.records] == [record.name for record in found.records]
    assert sum(runs_of(store_folder).values()) == 3
    assert "compare" not in {summary.paper for summary in espalier.papers()}
    refused = [
        (["rate=8"], r"only there: admm-unstructured-4x, .*only here: admm-unstructured-8x"),
        (["data=digits_rgb", "rate=4"], "data is digits there"),
    ]
    for words, message in refused:
        kept = [word for word in WORDS if word.partition("=")[0] not in {one.partition("=")[0] for one in words}]
        with pytest.raises(ValueError, match=rf"name=mine belongs to another comparison: .*{message}.*Give another name="):
            compare_words([*kept, *words])
    assert sum(runs_of(store_folder).values()) == 3


@pytest.mark.slow
def test_a_store_of_ones_own_and_further_seeds(tmp_path: Path) -> None:
    store = Store(tmp_path / "elsewhere")
    first = quick(methods=["magnitude", "set"], name="other", store=store)
    assert [record.seed for record in first.records] == [0, 0, 0]
    more = quick(methods=["magnitude", "set"], name="other", store=store, seeds=[0, 1])
    assert sorted(record.seed for record in more.records) == [0, 0, 0, 1, 1, 1]
    assert {record.name for record in first.records} < {record.name for record in more.records}
    assert table("compare/other", store=store.root).seeds["smoke"] == [0, 1]
    with pytest.raises(ValueError, match="has no table 'other'"):
        table("compare/other")
    assert more.standings[1].seeds == (0, 1)
    assert more.standings[1].top1_std is not None


def test_a_table_copied_to_a_folder_of_experiments_reads_as_it_is(store_folder: Path, tmp_path: Path) -> None:
    quick(name="shipped")
    home = tmp_path / "experiments" / "compare"
    (home / "tables").mkdir(parents=True)
    (home / "tables" / "shipped.yaml").write_text((store_folder / "compare" / "shipped" / "table.yaml").read_text())
    facts = (paper("compare").folder / "paper.yaml").read_text()
    (home / "paper.yaml").write_text(re.sub(r"(?m)^main_table: .*$", "main_table: shipped", facts))
    read = paper("compare", [home.parent])
    assert read.table_names[0] == "shipped"
    assert read.table("shipped") == table("compare/shipped")


@pytest.mark.slow
def test_trials_are_equally_many_and_validation_chooses(store_folder: Path) -> None:
    found = quick(methods=["admm", "magnitude"], tune=2, name="tuned", seeds=[1])
    trials = [record for record in Store(store_folder).records() if record.table == "tuned-trials"]
    assert sorted(record.row for record in trials) == [
        f"{name}-unstructured-4x-t{index}" for name in ("admm", "magnitude") for index in (1, 2)
    ]
    assert {record.seed for record in trials} == {1}
    assert "best of 2 trials by val/top1_pct at seed 1; the first: paper defaults" in found.note
    assert table("compare/tuned").tuned == {"trials": 2, "seed": 1}
    rows = table("compare/tuned").rows
    offered = table("compare/tuned-trials").rows
    for name in ("admm-unstructured-4x", "magnitude-unstructured-4x"):
        reached = {record.row: record.metrics["val/top1_pct"] for record in trials if record.row.startswith(name)}
        best = max(reached, key=lambda row: (reached[row], row.endswith("-t1")))  # type: ignore[operator, return-value]
        assert rows[name].overrides == offered[best].overrides
        chosen = next(record for record in found.records if (record.row, record.seed) == (name, 1))
        assert chosen.metrics["val/top1_pct"] == reached[best]
    again = quick(methods=["admm", "magnitude"], tune=2, name="tuned", seeds=[0, 1])  # a lower seed chooses nothing anew
    assert {record.name for record in found.records} < {record.name for record in again.records}
    assert [record.name for record in Store(store_folder).records() if record.table == "tuned-trials"] == [record.name for record in trials]
    with pytest.raises(ValueError, match="tune is 2 there, 0 here"):
        quick(methods=["admm", "magnitude"], name="tuned", seeds=[1])


@pytest.mark.slow
def test_stores_do_not_see_each_others_comparisons(store_folder: Path, tmp_path: Path) -> None:
    first, second = Store(tmp_path / "a"), Store(tmp_path / "b")
    quick(name="mine", store=first)
    found = quick(name="mine", store=second, rates=[2.0], overrides=["optimizers.train.lr=0.05"], jobs=2)  # another grid, other processes
    assert found.failed == {}
    for store, row in ((first, "admm-unstructured-4x"), (second, "admm-unstructured-2x")):
        assert (store.root / "compare" / "mine" / "table.yaml").is_file()
        assert row in set(espalier.table("compare/mine", store=store)["row"])
        assert row in espalier.export("compare/mine", "md", store=store)
        espalier.run("compare/mine", store=store)
        assert espalier.plot("compare/mine", tmp_path / "plot.csv", store=store).is_file()
        assert row in (espalier.report(tmp_path / "report", store).parent / "compare" / "mine.html").read_text(encoding="utf-8")
        packed = espalier.pack("compare/mine", tmp_path / f"{row}.tar.gz", store=store)
        assert len(packed.runs) == 3
    assert not list(store_folder.glob("compare/*"))


@pytest.mark.slow
def test_a_frame_is_noted_for_it_changes_what_is_timed(store_folder: Path) -> None:
    assert "Timed with" not in quick(name="framed").note
    for _ in range(2):
        assert quick(name="framed", overrides=["frame=cpu", "logger=none"]).note.count("Timed with frame=cpu.") == 1


def test_rows_are_of_one_source(store_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = quick(name="sources")
    monkeypatch.setattr("espalier.tables.published.Paper.shipped_records", lambda self: found.records)
    (bare := store_folder / "bare" / "compare" / "sources").mkdir(parents=True)
    (bare / "table.yaml").write_text((store_folder / "compare" / "sources" / "table.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    shipped = standings(table("compare/sources"), scale="smoke", store=Store(store_folder / "bare"))
    assert [(one.top1_pct, one.rank, one.num_seeds, one.seeds) for one in shipped] == [
        (one.top1_pct, one.rank, 1, ()) for one in found.standings
    ]
    (store_folder / found.records[-1].name / "record.json").unlink()
    mixed = standings(table("compare/sources"), scale="smoke", store=Store(store_folder))
    assert [(one.top1_pct is None, one.rank, one.num_seeds) for one in mixed] == [(False, None, 1), (False, None, 1), (True, None, 0)]


def test_contestants_of_different_epochs_are_remarked(store_folder: Path) -> None:
    found = quick(name="unequal")
    assert found.remarks == []
    longer = found.records[-1].model_copy(update={"seed": 1, "metrics": {"train/epochs": 9.0}})
    for several in ([*found.records, longer], [longer, *found.records]):  # whichever seed comes last
        assert len(_remarks(table("compare/unequal"), several)) == 1
    changed = [record.model_copy(update={"metrics": {**record.metrics, "train/epochs": 9.0}}) for record in found.records[-1:]]
    (remark,) = _remarks(table("compare/unequal"), [*found.records[:-1], *changed])
    assert "not fair" in remark
    assert "mest_em-unstructured-4x seed 0 9" in remark


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["model=lenet5", "data=digits", "method=admm"], "a comparison needs constraint="),
        ([*WORDS[:4], "rate=four"], "rate=four is no number"),
        ([*WORDS[:5], "seed=x"], "seed=x is no seed"),
        ([*WORDS[:5], "scale=dsk"], "did you mean desk"),
        ([*WORDS[:5], "name=../mine"], "a name starts with a letter"),
        ([*WORDS[:5], "jobs=0"], "at least one process runs"),
        ([*WORDS[:5], "tune=some"], "tune=some is no whole number"),
        ([*WORDS[:5], "rate=8"], "rate= is given 2 times"),
    ],
)
def test_words_that_say_nothing_run_nothing(store_folder: Path, words: Sequence[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        compare_words(words)
    assert not list(store_folder.glob("compare/*"))


def test_a_misspelt_word_of_those_needed_is_recognised(store_folder: Path) -> None:
    with pytest.raises(ValueError, match=r"a comparison needs method=, .* Did you mean it with methd=\?"):
        compare_words([*WORDS[:2], "methd=admm,mest_em", *WORDS[3:]])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ("method=amm,mest_em", "method=amm is not known"),
        ("constraint=unstructred", "Nearest of constraint=: unstructured"),
        ("method=admm", "two contestants or more"),
        ("optimizers.admm.lrr=1", "Nearest keys: optimizers.admm.lr"),
        ("scale=dsk", "did you mean desk"),
        ("jobs=0", "at least one process runs"),
    ],
)
def test_a_wrong_word_is_refused_before_torch_is_loaded(store_folder: Path, changed: str, message: str) -> None:
    key = changed.partition("=")[0]
    words = [*(word for word in WORDS if word.partition("=")[0] != key), changed]
    code = "import sys, espalier\ntry:\n    espalier.compare_words(sys.argv[1:])\nexcept ValueError as error:\n    print(error)\n"
    code += "print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
    assert message in done.stdout
    assert done.stdout.strip().endswith("False")


def test_a_dry_run_says_what_is_trained_and_reused_and_writes_nothing(store_folder: Path) -> None:
    words = [*WORDS[:2], "method=admm,magnitude,mest_em", "constraint=unstructured,pattern", *WORDS[4:], "logger=none"]
    first = outline_words([*words, "dry_run=true"])
    assert not list(store_folder.rglob("*"))
    assert (first.name, first.seeds, first.trials) == ("compare/mine", (0,), 0)
    rows = {one.row: one for one in first.rows}
    assert "which a rate counts" in rows["mest_em-pattern"].reason
    assert rows["dense"].trains == {0: ("train 2",)}
    assert (rows["admm-unstructured-4x"].epochs, rows["admm-unstructured-4x"].recipe) == (5, "one_shot")
    assert rows["admm-unstructured-4x"].trains == {0: ("constrain 2", "retrain 1")}
    assert rows["admm-unstructured-4x"].reuses == {0: ("train",)}
    assert first.epochs == 2 + 3 + 3 + 5  # the dense network is trained once; no pattern fits kernels of 5 x 5
    json.dumps(first.as_json())
    text = "".join(map(str, outline_lines(first)))
    assert "mest_em-pattern: not applicable" in text
    assert f"{first.epochs} epochs to train" in text
    done = compare_words(words)
    again = outline_words([*words, "seed=0,1", "dry_run=true"])
    assert {record.row for record in done.records} == {one.row for one in again.rows if one.done == (0,)}
    assert {one.row: set(one.trains) for one in again.rows if not one.reason} == {record.row: {1} for record in done.records}
    with pytest.raises(ValueError, match="belongs to another comparison"):
        outline_words([*words[:2], "method=admm,mest_em", *words[3:], "dry_run=true"])
    with pytest.raises(ValueError, match="outline_words"):
        compare_words([*words, "dry_run=true"])


def test_a_dry_run_of_a_tuned_comparison_lists_its_trials(store_folder: Path) -> None:
    found = outline_words([*WORDS, "tune=2", "logger=none"])
    assert [one.row for one in found.rows] == [f"{name}-unstructured-4x-t{index}" for name in ("admm", "mest_em") for index in (1, 2)]
    assert found.trials == 2
    assert not list(store_folder.rglob("*"))


@pytest.mark.slow
def test_the_shell_prints_the_table_then_what_failed(store_folder: Path) -> None:
    line = [sys.executable, "-m", "espalier.cli", "compare", *WORDS, "optimizers.admm.lr=1e30"]
    done = subprocess.run(line, capture_output=True, text=True, check=False, env={**os.environ, "COLUMNS": "200"})
    assert done.returncode == 2, done.stderr
    assert "mest_em-unstructured-4x" in done.stdout
    assert "espalier table compare/mine" in done.stdout
    assert "1 run failed, the others are kept: compare/mine/admm-unstructured-4x" in done.stderr
    assert "of them NaN; check rate and weights" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("jobs", [1, 2])
def test_a_comparison_killed_three_times_ends_with_exactly_the_asked_runs(store_folder: Path, jobs: int) -> None:
    words = [*WORDS[:2], "method=admm,magnitude,mest_em", *WORDS[3:], "seed=0,1", f"jobs={jobs}"]
    line = [sys.executable, "-m", "espalier.cli", "compare", *words]
    kills = 0
    for wanted in (1, 3, 5):
        process = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None:
            if sum(runs_of(store_folder).values()) >= wanted:
                process.send_signal(signal.SIGKILL)
                kills += 1
                break
            time.sleep(0.02)
        process.wait()
    assert kills == 3
    done = subprocess.run([*line, "--json"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = ["dense", *(f"{name}-unstructured-4x" for name in ("admm", "magnitude", "mest_em"))]
    assert runs_of(store_folder) == dict.fromkeys(rows, 2)
    assert len(json.loads(done.stdout)["runs"]) == 8
    started = {path: path.stat().st_mtime_ns for path in store_folder.glob("compare/**/record.json")}
    assert subprocess.run(line, capture_output=True, check=False).returncode == 0
    assert {path: path.stat().st_mtime_ns for path in store_folder.glob("compare/**/record.json")} == started
