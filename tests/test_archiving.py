"""What is packed on one machine is merged on another, whole or not at all, and gives the same figures."""

import errno
import json
import posixpath
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from filelock import FileLock
from safetensors.torch import save_file
from typer.testing import CliRunner

import espalier
from espalier import cli
from espalier.archives import write_archive
from espalier.merging import Unpacked
from espalier.record import Record, Store
from espalier.running import run

LENET5 = "progressive-admm/lenet5"
TABLE = """paper: compare
table: mine
title: one
source: {where: nowhere, provenance: proposal}
experiment: compare/any
data: {smoke: digits}
seeds: {smoke: [0]}
columns: {top1_pct: {}}
rows: {admm-70x: {overrides: []}}
"""
QUICK = [f"budgets.smoke.{step}=1" for step in ("train", "admm", "retrain")]


@pytest.fixture(scope="module")
def packing_side(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a store with a dense run of two seeds, a pruned one and a variant."""
    root = tmp_path_factory.mktemp("there") / "runs"
    store = Store(root)
    run(LENET5, rows=["dense"], seeds=[0, 1], store=store)
    run(LENET5, rows=["admm-70x"], overrides=QUICK, store=store)
    return root


@pytest.fixture
def there(packing_side: Path, tmp_path: Path) -> Store:
    return Store(Path(shutil.copytree(packing_side, tmp_path / "there")))


def contents(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file() and path.name != ".lock"}


def test_tables_claims_and_times_are_the_same_on_the_other_side(there: Store, store_folder: Path, tmp_path: Path) -> None:
    packed = espalier.pack(LENET5, tmp_path / "lenet5.tar.gz", scale="smoke", store=there)
    assert (len(packed.runs), packed.checkpoints) == (3, 3)
    done = espalier.unpack(packed.path)
    assert sorted(done.added) == packed.runs
    assert espalier.cells(LENET5, scale="smoke") == espalier.cells(LENET5, scale="smoke", store=there)
    assert espalier.claims("progressive-admm") == espalier.claims("progressive-admm", there)
    name = packed.runs[0]
    assert espalier.find(name) == espalier.find(name, there)
    assert name in espalier.measure_runs(name, num_warmup=1, num_runs=10)
    assert espalier.runs() == espalier.runs(there)
    assert not (store_folder / ".unpacked").exists()


def test_the_same_store_gives_the_same_bytes_and_what_was_unpacked_packs_alike(there: Store, store_folder: Path, tmp_path: Path) -> None:
    first, again, after = (tmp_path / f"{name}.tar.gz" for name in ("first", "again", "after"))
    for path in (first, again):
        espalier.pack(LENET5, path, store=there)
    espalier.unpack(first)
    espalier.pack(LENET5, after)
    assert first.read_bytes() == again.read_bytes() == after.read_bytes()


def test_an_archive_holds_what_tells_how_it_was_made(there: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("espalier.archiving.git", lambda *_: "abc")
    monkeypatch.setattr("espalier.archiving.patch", lambda: b"--- a\n+++ b\n \n")
    packed = espalier.pack(f"{LENET5}/admm-70x", tmp_path / "one.tar.gz", scale="smoke", store=there)
    with tarfile.open(packed.path) as archive:
        texts = {name: archive.extractfile(name).read().decode() for name in archive.getnames() if not name.endswith("safetensors")}  # type: ignore[union-attr]
    (name,) = packed.runs
    record = espalier.find(name, there)
    assert yaml.safe_load(texts[f"runs/{name}/config.yaml"]) == record.config
    assert texts["commands.sh"] == f"{record.command}\n"
    assert texts["dirty.patch"] == "--- a\n+++ b\n \n"
    assert "at the time of\npacking, which need not be those of the runs" in texts["README.md"]
    environment = json.loads(texts["environment.json"])
    assert (environment["commit"], environment["dirty"]) == ("abc", True)
    assert any(line.startswith("torch==") for line in texts["requirements.txt"].splitlines())
    assert any("dirty.patch" in remark for remark in packed.remarks)
    monkeypatch.setattr("espalier.archiving.MAX_TEXT_BYTES", 3)
    remarks = espalier.pack(name, tmp_path / "large.tar.gz", store=there).remarks
    assert any("the checkout's changes fill 14 bytes, over the 3 of a patch" in remark for remark in remarks)
    monkeypatch.setattr("espalier.archiving.git", lambda *_: None)
    monkeypatch.setattr("espalier.archiving.patch", lambda: None)
    remarks = espalier.pack(name, tmp_path / "two.tar.gz", store=there).remarks
    assert any("git is not on this machine" in remark for remark in remarks)


def test_references_of_the_papers_are_packed_and_told_apart(tmp_path: Path, store_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = espalier.pack("ss-auto/cifar10_claims", tmp_path / "refs.tar.gz", scale="desk")
    assert packed.runs == []
    assert len(packed.shipped) == 3
    done = unpack(packed.path)
    assert (done.added, done.present) == ([], [])  # they came with this espalier too
    monkeypatch.setattr("espalier.tables.published.Paper.shipped_records", lambda self: [])
    done = unpack(packed.path)
    assert sorted(done.added) == sorted(packed.shipped)
    assert all("was a reference there and is a run here" in remark for remark in done.remarks)
    assert len(espalier.runs()) == 3


def test_what_is_there_already_is_skipped_and_only_filled_up(there: Store, store_folder: Path, tmp_path: Path) -> None:
    path = espalier.pack(LENET5, tmp_path / "all.tar.gz", store=there).path
    first = espalier.unpack(path)
    before = contents(store_folder)
    again = espalier.unpack(path)
    assert (again.added, sorted(again.present)) == ([], sorted(first.added))
    assert contents(store_folder) == before
    name = first.added[0]
    (store_folder / name / "model.safetensors").unlink()
    (time,) = (store_folder / name / "measurements").iterdir()
    time.write_text(time.read_text().replace('"num_warmup"', ' "num_warmup"'))
    third = espalier.unpack(path)
    assert (store_folder / name / "model.safetensors").read_bytes() == before[f"{name}/model.safetensors"]
    assert third.remarks == [f"{time} was measured here as well and stays"]


def unpack(path: Path, store: Store | None = None) -> Unpacked:
    """Unpack; what that refuses, a check refuses first in the same words, and neither a check nor a refusal changes a file."""
    place = store or Store()
    before = contents(place.root)
    try:
        told = espalier.unpack(path, check=True, store=store)
    except ValueError as error:
        assert contents(place.root) == before
        with pytest.raises(ValueError, match=f"^{re.escape(str(error))}$"):
            espalier.unpack(path, store=store)
        assert contents(place.root) == before
        raise
    assert contents(place.root) == before
    done = espalier.unpack(path, store=store)
    assert (done.checked, done.added, done.present) == (told.checked, told.added, told.present)
    return done


def other(store: Store, name: str) -> Record:
    """Put another record in a run's place."""
    record = store.find(name)
    assert record is not None
    changed = record.model_copy(update={"metrics": {"top1_pct": 1.0}})
    (store.folder(name) / "record.json").write_text(changed.model_dump_json())
    return changed


def test_another_record_of_the_same_name_stops_all(there: Store, store_folder: Path, tmp_path: Path) -> None:
    packed = espalier.pack(LENET5, tmp_path / "all.tar.gz", store=there)
    unpack(espalier.pack(packed.runs[1], tmp_path / "one.tar.gz", store=there).path)
    other(Store(), packed.runs[1])
    before = contents(store_folder)
    with pytest.raises(
        ValueError, match=rf"all\.tar\.gz has {packed.runs[1]}, made .*{store_folder}/{packed.runs[1]}/record\.json has another"
    ):
        unpack(packed.path)
    assert contents(store_folder) == before


def test_a_disk_that_fills_up_while_moving_undoes_all(
    there: Store, store_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = espalier.pack(LENET5, tmp_path / "all.tar.gz", store=there).path
    real, moves = Path.rename, []

    def failing(self: Path, to: Path) -> Path:
        moves.append(self)
        if len(moves) == 6:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(self, to)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(OSError, match="No space left"):
        espalier.unpack(path)
    assert len(moves) > 6  # the five moves before were taken back
    assert not list(store_folder.rglob("*"))


def test_a_full_disk_loses_nothing(there: Store, small_disk: Path, tmp_path: Path) -> None:
    path = espalier.pack(f"{LENET5}/dense", tmp_path / "dense.tar.gz", store=there).path
    with pytest.raises(OSError, match=r"No space left"):
        espalier.unpack(path, store=Store(small_disk))
    assert [entry for entry in small_disk.rglob("*") if entry.is_file()] == []


def test_a_check_asks_for_room_and_leaves_a_store_that_cannot_be_written_alone(
    there: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = espalier.pack(f"{LENET5}/dense", tmp_path / "dense.tar.gz", store=there).path
    begun = Store(tmp_path / "begun")
    name = espalier.unpack(path, store=begun).added[0]
    (begun.folder(name) / "record.json").unlink()
    (begun.folder(name) / ".lock").unlink(missing_ok=True)
    before = sorted(file.relative_to(begun.root) for file in begun.root.rglob("*"))
    assert espalier.unpack(path, check=True, store=begun).added == [name]
    assert sorted(file.relative_to(begun.root) for file in begun.root.rglob("*")) == before  # no lock either
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=6))
    with pytest.raises(OSError, match=r"needs [0-9,]+ bytes, 6 are free; .*ESPALIER_STORE"):
        espalier.unpack(path, check=True, store=begun)
    room = iter([1 << 40, 6])
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=next(room)))
    with pytest.raises(OSError, match=r"6 are free; the check needs that room too; set TMPDIR"):
        espalier.unpack(path, check=True, store=begun)


