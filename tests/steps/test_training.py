"""The steps that train: what they record and refuse."""

from contextlib import nullcontext
from pathlib import Path

import pytest
from surroundings import context, network, pruned, sparse

from espalier.constraints import FILTER, Assignment, Sparse, Target
from espalier.metrics import unknown
from espalier.steps import State
from espalier.steps.training import meets_rate

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


def test_a_rate_that_an_earlier_support_makes_impossible_stops_before_training(tmp_path: Path) -> None:
    narrow = pruned(context(tmp_path / "first"), rate=24.6)
    with pytest.raises(ValueError, match=r"step 'second': 0\.weight would keep 2 of 54 groups .* rate 7 asks for 8,.* at least 27 "):
        pruned(context(tmp_path / "second", name="second"), rate=7.0, epochs=2, state=narrow)
    assert not (tmp_path / "second" / "last.ckpt").exists()


@pytest.mark.parametrize(
    ("shortage", "rate", "message"),
    [(1, 86.4, None), (2, 86.4, "would keep 8 of 864 .* asks for 10"), (2, 3.0, None), (3, 3.0, "keep 285 of 864 .* asks for 288")],
    ids=["one group", "two groups of ten", "under 1 %", "over 1 %"],
)
def test_a_count_may_miss_by_one_group_or_one_percent(tmp_path: Path, shortage: int, rate: float, message: str | None) -> None:
    asked = sparse(network(), rate=rate)
    frozen = asked.freeze(asked.read(network()))
    mask = frozen.parts[1][1].masks[Target("4.weight")]  # type: ignore[attr-defined]
    mask.view(-1)[mask.flatten().nonzero().flatten()[:shortage]] = False
    with nullcontext() if message is None else pytest.raises(ValueError, match=message):
        meets_rate(frozen, asked, context(tmp_path))


def test_whole_groups_are_counted(tmp_path: Path) -> None:
    model = network()
    asked = sparse(model, rate=2.0, structure=FILTER)
    narrow = Assignment([((Target("0.weight"),), Sparse(FILTER, 6.0).freeze(Assignment([asked.parts[0]]).read(model)))])
    inside = asked.within(narrow)
    with pytest.raises(ValueError, match=r"0\.weight would keep 1 of 6 groups \(filter\) where rate 2 asks for 3"):
        meets_rate(inside.freeze(inside.read(model)), asked, context(tmp_path))


def same_weights(first: State, second: State) -> bool:
    return all(value.equal(second.weights[name]) for name, value in first.weights.items())
