"""The shell: light to start, readable to people and programs."""

import ast
import io
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

import espalier
from espalier import cli, completion, printing
from espalier.comparing import Comparison
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
    assert json.loads(call("show", names[0], "--json"))["row"] == "dense"
    different = {entry["key"] for entry in json.loads(call("diff", *names, "--json"))}
    assert "config.seed" in different
    assert "config.data.batch_size" not in different
    with pytest.raises(ValueError, match=r"is a variant.*cannot stand for it"):
        call("keep", names[0])
    changed = run(LENET5, rows=["dense"], overrides=["budgets.smoke.train=2"])[0].name
    assert "config.steps.train.epochs" in {entry["key"] for entry in json.loads(call("diff", names[0], changed, "--json"))}
    assert "bytes" in call("clean", "--yes")
    assert not list(store_folder.glob(".steps/*"))
    assert len(list(Store(store_folder).records())) == 3


def test_an_unknown_run_is_named(store_folder: Path) -> None:
    with pytest.raises(ValueError, match="no run is called 'nothing'; known: none"):
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
    assert {entry["paper"]: entry["rows"] for entry in json.loads(call("papers", "--json"))}["progressive-admm"] > 20
    assert "admm-70x" in call("table", LENET5, "--scale", "smoke")
    assert call("table", LENET5, "--scale", "smoke", "--to", "csv").startswith("row")
    assert "96.7 %, 30x" in call("table", "progressive-admm/admm_vs_heuristics", "--layout")
    assert "ADMM" in call("claims", "progressive-admm")
    assert "index.html" in call("report", "--out", str(tmp_path / "report"))


@pytest.mark.parametrize("words", [("--json",), ("--to", "csv")])
def test_a_layout_is_for_people_not_for_programs(words: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="csv and json hold one line a cell"):
        call("table", LENET5, "--layout", *words)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("row=adm", ["row=admm-70x"]),
        ("scale=d", ["scale=desk"]),
        ("constraint=filter", ["constraint=filter", "constraint=filter_column"]),
        ("meth", ["method="]),
    ],
)
def test_overrides_complete(written: str, expected: list[str]) -> None:
    class Context:
        params = {"name": LENET5}  # noqa: RUF012

    assert completion.complete_override(Context(), written) == expected  # type: ignore[arg-type]


def test_table_names_complete() -> None:
    assert completion.complete_table("progressive-admm/lenet5_c") == ["progressive-admm/lenet5_claims"]


def test_python_offers_the_same(store_folder: Path) -> None:
    espalier.run(LENET5, rows=["dense"], overrides=QUICK)
    frame = espalier.records()
    assert len(frame) == 1
    assert {"row", "seed", "top1_pct", "config.data.batch_size"} <= set(frame.columns)
    table = espalier.table(LENET5, scale="smoke")
    assert table[(table.row == "dense") & (table.column == "top1_pct")].published.item() == 99.2


@pytest.fixture
def dense(store_folder: Path) -> str:
    (record,) = run(LENET5, rows=["dense"], overrides=["budgets.smoke.train=1"])
    return record.name


@pytest.mark.tiny
def test_the_shell_uses_the_public_interface_alone() -> None:
    tree = ast.parse(Path(cli.__file__).read_text(encoding="utf-8"))
    modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {module for module in modules if module and module.startswith("espalier")} == {
        "espalier",
        "espalier.completion",
        "espalier.printing",
    }
    used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "espalier"}
    assert used <= set(espalier.__all__)
    assert len(used) > 12


@pytest.mark.tiny
def test_every_public_name_is_there_documented_and_no_module_of_ours() -> None:
    assert sorted(espalier.__all__) == sorted(espalier.HOMES) == dir(espalier)
    folder = Path(espalier.__file__).parent
    for name in espalier.__all__:
        assert getattr(espalier, name).__doc__
        assert not (folder / name).exists()
        assert not (folder / f"{name}.py").exists()
    with pytest.raises(AttributeError, match="espalier has no 'prun'"):
        espalier.prun  # noqa: B018


VERBS = sorted(command.name or command.callback.__name__ for command in cli.app.registered_commands if command.callback)


