"""The steps that train: what they record and refuse."""

from pathlib import Path

import pytest
from surroundings import context, pruned

from espalier.metrics import unknown
from espalier.steps import State

RECALIBRATED = "hard/top1_pct_bn_recalibrated"


def test_networks_with_batch_norm_record_hard_accuracy_with_and_without_recalibration(tmp_path: Path) -> None:
    state = pruned(context(tmp_path, batch_norm=True, bn_images=64), epochs=4)
    assert {"hard/top1_pct", RECALIBRATED} <= state.metrics.keys()
    assert [epoch for epoch, _ in state.series[RECALIBRATED]] == [epoch for epoch, _ in state.series["hard/top1_pct"]] == [2, 4]
    assert state.series[RECALIBRATED][-1][1] == state.metrics[RECALIBRATED]
    assert unknown(state.metrics) == []


def test_taking_the_figure_changes_no_weight(tmp_path: Path) -> None:
    taken = pruned(context(tmp_path / "taken", batch_norm=True, bn_images=64), epochs=4)
    plain = pruned(context(tmp_path / "plain", batch_norm=True), epochs=4)
    assert RECALIBRATED not in plain.metrics
    assert same_weights(taken, plain)


def test_networks_without_batch_norm_record_nothing_more(tmp_path: Path) -> None:
    state = pruned(context(tmp_path, bn_images=64), epochs=2)
    assert RECALIBRATED not in {**state.metrics, **state.series}


@pytest.mark.parametrize("bn_images", [-1, 1])
def test_too_few_images_are_refused_before_any_training(tmp_path: Path, bn_images: int) -> None:
    with pytest.raises(ValueError, match=rf"bn_images={bn_images}.*0 switches"):
        context(tmp_path, bn_images=bn_images)


def same_weights(first: State, second: State) -> bool:
    return all(value.equal(second.weights[name]) for name, value in first.weights.items())
