"""The steps of P-RM: lossless where they say so, held through retraining, cut states that train, save and load."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from surroundings import SGD, TRAINING, context, data, pruned
from torch import nn

from espalier.constraints import COLUMN, FILTER, UNSTRUCTURED, Assignment, Pinned, Sparse, Support, Target, assign
from espalier.figures import final_figures
from espalier.methods import Magnitude, Purification
from espalier.packing import pack, unpack
from espalier.steps import Context, State, constrain, purify, retrain, shrink, silence, unused_paths
from espalier.steps.paths import held_in
from espalier.tasks import constant

PURIFICATION = Purification(emptiness=0.3, score="l2sum", quantile=0.5, threshold=None, column=0.0, filter=0.0, by="both")


def two_convolutions() -> nn.Module:
    torch.manual_seed(0)
    first = [nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU()]
    second = [nn.Conv2d(6, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*first, *second, nn.Flatten(), nn.Linear(8 * 16, 4))


def surroundings(folder: Path, **changes: Any) -> Context:
    return context(folder, model=two_convolutions, **changes)


def emptied(folder: Path) -> State:
    """Return a trained state with half of its columns, then half of its filters gone."""
    state = State()
    for structure, chosen in ((COLUMN, ("3", "8")), (FILTER, ("0", "3"))):
        constraint = partial(_assigned, structure=structure, include=chosen)
        place = surroundings(folder / structure.name)
        state = constrain(state, place, epochs=1, **TRAINING, method=Magnitude, constraint=constraint, freeze=True)
    return state


def _assigned(model: nn.Module, *, structure: Any, include: tuple[str, ...]) -> Assignment:
    return assign(model, partial(Sparse, structure), rate=2.0, include=include)


def test_paths_go_without_a_change_and_stay_gone_while_retraining(tmp_path: Path) -> None:
    place = surroundings(tmp_path)
    quiet = silence(emptied(tmp_path), place)
    before = quiet.rebuilt(two_convolutions).eval()
    after = unused_paths(quiet, place)
    assert after.metrics["paths/logits_change_max"] < 1e-4
    assert after.metrics["paths/empty_groups"] >= 7
    assert after.metrics["paths/sweeps"] == 2
    images = next(iter(data().val_loader()))[0]
    with torch.no_grad():
        torch.testing.assert_close(after.rebuilt(two_convolutions).eval()(images), before(images))
    assert sum(int(w.count_nonzero()) for w in after.weights.values()) < sum(int(w.count_nonzero()) for w in quiet.weights.values())
    for optimizer in (SGD, partial(torch.optim.AdamW, lr=0.05, weight_decay=0.1)):
        trained = retrain(after, surroundings(tmp_path / f"{optimizer.func.__name__}"), epochs=2, optimizer=optimizer, schedule=constant)
        assert trained.metrics["weights_outside_set"] == 0
        for name, weight in after.weights.items():
            if name.endswith(("weight", "bias")) and name != "8.bias":
                assert not trained.weights[name][weight == 0].any(), name


def test_silenced_constants_stay_silent(tmp_path: Path) -> None:
    place = surroundings(tmp_path)
    state = emptied(tmp_path)
    quiet = silence(state, place)
    empty = ~state.weights["0.weight"].flatten(1).any(1)
    assert int(empty.sum()) == 3
    trained = retrain(quiet, surroundings(tmp_path / "retrain"), epochs=2, **TRAINING)
    for name in ("0.bias", "1.weight", "1.bias"):
        assert state.weights[name][empty].any()
        assert not quiet.weights[name][empty].any()
        assert not trained.weights[name][empty].any()
        assert trained.weights[name][~empty].all()


def test_purification_and_removal_reach_a_fixed_point_within_the_frozen_sets(tmp_path: Path) -> None:
    place = surroundings(tmp_path)
    state = unused_paths(silence(emptied(tmp_path), place), place)
    pure = purify(state, place, purification=PURIFICATION, rounds=10)
    assert 1 < pure.metrics["paths/rounds"] <= 5
    assert 2 <= pure.metrics["paths/sweeps"] <= 5
    assert "purified/disputed" not in pure.metrics
    assert pure.metrics["purified/channels"] >= 1
    assert pure.metrics["hard/top1_pct"] == pure.metrics["val/top1_pct"]
    again = unused_paths(pure, place)
    assert again.metrics["paths/sweeps"] == 1
    assert pure.frozen is not None
    assert pure.frozen.outside(pure.frozen.read(pure.rebuilt(two_convolutions))) == 0
    once = purify(state, place, purification=PURIFICATION, rounds=0)
    assert once.metrics["paths/rounds"] == 1
    assert once.metrics["paths/sweeps"] == state.metrics["paths/sweeps"]  # purification alone removes no paths
    assert int(once.weights["3.weight"].count_nonzero()) < int(state.weights["3.weight"].count_nonzero())
    assert torch.equal(once.weights["0.weight"], state.weights["0.weight"])  # its channel is the image


def test_conditions_that_disagree_are_counted(tmp_path: Path) -> None:
    model = two_convolutions()
    weight = model.get_parameter("3.weight").detach()
    weight[:, 3:].flatten(2)[:, :, 1:].zero_()  # one column of nine is left
    weight[:, 5].mul_(0.01)  # the only channel that is also weak
    weight[:, 0].mul_(1e-6)  # the weakest, and full: 72 weights where 8 are asked
    state = State(weights={name: value.detach().clone() for name, value in model.state_dict().items()})
    rules = {by: replace(PURIFICATION, emptiness=0.8, quantile=0.3, by=by) for by in ("both", "emptiness", "score")}
    found = {by: purify(state, surroundings(tmp_path), purification=rule, rounds=0).metrics for by, rule in rules.items()}
    assert "purified/disputed" not in found["both"]
    assert found["emptiness"]["purified/disputed"] == 2  # channel 3 goes, channel 5 stays
    assert found["score"]["purified/disputed"] == 1  # channel 5 stays


def test_a_network_without_channels_of_several_columns_is_refused(tmp_path: Path) -> None:
    def perceptron() -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 4))

    with pytest.raises(ValueError, match=r"step 'step': Sequential has no layer .* several columns .* take unused_paths alone"):
        purify(State(), context(tmp_path, model=perceptron), purification=PURIFICATION, rounds=1)


def test_a_cut_state_computes_the_same_trains_packs_and_loads(tmp_path: Path) -> None:
    place = surroundings(tmp_path)
    state = unused_paths(silence(emptied(tmp_path), place), place)
    small = shrink(state, place, batch_size=8, num_runs=3)
    assert small.metrics["shrunk/logits_change_max"] < 1e-4
    assert small.metrics["shrunk/speedup"] > 0
    assert small.weights["3.weight"].shape[:2] == (4, 3)
    assert small.weights["8.weight"].shape == (4, 4 * 16)
    small.save(tmp_path / "state")
    loaded = State.load(tmp_path / "state")
    images = next(iter(data().val_loader()))[0]
    with torch.no_grad():
        logits = [one.rebuilt(two_convolutions).eval()(images) for one in (state, small, loaded)]
    torch.testing.assert_close(logits[0], logits[1], atol=1e-4, rtol=1e-4)
    assert torch.equal(logits[1], logits[2])
    rates = [
        final_figures(one, one.rebuilt(two_convolutions), data=data(), path=tmp_path / "figures.safetensors", meta={})[0].get("conv_rate")
        for one in (state, small)
    ]
    assert rates[0] is not None
    assert rates[0] > 2
    assert rates[1] is None  # its layers are smaller, the share they keep is of another network
    report = pack(tmp_path / "small.safetensors", small.weights, small.frozen, {"rewrites": small.rewrites})
    assert report.file_bytes < pack(tmp_path / "large.safetensors", state.weights, state.frozen, {}).file_bytes
    weights, sets, meta = unpack(tmp_path / "small.safetensors")
    assert all(torch.equal(weights[name], value) for name, value in small.weights.items())
    assert sets is not None
    assert meta["rewrites"] == small.rewrites
    trained = retrain(small, surroundings(tmp_path / "retrain"), epochs=1, **TRAINING)
    assert trained.metrics["weights_outside_set"] == 0


def test_a_network_that_was_not_pruned_stays_as_it_is(tmp_path: Path) -> None:
    place = surroundings(tmp_path)
    state = pruned(place, rate=1.0)
    assert unused_paths(state, place).metrics["paths/sweeps"] == 1
    small = shrink(state, place, batch_size=8, num_runs=2)
    assert small.rewrites == [{"_target_": "espalier.rewrites.shrink", "sizes": {}}]


def test_levels_are_held_at_zero_and_slices_are_refused() -> None:
    target, mask = Target("fc.weight"), torch.tensor([[True, False], [True, True]])
    level = torch.tensor([[0.5, 0.5], [-0.5, 0.5]])
    held = held_in(Assignment([((target,), Pinned({target: level}, {target: torch.ones(2, 2, dtype=torch.bool)}))]), {"fc.weight": mask})
    assert held is not None
    assert held.project({target: level})[target].tolist() == [[0.5, 0.0], [-0.5, 0.5]]
    masks = Support({target: torch.tensor([[True, True], [False, True]])}, "unstructured")
    both = held_in(Assignment([((target,), masks)]), {"fc.weight": mask})
    assert both is not None
    assert both.project({target: torch.ones(2, 2)})[target].tolist() == [[1.0, 0.0], [0.0, 1.0]]
    part = Target("fc.weight", 0, 0, 1)
    sliced = Assignment([((part,), Sparse(UNSTRUCTURED, 2.0).freeze({part: torch.ones(1, 2)}))])
    with pytest.raises(ValueError, match=r"froze fc\.weight\[0:0:1\], a slice of fc\.weight"):
        held_in(sliced, {"fc.weight": mask})