@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_shows_an_example_and_offers_json(verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERMINAL_WIDTH", "80")
    monkeypatch.setattr("typer.rich_utils.MAX_WIDTH", 80)
    text = call(verb, "--help")
    assert "\\b" not in text
    assert "--json" in text
    shown = {line.strip() for line in text.splitlines()}
    examples = [line.strip() for line in (getattr(cli, verb).__doc__ or "").splitlines() if line.strip().startswith(f"espalier {verb}")]
    assert examples
    assert set(examples) <= shown, "an example is wrapped"


def test_each_verb_that_prints_answers_in_json(dense: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("espalier.runner._commit", lambda: {"commit": None, "dirty": False})  # whatever this checkout holds
    (plain,) = run(LENET5, rows=["dense"], seeds=[1])
    monkeypatch.setattr("espalier.tables.published.experiment_roots", lambda: [tmp_path / "kept"])
    answers = {
        words[0]: json.loads(call(*words, "--json"))
        for words in [
            ("runs",),
            ("show", dense),
            ("diff", dense, dense),
            ("measure", dense, "--threads", "1", "--batch-size", "2"),
            ("keep", plain.name),
            ("clean",),
        ]
    }
    assert {entry["run"] for entry in answers["runs"]} == {dense, plain.name}
    assert answers["show"]["config"]["seed"] == 0
    assert answers["diff"] == []
    assert answers["measure"][dense]["batch_size"] == 2
    assert Path(answers["keep"]["path"], "record.json").exists()
    assert (answers["clean"]["deleted"], len(answers["clean"]["folders"])) == (False, 2)
    assert json.loads(call("clean", "--yes", "--json"))["deleted"] is True


def test_words_about_a_run(dense: str) -> None:
    assert "top1_pct" in call("show", dense)
    assert "p50" in call("measure", dense)
    assert "variant" in call("runs")
    console = Console(file=io.StringIO(), width=200)
    console.print(printing.runs_grid(espalier.runs()))
    assert "budgets.smoke.train=1" in console.file.getvalue()  # type: ignore[attr-defined]
    (entry,) = json.loads(call("runs", "--json"))
    assert entry["changed"] == QUICK
    assert entry["rate"] == 1
    assert 0 < entry["top1_pct"] <= 100


USAGE = [("show", "--json"), ("table", LENET5, "--scael", "smoke", "--json"), ("nosuch", "--json")]
REFUSED = [
    *[("explain", "nosuch.key"), ("run", LENET5, "row=nosuch"), ("compare", "model=lenet5"), ("table", "nosuch/nosuch")],
    *[("show", "nosuch"), ("diff", "nosuch", "nosuch"), ("measure", "nosuch"), ("keep", "nosuch"), ("pack", "nosuch", "--to", "n.tar.gz")],
    *[("unpack", "nosuch.tar.gz"), ("report", "--out", __file__), ("publish", "nosuch/nosuch"), ("plot", "nosuch/nosuch", "--to", "n.pdf")],
    *[("claims", "nosuch"), ("fetch", "nosuch"), ("bench", "nosuch"), ("export", "nosuch", "--out", "standalone")],
]
ALWAYS = {"papers", "runs", "clean"}  # verbs that take no word which could be wrong


@pytest.mark.parametrize("words", REFUSED, ids=lambda words: words[0])
def test_a_program_reads_why_a_verb_refused(words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = runner.invoke(cli.app, [*words, "--json"])
    assert done.exit_code != 0
    assert isinstance(done.exception, printing.EXPECTED)
    assert json.loads(done.stdout) == {"error": str(done.exception)}
    assert runner.invoke(cli.app, list(words)).stdout == ""


def test_no_verb_is_left_out_of_the_refusals() -> None:
    assert {words[0] for words in REFUSED} == set(VERBS) - ALWAYS


@pytest.mark.parametrize("words", USAGE, ids=" ".join)
def test_a_program_reads_which_word_the_shell_could_not(words: tuple[str, ...]) -> None:
    done = runner.invoke(cli.app, list(words))
    assert done.exit_code == 2
    assert next(word for word in ("RUN", "--scael", "nosuch") if word in done.stderr) in json.loads(done.stdout)["error"]


def test_a_program_reads_of_a_fault_of_ours_which_still_comes_with_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise KeyError("found")

    monkeypatch.setattr("espalier.inventory.runs", broken)
    done = runner.invoke(cli.app, ["runs", "--json"])
    assert isinstance(done.exception, KeyError)
    assert json.loads(done.stdout) == {"error": "KeyError: 'found'"}


def test_people_read_the_same_on_stderr() -> None:
    line = [sys.executable, "-m", "espalier.cli", "show", "nosuch", "--json"]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.strip() == f"error: {json.loads(done.stdout)['error']}"


def test_a_comparison_with_a_failed_run_is_one_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    found = Comparison("compare/mine", "smoke", "", [], {"compare/mine/dense": "of them NaN"}, [], [])
    monkeypatch.setattr("espalier.asking.compare_words", lambda *_, **__: found)
    done = runner.invoke(cli.app, ["compare", "model=lenet5", "--json"])
    assert done.exit_code == 2
    assert json.loads(done.stdout)["failed"] == found.failed
    assert "1 run failed, the others are kept: compare/mine/dense" in done.stderr


def test_an_empty_store_says_where_it_looked(store_folder: Path) -> None:
    assert call("runs").strip() == f"no runs in {store_folder} (ESPALIER_STORE moves it)"
    assert json.loads(call("runs", "--json")) == []


def test_a_damaged_record_hides_no_other(dense: str, store_folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    (path,) = store_folder.glob("*/*/*/*/*/record.json")
    damaged = path.parent.with_name("seed9-abcdef") / "record.json"
    damaged.parent.mkdir()
    damaged.write_text("{")
    assert [entry["run"] for entry in json.loads(call("runs", "--json"))] == [dense]
    (message,) = [entry.getMessage() for entry in caplog.records]
    assert message.startswith(f"passed over: {damaged} is no record")
    assert "Move it away" in message
    call("table", LENET5, "--scale", "smoke")
    call("papers")


def test_ctrl_c_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("espalier.running.run_overrides", stopped)
    done = runner.invoke(cli.app, ["run", LENET5, "row=dense"])
    assert done.exit_code == 130
    assert "what was finished is kept. The same command goes on" in done.stderr
    assert done.stdout == ""
    answered = runner.invoke(cli.app, ["run", LENET5, "row=dense", "--json"])
    assert answered.exit_code == 130
    assert json.loads(answered.stdout)["error"].startswith("stopped; what was finished is kept")


def test_a_report_wants_a_folder(tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text("")
    with pytest.raises(ValueError, match=r"page\.html is a file; name a folder"):
        call("report", "--out", str(tmp_path / "page.html"))


def test_a_report_without_its_extra_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    monkeypatch.delitem(sys.modules, "espalier.site.pages", raising=False)
    with pytest.raises(ModuleNotFoundError, match=r"needs jinja2; .*espalier\[report\]"):
        call("report", "--out", str(tmp_path))


def test_a_figure_from_other_code_is_marked(store_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (record,) = run(LENET5, rows=["dense"])
    assert "*" not in call("table", LENET5, "--scale", "smoke")
    (path,) = store_folder.glob("*/*/*/*/*/record.json")
    path.write_text(record.model_copy(update={"code_digest": "other"}).model_dump_json())
    shown = call("table", LENET5, "--scale", "smoke")
    assert "*" in shown
    assert "rerun=stale" in shown
    assert "rerun=stale" in call("table", LENET5, "--scale", "smoke", "--to", "md")
    table = espalier.table(LENET5, scale="smoke")
    assert set(table[table.stale.map(bool)].row) == {"dense"}
    assert [entry["stale"] for entry in json.loads(call("runs", "--json"))] == [True]


def test_the_package_runs_as_a_module() -> None:
    done = subprocess.run([sys.executable, "-m", "espalier", "explain", "no-such-key"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "no-such-key" in done.stderr


def test_a_missing_file_is_called_one() -> None:
    with pytest.raises(ValueError, match=r"^gone\.safetensors: there is no such file; `espalier runs` lists runs"):
        call("show", "gone.safetensors")
