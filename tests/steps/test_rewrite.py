"""The rewrite step: folded, saved, loaded, the same outputs; nothing leaves a frozen set."""

from functools import partial
from pathlib import Path

import pytest
import torch
from surroundings import TRAINING, context, network, pruned

import espalier
from espalier.constraints import UniformLevels, assign
from espalier.methods import Magnitude
from espalier.packing import unpack
from espalier.running import run
from espalier.steps import State, constrain, retrain, rewrite

FOLD = {"_target_": "espalier.rewrites.fold_batch_norm", "skip": []}
LENET5 = "progressive-admm/lenet5"
IMAGES = torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(2))


def test_a_folded_state_computes_the_same_and_survives_the_disk(tmp_path: Path) -> None:
    surroundings = context(tmp_path, batch_norm=True)
    before = pruned(surroundings, epochs=2)
    after = rewrite(before, surroundings, rewrites=[FOLD])
    after.save(tmp_path / "state")
    loaded = State.load(tmp_path / "state")
    assert loaded.rewrites == [FOLD]
    models = [state.rebuilt(surroundings.model).eval() for state in (before, after, loaded)]
    with torch.no_grad():
        outputs = [model(IMAGES) for model in models]
    torch.testing.assert_close(outputs[0], outputs[1], rtol=1e-4, atol=1e-5)
    assert torch.equal(outputs[1], outputs[2])
    assert "1.running_mean" not in after.weights


def test_steps_after_a_rewrite_train_the_rewritten_network_in_its_sets(tmp_path: Path) -> None:
    surroundings = context(tmp_path, batch_norm=True)
    folded = rewrite(pruned(surroundings), surroundings, rewrites=[FOLD])
    after = retrain(folded, context(tmp_path / "retrain", batch_norm=True), epochs=1, **TRAINING)
    assert after.rewrites == [FOLD]
    assert after.metrics["weights_outside_set"] == 0
    assert after.weights.keys() == folded.weights.keys()


def test_levels_that_folding_would_scale_are_refused(tmp_path: Path) -> None:
    surroundings = context(tmp_path, batch_norm=True)
    levels = partial(assign, make=partial(UniformLevels, 3, zero=False))
    trained = pruned(surroundings, epochs=1)
    state = constrain(trained, surroundings, epochs=0, **TRAINING, method=Magnitude, constraint=levels, freeze=True)
    with pytest.raises(ValueError, match=r"step 'step': .*fold_batch_norm moves \d+ weights of 0\.weight out of the set"):
        rewrite(state, surroundings, rewrites=[FOLD])


def test_a_row_that_folds_packs_its_rewrites_and_loads_to_the_same_accuracy(store_folder: Path) -> None:
    overrides = [
        "budgets.smoke.train=1",
        "budgets.smoke.admm=1",
        "budgets.smoke.retrain=1",
        "recipe=one_shot_folded",
        "model.batch_norm=true",
    ]
    (record,) = run(LENET5, rows=["admm-70x"], overrides=overrides)
    path = store_folder / record.name / "model.safetensors"
    weights, _, meta = unpack(path)
    assert meta["rewrites"] == [FOLD]
    assert not [name for name in weights if name.startswith("bn")]
    assert record.metrics["weights_nonzero"] == 6050
    assert "hard/top1_pct_bn_recalibrated" in record.metrics
    model = espalier.load(path)
    assert torch.equal(model.get_parameter("conv1.bias"), weights["conv1.bias"])
    assert type(model.get_submodule("bn1")).__name__ == "Identity"


def test_an_own_network_is_rewritten_when_it_is_filled(tmp_path: Path) -> None:
    model = network(batch_norm=True).eval()
    folded = espalier.rewrites.fold_batch_norm(model)
    espalier.save(folded, tmp_path / "folded.safetensors", rewrites=[FOLD])
    loaded = espalier.load(tmp_path / "folded.safetensors", network(batch_norm=True))
    with torch.no_grad():
        assert torch.equal(loaded(IMAGES), folded(IMAGES))


def test_a_checkpoint_with_a_foreign_rewrite_is_not_loaded(tmp_path: Path) -> None:
    espalier.save(network(), tmp_path / "model.safetensors", rewrites=[{"_target_": "os.system", "command": "true"}])
    with pytest.raises(ValueError, match=r"names os\.system; pass trust=True"):
        espalier.load(tmp_path / "model.safetensors", network())
