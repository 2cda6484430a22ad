"""Records: damage named; identity by what can change a result."""

from pathlib import Path

import pytest

from espalier.composing import SCALES, composed, identity_of, register_rows, resolved, step_keys
from espalier.record import digest, read_record
from espalier.stepping import assigner, model_of
from espalier.tables.published import table

TABLES = ("progressive-admm/lenet5", "progressive-admm/lenet5_claims")
ROWS = [(name, row, scale) for name in TABLES for row in table(name).runnable for scale in SCALES]


def config(row: str, *overrides: str, name: str = TABLES[0], scale: str = "smoke") -> dict:
    register_rows(name, scale)
    return resolved(composed(name, [f"row={row}", f"scale={scale}", *overrides]))


@pytest.mark.parametrize(("name", "row", "scale"), ROWS, ids=["/".join(entry) for entry in ROWS])
def test_every_row_composes_and_its_sets_fit_the_model(name: str, row: str, scale: str) -> None:
    settings = config(row, name=name, scale=scale)
    assert settings["row"] == row
    model = model_of(settings)
    for step in settings["recipe"]["steps"].values():
        if "constraint" in step:
            assert assigner(step["constraint"])(model).targets


def test_only_what_can_change_a_result_names_a_run() -> None:
    plain = identity_of(config("dense", scale="desk"), "fingerprint")
    moved = identity_of(config("dense", "data.root=elsewhere", "trainer.accelerator=cpu", "frame.num_runs=3", scale="desk"), "fingerprint")
    changed = [
        identity_of(config("dense", override, scale="desk"), "fingerprint")
        for override in (
            "seed=1",
            "data.batch_size=32",
            "model.width=0.5",
            "trainer.gradient_clip_val=1.0",
            "optimizers.train.lr=0.01",
            "bn_images=0",
        )
    ]
    assert digest(moved) == digest(plain)
    assert len({digest(identity) for identity in [plain, *changed]}) == 7


def test_rows_share_the_steps_they_have_in_common() -> None:
    keys = {row: step_keys(identity_of(config(row), "fingerprint")) for row in ("dense", "admm-70x", "magnitude-70x", "progressive-246x")}
    assert len({key["train"] for key in keys.values()}) == 1
    assert keys["admm-70x"]["constrain"] == keys["progressive-246x"]["constrain_1"]
    assert keys["admm-70x"]["retrain"] == keys["progressive-246x"]["retrain_1"]
    assert keys["admm-70x"]["retrain"] != keys["magnitude-70x"]["retrain"]


def test_a_method_setting_does_not_change_a_step_that_has_no_method() -> None:
    plain, other = (step_keys(identity_of(config("admm-70x", *words), "fingerprint")) for words in ([], ["method.rho.start=0.5"]))
    assert plain["train"] == other["train"]
    assert plain["constrain"] != other["constrain"]


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "Invalid JSON"), ('{"paper": 3}', "paper"), ('{"unknown": 1}', "record.json is no record")],
    ids=["no JSON", "wrong type", "unknown key"],
)
def test_a_malformed_record_is_named_with_its_key(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "record.json").write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        read_record(tmp_path / "record.json")
    assert "record.json" in str(caught.value)


def test_an_optimizer_key_at_pytorchs_own_value_changes_no_identity() -> None:
    left_out, decay = "~optimizers.train.weight_decay", "optimizers.train.weight_decay="
    plain, same, other = (identity_of(config("dense", word), "fingerprint") for word in (left_out, f"{decay}0.0", f"{decay}0.1"))
    assert same == plain
    assert other != plain
    adamw = "optimizers.train._target_=torch.optim.AdamW"  # whose own weight decay is 0.01
    own, none = (identity_of(config("dense", adamw, word), "fingerprint") for word in (left_out, f"{decay}0.0"))
    assert own != none