def test_a_run_that_another_process_works_on_is_left_alone(there: Store, store_folder: Path, tmp_path: Path) -> None:
    packed = espalier.pack(f"{LENET5}/dense", tmp_path / "dense.tar.gz", store=there)
    folder = store_folder / packed.runs[0]
    folder.mkdir(parents=True)
    with FileLock(folder / ".lock"), pytest.raises(ValueError, match="is in use by another process; nothing was unpacked"):
        unpack(packed.path)
    (folder / "model.safetensors").write_bytes(b"half a checkpoint of a run that was stopped")
    (folder / "measurements").mkdir()
    (folder / "measurements" / "cpu-000000.json").write_text("of other weights")
    done = unpack(packed.path)
    assert sorted(done.added) == packed.runs
    assert espalier.load(folder / "model.safetensors") is not None
    (remark,) = done.remarks
    start = f"{packed.runs[0]} was begun here and not finished; what it left lies in "
    assert remark.startswith(start)
    aside = Path(remark.removeprefix(start))
    assert aside.is_relative_to(store_folder / ".stale" / packed.runs[0])
    left = {"model.safetensors": b"half a checkpoint of a run that was stopped", "measurements/cpu-000000.json": b"of other weights"}
    assert contents(aside) == left
    assert len(list(Store().measurements(packed.runs[0]))) == 1


