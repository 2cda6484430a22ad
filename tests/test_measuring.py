"""Finished runs are measured again from their packed checkpoints, and never with other weights than the record's."""

import io
from pathlib import Path

import pytest
import torch
from rich.console import Console

import espalier
from espalier.record import Record, Store
from espalier.running import run

LENET5 = "progressive-admm/lenet5"
FAST = {"num_warmup": 1, "num_runs": 10}


@pytest.fixture
def records(store_folder: Path) -> list[Record]:
    return run(LENET5, rows=["dense"], seeds=[0, 1], overrides=["budgets.smoke.train=1"])


def test_a_measurement_of_its_own_lies_beside_the_run(records: list[Record], store_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.Tensor] = []
    monkeypatch.setattr("espalier.models.LeNet5.forward", lambda self, images: seen.append(images) or images)
    first = records[0]
    found = espalier.measure_runs(first.name[:-3], num_threads=2, batch_size=4, **FAST)
    one = found[first.name]
    assert (one.num_threads, one.batch_size, one.num_runs, one.checkpoint, one.weights) == (2, 4, 10, first.checkpoint, "trained")
    assert {tuple(images.shape) for images in seen} == {(4, 1, 28, 28)}
    filed = list(Store(store_folder).measurements(first.name))
    assert one in filed
    assert len(filed) == 2
    assert Store(store_folder).find(first.name) == first


def test_the_weights_are_the_trained_ones(records: list[Record], store_folder: Path) -> None:
    from espalier.measuring import trained_model
    from espalier.steps import State

    model = trained_model(records[1], Store(store_folder))
    key = records[1].steps["train"]
    (folder,) = store_folder.glob(f".steps/{key[:16]}-*")
    kept = State.load(folder).weights
    assert all(torch.equal(weight, kept[name]) for name, weight in model.state_dict().items())
    assert not model.training


def test_the_rewrites_of_a_checkpoint_are_done_again(store_folder: Path) -> None:
    quick = [f"budgets.smoke.{step}=1" for step in ("train", "admm", "retrain")]
    (record,) = run(
        LENET5,
        rows=["admm-70x"],
        overrides=["recipe=one_shot_folded", "model.batch_norm=true", "constraint.rate_file=null", "rate=4", *quick],
    )
    from espalier.measuring import trained_model

    assert isinstance(trained_model(record, Store(store_folder)).bn1, torch.nn.Identity)
    assert record.name in espalier.measure_runs(record.name, **FAST)


def test_several_runs_by_glob_or_beginning_with_a_bar(records: list[Record]) -> None:
    console = Console(file=io.StringIO(), width=120, force_terminal=True)
    names = [record.name for record in records]
    assert list(espalier.measure_runs(f"{LENET5}/*/smoke/*", console=console, **FAST)) == names
    assert "2/2" in console.file.getvalue()  # type: ignore[attr-defined]
    assert list(espalier.measure_runs([names[1], f"{LENET5}/dense"], **FAST)) == [names[1], names[0]]


def test_a_record_without_its_input_shape_reads_the_data(records: list[Record], store_folder: Path) -> None:
    path = store_folder / records[0].name / "record.json"
    path.write_text(records[0].model_copy(update={"input_shape": None}).model_dump_json())
    assert espalier.measure_runs(records[0].name, **FAST)[records[0].name].metrics["latency_ms_p50"]


def test_unknown_names_have_the_nearest(records: list[Record]) -> None:
    with pytest.raises(ValueError, match=f"did you mean '{records[0].name}'"):
        espalier.measure_runs(records[0].name.replace("dense", "denes"))
    with pytest.raises(ValueError, match="did you mean 'cpu'"):
        espalier.measure_runs(records[0].name, frame="cpx")


def test_a_checkpoint_that_is_not_the_records_is_never_measured(records: list[Record], store_folder: Path) -> None:
    first, second = (store_folder / record.name / "model.safetensors" for record in records)
    content = first.read_bytes()
    first.write_bytes(second.read_bytes())
    with pytest.raises(ValueError, match=r"model\.safetensors has the digest .* its record says .*espalier run"):
        espalier.measure_runs(records[0].name, **FAST)
    first.write_bytes(content[:1000])
    with pytest.raises(ValueError, match=r"model\.safetensors cannot be read .*espalier run"):
        espalier.measure_runs(records[0].name, **FAST)
    first.unlink()
    with pytest.raises(ValueError, match=r"model\.safetensors is missing; .*espalier run"):
        espalier.measure_runs(records[0].name, **FAST)
    assert len(list(Store(store_folder).measurements(records[0].name))) == 1
