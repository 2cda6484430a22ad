"""Records of exported networks are filed beside the run whose weights they timed, and beside no other."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import espalier
from espalier.record import Measurement, Record, Store

CHECKPOINT = "a1" * 32


@pytest.fixture
def run(store_folder: Path) -> Record:
    record = Record(
        paper="p", table="t", row="dense", scale="smoke", seed=0, identity="0123456789", command="", commit=None, dirty=False,
        code_digest="", config={}, data=None, metrics={}, steps={}, checkpoint=CHECKPOINT, versions={}, device="", started="",
        duration_s=1.0,
    )  # fmt: skip
    Store(store_folder).add(record)
    return record


def printed(path: Path, **changes: object) -> Path:
    facts = {
        "checkpoint": CHECKPOINT, "weights": "trained", "frame": "compiled_cpu", "kind": "measured", "engine": "espalier-sparse",
        "device": "a board", "precision": "fp32", "batch_size": 1, "num_threads": 2, "num_warmup": 20, "num_runs": 200,
        "metrics": {"latency_ms_p10": 1.0, "latency_ms_p50": 1.1, "latency_ms_p90": 1.3, "fork_join_ns": 300.0, "max_rel_error": 1e-7},
        "versions": {"espalier": "0.1.0", "cc": "12.2.0"}, "started": "2026-01-01T00:00:00+00:00",
    }  # fmt: skip
    path.write_text(json.dumps(facts | changes))
    return path


def test_a_record_is_filed_and_replaced(run: Record, tmp_path: Path, store_folder: Path) -> None:
    path = printed(tmp_path / "record.json")
    found = espalier.import_measurement(path, "p/t/dense")
    assert list(found) == [run.name]
    assert list(Store(store_folder).measurements(run.name)) == [Measurement.model_validate_json(path.read_text())]
    espalier.import_measurement(printed(path, started="2026-01-02T00:00:00+00:00"), run)
    assert [one.started for one in Store(store_folder).measurements(run.name)] == ["2026-01-02T00:00:00+00:00"]
    espalier.import_measurement(printed(path, num_threads=1), run)
    assert len(list(Store(store_folder).measurements(run.name))) == 2


def test_other_weights_are_refused(run: Record, tmp_path: Path, store_folder: Path) -> None:
    for changes in ({"checkpoint": "b2" * 32}, {"weights": "random"}):
        path = printed(tmp_path / "record.json", **changes)
        with pytest.raises(ValueError, match=rf"timed .* weights of digest .*, {run.name} has .* of digest a1a1a1a1a1a1: name"):
            espalier.import_measurement(path, run.name)
    assert list(Store(store_folder).measurements(run.name)) == []


def test_what_is_no_record_is_refused(run: Record, tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    with pytest.raises(ValueError, match=r"record\.json is no file\. Let the exported network write it anew"):
        espalier.import_measurement(path, run)
    path.write_text("segmentation fault")
    with pytest.raises(ValueError, match=r"record\.json is no measurement: the file: Invalid JSON"):
        espalier.import_measurement(path, run)
    with pytest.raises(ValueError, match="is no measurement: num_threads: Input should be a valid integer"):
        espalier.import_measurement(printed(path, num_threads="two"), run)
    with pytest.raises(ValueError, match="figures that espalier does not know: speed"):
        espalier.import_measurement(printed(path, metrics={"speed": 1.0}), run)
    with pytest.raises(ValueError, match="did you mean"):
        espalier.import_measurement(printed(path), "p/t/dens/smoke")


@pytest.mark.parametrize(
    ("figures", "reason"),
    [
        ({"latency_ms_p50": -3.0}, "its percentiles are 1.0, -3.0, 1.3 ms"),
        ({"latency_ms_p50": 9.0}, "its percentiles are 1.0, 9.0, 1.3 ms"),
        ({"latency_ms_p10": 0.0}, "its percentiles are 0.0, 1.1, 1.3 ms"),
        ({"max_rel_error": 7.0}, "its outputs are off by 7, of 0.0001 that are allowed"),
    ],
)
def test_figures_that_no_clock_gave_are_refused(run: Record, tmp_path: Path, figures: dict[str, float], reason: str) -> None:
    path = printed(tmp_path / "record.json")
    printed(path, metrics={**json.loads(path.read_text())["metrics"], **figures})
    with pytest.raises(ValueError, match=f"cannot be what a clock said: {reason}"):
        espalier.import_measurement(path, run)


def test_the_shell_files_it(run: Record, tmp_path: Path) -> None:
    path = printed(tmp_path / "record.json")
    words = [sys.executable, "-m", "espalier.cli", "measure", "--import", str(path)]
    done = subprocess.run([*words, "p/t/dense", "--json"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)[run.name]["num_threads"] == 2
    done = subprocess.run([*words, "p/t/dense", "--threads", "2"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "--import files one record beside one run" in done.stderr