def test_a_record_under_another_runs_name_is_refused(there: Store, store_folder: Path, tmp_path: Path) -> None:
    first, second = (record for record in there.records() if record.row == "dense")
    text = (there.folder(first.name) / "record.json").read_bytes()
    facts: dict[str, Any] = {"espalier": "0", "packed": "x", "scale": None}
    path = tmp_path / "made.tar.gz"
    for members, message in (
        ({f"runs/{second.name}/record.json": text}, rf"runs/{second.name} holds the record of {first.name}"),
        ({f"runs/{second.name}/record.json": b"{}"}, r"record\.json is no record: paper: Field required\. Nothing was"),
        ({f"runs/{second.name}/config.yaml": b""}, rf"runs/{second.name} has no record\.json"),
    ):
        write_archive(path, members, facts)
        with pytest.raises(ValueError, match=message):
            unpack(path)
        assert contents(store_folder) == {}


def test_a_comparison_brings_its_table(there: Store, store_folder: Path, tmp_path: Path) -> None:
    (source,) = (record for record in there.records() if record.row == "admm-70x")
    record = source.model_copy(update={"paper": "compare", "table": "mine", "variant": False})
    there.add(record)
    table = there.root / "compare" / "mine" / "table.yaml"
    table.write_text(TABLE)
    path = espalier.pack(record.name, tmp_path / "mine.tar.gz", store=there).path
    unpack(path)
    assert (store_folder / "compare" / "mine" / "table.yaml").read_text() == TABLE
    assert [cell.ours_mean for cell in espalier.cells("compare/mine", scale="smoke")] == [record.metrics["top1_pct"]]
    (store_folder / "compare" / "mine" / "table.yaml").write_text("paper: other\n")
    with pytest.raises(ValueError, match=r"has the comparison mine, .* is another of that name"):
        unpack(path)


