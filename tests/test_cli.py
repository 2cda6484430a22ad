"""The shell: light to start, readable to people and programs."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

import espalier
from espalier import cli
from espalier.record import Store
from espalier.running import run

LENET5 = "progressive-admm/lenet5"
QUICK = ["budgets.smoke.train=1"]
runner = CliRunner()


def call(*words: str) -> str:
    done = runner.invoke(cli.app, list(words), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_help_is_quick_and_brings_no_torch() -> None:
    code = "import sys; sys.argv = ['espalier', '--help']\nfrom espalier.cli import main\n"
    code += "try:\n    main()\nexcept SystemExit:\n    print('torch' in sys.modules)"
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        seconds.append(time.perf_counter() - start)
    assert done.stdout.strip().endswith("False")
    assert min(seconds) < 1.5


def test_a_run_can_be_listed_shown_compared_and_cleaned(store_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(LENET5, rows=["dense"], overrides=QUICK)
    run(LENET5, rows=["dense"], seeds=[1], overrides=QUICK)
    listed = json.loads(call("runs", "--json"))
    assert [entry["variant"] for entry in listed] == [True, True]
    assert [entry["stale"] for entry in listed] == [False, False]
    names = [entry["run"] for entry in listed]
    assert json.loads(call("show", names[0]))["row"] == "dense"
    different = {entry["key"] for entry in json.loads(call("diff", *names, "--json"))}
    assert "config.seed" in different
    assert "config.data.batch_size" not in different
    assert "bytes" in call("clean", "--yes")
    assert not list(store_folder.glob(".steps/*"))
    assert len(list(Store(store_folder).records())) == 2


def test_an_unknown_run_lists_those_there_are(store_folder: Path) -> None:
    with pytest.raises(ValueError, match="0 runs are called 'nothing'"):
        call("show", "nothing")


def test_claims_and_tables_come_as_json(store_folder: Path) -> None:
    verdicts = json.loads(call("claims", "progressive-admm", "--json"))
    assert [entry["id"] for entry in verdicts] == list(range(1, 15))
    assert {"id", "statement", "verdict", "figures", "scale", "seeds"} <= verdicts[0].keys()
    assert {entry["verdict"] for entry in verdicts} <= {"holds", "fails", "inconclusive", "not run"}
    cells = json.loads(call("table", LENET5, "--json", "--scale", "smoke"))
    assert set(cells[0]) == {
        *("row", "column", "published", "provenance", "shipped_mean", "shipped_std"),
        *("ours_mean", "ours_std", "seeds", "scale", "device"),
    }


def test_words_for_people(store_folder: Path, tmp_path: Path) -> None:
    assert "progressive-admm" in call("papers")
    assert json.loads(call("papers", "--json"))[0]["rows"] > 20
    assert "admm-70x" in call("table", LENET5, "--scale", "smoke")
    assert call("table", LENET5, "--scale", "smoke", "--to", "csv").startswith("row")
    assert "ADMM" in call("claims", "progressive-admm")
    assert "index.html" in call("report", "--out", str(tmp_path / "report"))


@pytest.mark.parametrize(
    ("written", "expected"),
    [("row=adm", ["row=admm-70x"]), ("scale=d", ["scale=desk"]), ("constraint=f", ["constraint=filter"]), ("meth", ["method="])],
)
def test_overrides_complete(written: str, expected: list[str]) -> None:
    class Context:
        params = {"name": LENET5}  # noqa: RUF012

    assert cli.complete_override(Context(), written) == expected  # type: ignore[arg-type]


def test_table_names_complete() -> None:
    assert cli.complete_table("progressive-admm/lenet5_c") == ["progressive-admm/lenet5_claims"]


def test_python_offers_the_same(store_folder: Path) -> None:
    espalier.run(LENET5, rows=["dense"], overrides=QUICK)
    frame = espalier.records()
    assert len(frame) == 1
    assert {"row", "seed", "top1_pct", "config.data.batch_size"} <= set(frame.columns)
    table = espalier.table(LENET5, scale="smoke")
    assert table[(table.row == "dense") & (table.column == "top1_pct")].published.item() == 99.2