def test_a_tables_exact_name_comes_before_beginnings_of_names(there: Store, tmp_path: Path) -> None:
    (source,) = (record for record in there.records() if record.row == "admm-70x")
    records = [source.model_copy(update={"paper": "compare", "table": name}) for name in ("mine", "mine2", "mine-trials")]
    for record in records:
        there.add(record)
    assert espalier.pack("compare/mine", tmp_path / "no-table.tar.gz", store=there).runs == [records[0].name]
    (there.root / "compare" / "mine" / "table.yaml").write_text(TABLE)
    assert espalier.pack("compare/mine", tmp_path / "table.tar.gz", store=there).runs == [records[0].name]
    assert len(espalier.pack("compare/min", tmp_path / "beginning.tar.gz", store=there).runs) == 3


@pytest.mark.parametrize(
    ("member", "content", "message"),
    [
        ("measurements/cpu-000000.json", b"{}", r"measurements/cpu-000000\.json is no measurement: checkpoint: Field required"),
        (
            "measurements/cpu-000000.json",
            b"other weights",
            r"cpu-000000\.json is of the checkpoint 000000000000, its record says [0-9a-f]{12}",
        ),
        ("model.safetensors", b"garbage", r"model\.safetensors cannot be read as a packed checkpoint"),
        ("model.safetensors", b"other weights", r"model\.safetensors has the digest [0-9a-f]{12}, its record says [0-9a-f]{12}"),
        ("../../../../../compare/mine/table.yaml", b"paper: compare\n", r"runs/compare/mine/table\.yaml is no table \(table\.yaml:1: "),
        ("../../../../../compare/mine/table.yaml", b"paper: \x00\xff\n", r"runs/compare/mine/table\.yaml is no table"),
        ("../../../../../compare/other/table.yaml", TABLE.encode(), r"'mine' lies in folder 'other'; the two must agree"),
    ],
)
def test_no_part_of_a_run_is_merged_unread(
    there: Store, store_folder: Path, tmp_path: Path, member: str, content: bytes, message: str
) -> None:
    record, another = (record for record in there.records() if record.row == "dense")
    if content == b"other weights":
        (time,) = there.measurements(record.name)
        forged = time.model_copy(update={"checkpoint": "0" * 64}).model_dump_json().encode()
        content = forged if member.endswith(".json") else (there.folder(another.name) / "model.safetensors").read_bytes()
    name = posixpath.normpath(f"runs/{record.name}/{member}")
    members: dict[str, bytes | Path] = {f"runs/{record.name}/record.json": there.folder(record.name) / "record.json", name: content}
    write_archive(tmp_path / "made.tar.gz", members, {"espalier": "0", "packed": "x", "scale": None})
    with pytest.raises(ValueError, match=message) as caught:
        unpack(tmp_path / "made.tar.gz")
    assert "Nothing was unpacked; get the archive anew" in str(caught.value)
    assert ".unpacked" not in str(caught.value)
    assert contents(store_folder) == {}


def test_weights_that_are_not_the_records_are_not_packed(there: Store, tmp_path: Path) -> None:
    record, another = (record for record in there.records() if record.row == "dense")
    shutil.copy(there.folder(another.name) / "model.safetensors", there.folder(record.name))
    with pytest.raises(ValueError, match=r"model\.safetensors has the digest .*move the file away to pack without it"):
        espalier.pack(record.name, tmp_path / "one.tar.gz", store=there)
    assert not (tmp_path / "one.tar.gz").exists()


def test_bad_words_name_the_way_out(there: Store, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"must end in \.tar\.gz, such as lenet5\.tar\.gz"):
        espalier.pack(LENET5, tmp_path / "lenet5.zip", store=there)
    with pytest.raises(ValueError, match=r"no run of 'progressive-admm/lenet6'.*did you mean 'progressive-admm/lenet5"):
        espalier.pack("progressive-admm/lenet6", tmp_path / "a.tar.gz", store=there)
    with pytest.raises(ValueError, match=r"scale=dusk is not one of"):
        espalier.pack(LENET5, tmp_path / "a.tar.gz", scale="dusk", store=there)


def test_the_shell_packs_checks_and_unpacks(there: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def call(*words: str) -> str:
        done = CliRunner().invoke(cli.app, list(words), catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.stdout

    path = str(tmp_path / "dense.tar.gz")
    here = str(Store().root)
    monkeypatch.setenv("ESPALIER_STORE", str(there.root))
    assert "2 runs, 2 checkpoints" in call("pack", f"{LENET5}/dense", "--to", path)
    assert len(json.loads(call("pack", f"{LENET5}/dense", "--to", path, "--json"))["runs"]) == 2
    monkeypatch.setenv("ESPALIER_STORE", here)
    told = call("unpack", path, "--check")
    assert "digests are right" in told
    assert "2 runs would be added, 0 are there already" in told
    assert not Path(here).exists()
    assert "2 runs added, 0 were there already" in call("unpack", path)
    assert len(json.loads(call("unpack", path, "--json"))["present"]) == 2


BLOCKED = "import sys; sys.modules['espalier'] = None; exec(compile(open('card.py').read(), 'card', 'exec'))\n"


def run_card(text: str, folder: Path, then: str) -> None:
    """Run the second python block of a card where espalier cannot be imported, and ``then`` after it."""
    (folder / "card.py").write_text(text.split("```python\n")[2].partition("```")[0] + then)
    done = subprocess.run([sys.executable, "-c", BLOCKED], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("row", ["dense", "admm-70x"])
def test_a_cards_code_reads_the_weights_without_espalier(there: Store, store_folder: Path, tmp_path: Path, row: str) -> None:
    name = next(record.name for record in there.records() if record.row == row)
    espalier.unpack(espalier.pack(name, tmp_path / "one.tar.gz", store=there).path)
    folder = store_folder / name
    model = espalier.load(folder / "model.safetensors")
    save_file({key: tensor.contiguous() for key, tensor in model.state_dict().items()}, folder / "expected.safetensors")
    compared = (
        "from safetensors.torch import load_file\nexpected = load_file('expected.safetensors')\nassert weights.keys() == expected.keys()\n"
    )
    compared += "assert all(torch.equal(weights[name], expected[name]) for name in expected)\n"
    run_card((folder / "README.md").read_text(), folder, compared)


def test_a_card_says_what_how_good_how_fast_and_under_which_licence(there: Store, store_folder: Path, tmp_path: Path) -> None:
    espalier.unpack(espalier.pack(LENET5, tmp_path / "all.tar.gz", store=there).path)
    record = next(record for record in espalier.runs() if "/dense/" in record.run)
    text = (store_folder / record.run / "README.md").read_text()
    front = yaml.safe_load(text.split("---\n")[1])
    assert (front["license"], front["datasets"], front["metrics"]) == ("cc-by-4.0", ["digits"], ["accuracy"])
    (result,) = front["model-index"][0]["results"]
    found = [espalier.find(one.run) for one in espalier.runs() if "/dense/" in one.run]
    values = [one.metrics["top1_pct"] for one in found]
    assert [metric["value"] for metric in result["metrics"]] == [values[0], pytest.approx(sum(values) / 2, abs=1e-4)]  # type: ignore[arg-type]
    assert "over n = 2 seeds" in text
    assert f"seed 0: {values[0]:.2f} %, this file" in text
    (time,) = Store().measurements(record.run)
    assert f"{time.device}, {time.num_threads} thread" in text
    assert found[0].command in text
    pruned = next(record.run for record in espalier.runs() if "/admm-70x/" in record.run)
    text = (store_folder / pruned / "README.md").read_text()
    assert "| fc1.weight | 500 x 800 | unstructured |" in text or "unstructured" in text
    assert "Asked in `constrain`: unstructured" in text
    three = text.split("```python\n")[1].partition("```")[0].strip().splitlines()
    assert len(three) == 3
