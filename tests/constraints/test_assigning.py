from collections.abc import Callable
from functools import partial

import pytest
from torch import nn

from espalier.constraints import (
    BLOCK_PUNCHED,
    CHANNEL,
    FILTER,
    NM,
    UNSTRUCTURED,
    Assignment,
    BalancedKernels,
    Binary,
    Budget,
    Constraint,
    FilterColumn,
    GlobalSparse,
    PatternKernels,
    Patterns,
    Rated,
    Sparse,
    Structure,
    Target,
    UniformLevels,
    assign,
    prunable,
)

sparse = partial(Sparse, UNSTRUCTURED)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 4, 3)
        self.bn1 = nn.BatchNorm2d(4)
        self.conv2 = nn.Conv2d(4, 8, 3)
        self.fc = nn.Linear(8, 10)


def rates_of(assignment: Assignment) -> dict[str, float]:
    found = {}
    for targets, constraint in assignment.parts:
        assert isinstance(constraint, Sparse)
        found |= {str(target): constraint.rate for target in targets}
    return found


def test_rate_applies_to_those_not_named_and_a_full_name_beats_a_glob() -> None:
    assignment = assign(Net(), sparse, rate=2, rates={"conv*": 4, "conv2": 8})
    assert rates_of(assignment) == {"conv1.weight": 4, "conv2.weight": 8, "fc.weight": 2}
    assert rates_of(assign(Net(), sparse, rates={"conv*": 4})) == {"conv1.weight": 4, "conv2.weight": 4}  # the others are free
    assert rates_of(assign(Net(), sparse, rate=2, skip=["conv1", "fc.weight"])) == {"conv2.weight": 2}
    assert rates_of(assign(Net(), sparse, rate=2, include=["conv*"])) == {"conv1.weight": 2, "conv2.weight": 2}


@pytest.mark.parametrize("kept", [1, 7, 100, 287, 288])
def test_kept_counts_come_out_exactly(kept: int) -> None:
    model = Net()
    assignment = assign(model, sparse, kept={"conv2": kept})
    assert sum(int(mask.sum()) for mask in assignment.freeze(assignment.read(model)).parts[0][1].masks.values()) == kept


def test_kept_weights_round_to_whole_groups() -> None:
    model = Net()
    assignment = assign(model, partial(Sparse, FILTER), kept={"conv2": 80})  # filters of 36 weights
    assert int((assignment.project(assignment.read(model))[assignment.targets[0]] != 0).sum()) == 72


def test_level_sets_take_no_rate() -> None:
    assignment = assign(Net(), partial(UniformLevels, bits=2, zero=False))
    assert [str(target) for target in assignment.targets] == ["conv1.weight", "conv2.weight", "fc.weight"]
    with pytest.raises(ValueError, match=r"UniformLevels takes no rate, but rate=4, .* are given; set them to null"):
        assign(Net(), partial(UniformLevels, bits=2, zero=False), rate=4)


@pytest.mark.parametrize(
    ("make", "knobs", "message"),
    [
        (sparse, {"rate": 2, "include": ["cnv1"]}, r"constraint\.include: 'cnv1' matches no .* layer; nearest: conv1"),
        (sparse, {"rate": 2, "skip": ["bn1"]}, r"constraint\.skip: 'bn1' matches no linear, convolution or recurrent layer"),
        (sparse, {"rates": {"conv9": 2}}, r"constraint\.rates: 'conv9' matches no .* nearest: conv"),
        (sparse, {"kept": {"conv9": 2}}, r"constraint\.kept: 'conv9' matches no"),
        (sparse, {"rates": {"conv*": 2, "*1": 4}}, r"'\*1' gives conv1\.weight a second rate after constraint\.rates: 'conv\*'"),
        (sparse, {"rates": {"conv1": 2}, "kept": {"conv1": 4}}, r"constraint\.kept: 'conv1' gives conv1\.weight a second rate"),
        (sparse, {"rates": {"conv1": 2}, "skip": ["conv1"]}, r"gives conv1\.weight a rate, but constraint\.include and skip leave it out"),
        (sparse, {"kept": {"conv1": 0}}, r"conv1\.weight has 36 weights, so 0 cannot be kept; give 1 to 36"),
        (sparse, {"kept": {"conv1": 37}}, r"so 37 cannot be kept"),
        (sparse, {"rate": 0.25}, r"conv1\.weight: rate=0\.25 is not a pruning rate"),
        (sparse, {}, r"Sparse needs a rate; give constraint\.rate"),
        (sparse, {"rate": 2, "skip": ["*"]}, r"no layer is left to constrain: .*the model has conv1\.weight, conv2\.weight, fc\.weight"),
        (Binary, {"kept": {"conv1": 4}}, r"Binary takes no rate"),
        (partial(Sparse, CHANNEL), {"rate": 2}, r"conv1\.weight: shape \(4, 1, 3, 3\) is a single group of .*constraint\.skip"),
    ],
)  # fmt: skip
def test_errors_name_value_rule_and_way_out(make: Callable[..., Constraint], knobs: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        assign(Net(), make, **knobs)  # type: ignore[arg-type]


def test_a_structure_that_does_not_fit_names_layer_and_way_out() -> None:
    kernels = Structure("kernel", "f c kh kw -> (f c) (kh kw)", {}, "a conv2d structure")
    with pytest.raises(ValueError, match=r"fc\.weight: kernel groups weights as .*shape \(10, 8\).*constraint\.skip"):
        assign(Net(), partial(Sparse, kernels), rate=2)


def test_nearest_fit_is_named() -> None:
    with pytest.raises(
        ValueError, match=r"fc\.weight: mine groups weights as .*\(10, 8\) has no such axes.*a structure that fits; nearest: \w+"
    ):
        assign(Net(), partial(Sparse, Structure("mine", "f c h w -> (f c) (h w)")), rate=2, include=["fc"])


def test_a_set_that_does_not_fit_names_layer_shape_and_way_out() -> None:
    with pytest.raises(
        ValueError, match=r"fc\.weight: pattern library 'std8' is for 3x3 kernels, not .*shape \(10, 8\); .*constraint\.skip"
    ):
        assign(Net(), Patterns)
    with pytest.raises(
        ValueError, match=r"conv1\.weight: 2:4 runs along input channels, of which .*\(4, 1, 3, 3\) has 1; .*constraint\.skip"
    ):
        assign(Net(), NM)
    with pytest.raises(ValueError, match=r"conv1\.weight: a filter of shape \(4, 1, 3, 3\) has a single kernel.*constraint\.skip"):
        assign(Net(), BalancedKernels, rate=2)


def test_sparsity_says_the_rate_the_other_way() -> None:
    assert rates_of(assign(Net(), sparse, sparsity=0.9)) == dict.fromkeys(prunable(Net()), 10.0)
    assert rates_of(assign(Net(), sparse, sparsity=0)) == dict.fromkeys(prunable(Net()), 1.0)
    with pytest.raises(ValueError, match=r"rate=10 and sparsity=0\.9 are both given; they say the same, give one"):
        assign(Net(), sparse, rate=10, sparsity=0.9)
    for share in (1, 1.5, -0.1, 90):
        with pytest.raises(ValueError, match=r"is not a share of zeros; it lies from 0 to below 1 \(0\.9 is rate 10\)"):
            assign(Net(), sparse, sparsity=share)


def test_a_rate_that_would_empty_a_layer_is_refused() -> None:
    assert rates_of(assign(Net(), partial(Sparse, FILTER), rate=8, include=["conv1"])) == {"conv1.weight": 8}  # half a filter rounds up
    with pytest.raises(ValueError, match=r"conv1\.weight: rate=9 would empty .*\(4, 1, 3, 3\); the largest that keeps a group is 8"):
        assign(Net(), partial(Sparse, FILTER), rate=9)
    with pytest.raises(ValueError, match=r"conv2\.weight: rate=288 would empty"):
        assign(Net(), partial(Sparse, FILTER), kept={"conv2": 1})
    for make in (BalancedKernels, partial(FilterColumn, filters=1.0), partial(PatternKernels, balanced=True)):
        with pytest.raises(ValueError, match=r"conv2\.weight: rate=17 would empty"):
            assign(Net(), make, rate=17, include=["conv2"])


COSTS = {"conv1": 100.0, "conv2": 25.0, "fc": 1.0}


def kept_cost(model: nn.Module, assignment: Assignment, costs: dict[str, float]) -> tuple[float, float, float]:
    """Return the cost of the kept weights, of the dense model, and of one group in each constrained layer."""
    masks = {target: mask for _, frozen in assignment.freeze(assignment.read(model)).parts for target, mask in frozen.masks.items()}
    total = sum(costs[name.removesuffix(".weight")] * model.get_parameter(name).numel() for name in prunable(model))
    dropped = sum(costs[target.parameter.removesuffix(".weight")] * int((~mask).sum()) for target, mask in masks.items())
    step = 0.0
    for (target,), constraint in assignment.parts:
        assert isinstance(constraint, Sparse)
        shape = masks[target].shape
        step += costs[target.parameter.removesuffix(".weight")] * masks[target].numel() / constraint.count(shape)[1]
    return total - dropped, total, step


@pytest.mark.parametrize("grouping", [UNSTRUCTURED, FILTER], ids=lambda grouping: grouping.name)
@pytest.mark.parametrize("rate", [1.0, 1.5, 2.0, 2.3])
@pytest.mark.parametrize(("rate_of", "costs"), [("weights", None), ("macs", COSTS), ("bytes", None), ("bytes", COSTS)])
@pytest.mark.parametrize("skip", [(), ("first_conv",), ("fc",)], ids=str)
def test_one_layer_rate_brings_the_whole_model_to_the_rate(
    grouping: Structure, rate: float, rate_of: str, costs: dict[str, float] | None, skip: tuple[str, ...]
) -> None:
    model = Net()
    assignment = assign(model, partial(Sparse, grouping), rate=rate, rate_of=rate_of, costs=costs, skip=skip)  # type: ignore[arg-type]
    kept, total, step = kept_cost(model, assignment, costs or dict.fromkeys(COSTS, 1.0))
    assert abs(kept - total / rate) <= step
    assert len(set(rates_of(assignment).values())) == 1


def test_a_layer_with_a_rate_of_its_own_counts_towards_the_whole() -> None:
    model = Net()
    assignment = assign(model, sparse, rate=2.2, rate_of="weights", rates={"conv2": 2})
    rates = rates_of(assignment)
    assert rates["conv2.weight"] == 2
    assert rates["conv1.weight"] == rates["fc.weight"]
    with pytest.raises(
        ValueError, match=r"rate=1\.1 for the whole model cannot be had: the set keeps no more even at layer rate 1; .* is 1\.31"
    ):
        assign(model, sparse, rate=1.1, rate_of="weights", rates={"conv2": 1.5})
    with pytest.raises(ValueError, match="every layer has a rate of its own"):
        assign(model, sparse, rate=4, rate_of="weights", rates={"*": 2})


def test_rates_that_cannot_be_had_say_which_can() -> None:
    model = Net()  # 36 + 288 + 80 weights
    with pytest.raises(ValueError, match=r"rate=20 for the whole model cannot be had: dense layers.*the largest possible is 10\.6316"):
        assign(model, sparse, rate=20, rate_of="weights", skip=["conv1"])  # 404 / (36 + 2)
    reached = assign(model, sparse, rate=404 / 39, rate_of="weights", skip=["conv1"])
    assert kept_cost(model, reached, dict.fromkeys(COSTS, 1.0))[0] == 39
    with pytest.raises(ValueError, match=r"the smallest possible is 1\.65"):  # patterns alone take 5 of 9
        assign(model, partial(PatternKernels, balanced=True), rate=1.2, rate_of="weights", include=["conv2"])


def test_patterns_and_kernels_meet_a_rate_in_weights() -> None:
    model = nn.Sequential(nn.Conv2d(8, 16, 3), nn.Conv2d(16, 32, 3))
    assignment = assign(model, PatternKernels, rate=8, rate_of="weights")
    kept = sum(int((weight != 0).sum()) for weight in assignment.project(assignment.read(model)).values())
    assert kept == pytest.approx(16 * 72 * 5 / 8, abs=8)
    constraint = assignment.parts[0][1]
    assert isinstance(constraint, Rated)
    assert constraint.rate == pytest.approx(8 / 2.25, rel=0.02)


def test_errors_of_rate_of() -> None:
    with pytest.raises(ValueError, match=r"constraint\.rate_of=flops: a rate counts groups, weights, macs, bytes"):
        assign(Net(), sparse, rate=2, rate_of="flops")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"rate_of=macs needs costs, the macs of one weight by layer; conv2\.weight, fc\.weight lack one"):
        assign(Net(), sparse, rate=2, rate_of="macs", costs={"conv1": 2})
    with pytest.raises(ValueError, match=r"constraint\.costs: 'conv9' matches no"):
        assign(Net(), sparse, rate=2, rate_of="macs", costs={"conv9": 2})
    with pytest.raises(ValueError, match=r"rate_of=weights speaks of the rate of the whole model; give constraint\.rate or sparsity"):
        assign(Net(), sparse, rates={"conv1": 2}, rate_of="weights")
    with pytest.raises(ValueError, match=r"conv1\.weight: shape \(4, 1, 3, 3\) is a single group; name the layer in constraint\.skip"):
        assign(Net(), partial(Sparse, CHANNEL), rate=2, rate_of="weights")


def test_a_set_over_all_layers_is_one_part() -> None:
    model = Net()
    assignment = assign(model, partial(GlobalSparse, UNSTRUCTURED), sparsity=0.75, skip=["first_conv"])
    assert [[str(target) for target in targets] for targets, _ in assignment.parts] == [["conv2.weight", "fc.weight"]]
    kept = sum(int((weight != 0).sum()) for weight in assignment.project(assignment.read(model)).values())
    assert kept == (288 + 80) / 4
    for knobs in ({"rate": 2, "rates": {"fc": 2}}, {"kept": {"fc": 2}}):
        with pytest.raises(
            ValueError, match=r"GlobalSparse spans all its layers with one rate; give constraint.rate or sparsity, and neither"
        ):
            assign(model, partial(GlobalSparse, UNSTRUCTURED), **knobs)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"GlobalSparse counts groups, not weights; set constraint.rate_of to groups or take Budget"):
        assign(model, partial(GlobalSparse, UNSTRUCTURED), rate=2, rate_of="weights")
    with pytest.raises(
        ValueError, match=r"rate=20 keeps 1\.1 of 22 groups 'filter' in 3 layers and would empty some; the largest is 7\.33"
    ):
        assign(model, partial(GlobalSparse, FILTER), rate=20)


@pytest.mark.parametrize("skip", [(), ("first_conv",)], ids=str)
def test_a_budget_counts_the_layers_left_out_as_dense(skip: tuple[str, ...]) -> None:
    model = Net()
    assignment = assign(model, partial(Budget, FILTER), rate=1.5, rate_of="macs", costs=COSTS, skip=skip)
    ((_, constraint),) = assignment.parts
    assert isinstance(constraint, Budget)
    masks = assignment.freeze(assignment.read(model)).parts[0][1].masks
    total = 36 * 100 + 288 * 25 + 80
    dropped = sum(COSTS[target.parameter.removesuffix(".weight")] * int((~mask).sum()) for target, mask in masks.items())
    largest_group = max(9 * 100, 36 * 25)
    assert total / 1.5 - largest_group <= total - dropped <= total / 1.5
    with pytest.raises(ValueError, match=r"Budget spends weights, macs or bytes; set constraint\.rate_of to one of them"):
        assign(model, partial(Budget, FILTER), rate=2)
    with pytest.raises(
        ValueError, match=r"rate=4 of macs cannot be had: layers left dense cost 3600 of 10880; the largest possible is below 3\.02"
    ):
        assign(model, partial(Budget, FILTER), rate=4, rate_of="macs", costs=COSTS, skip=["first_conv"])
    with pytest.raises(ValueError, match=r"each of 3 layers keeps a group 'filter', 1808 in all; the largest rate is 6\.017"):
        assign(model, partial(Budget, FILTER), rate=7, rate_of="macs", costs=COSTS)


@pytest.mark.parametrize(("layer", "num_gates"), [(nn.GRU(3, 4), 3), (nn.LSTM(3, 4), 4), (nn.LSTM(3, 4, proj_size=2), 4)], ids=str)
def test_gates_are_pruned_each_for_itself(layer: nn.Module, num_gates: int) -> None:
    model = nn.Sequential(layer, nn.Linear(4, 2))
    whole = assign(model, sparse, rate=2)
    assignment = assign(model, sparse, rate=2, gates=True)
    gated = [name for name in prunable(model) if "_ih_" in name or "_hh_" in name]
    assert len(assignment.parts) == len(whole.parts) + len(gated) * (num_gates - 1)
    for name in gated:
        parts = [target for target in assignment.targets if target.parameter == name]
        assert [(target.axis, target.start, target.stop) for target in parts] == [(0, 4 * g, 4 * g + 4) for g in range(num_gates)]
    weights = assignment.read(model)
    assert all(int((part != 0).sum()) == halve(weights[target].numel()) for target, part in assignment.project(weights).items())
    frozen = assignment.freeze(weights)
    frozen.write(model, frozen.project(weights))
    assert frozen.outside(assignment.read(model)) == 0
    counted = assign(model, sparse, rate=4, rate_of="weights", gates=True)
    assert counted.targets == assignment.targets


def halve(size: int) -> int:
    return (size + 1) // 2


def test_gates_without_recurrent_layers_are_refused() -> None:
    with pytest.raises(ValueError, match=r"constraint\.gates is on, but none of conv1\.weight, .* belongs to a GRU or LSTM"):
        assign(Net(), sparse, rate=2, gates=True)


def test_blocks_resize_the_structure() -> None:
    assignment = assign(Net(), partial(Sparse, BLOCK_PUNCHED), rate=2, blocks=[2, 1], include=["conv2"])
    constraint = assignment.parts[0][1]
    assert isinstance(constraint, Sparse)
    assert constraint.label == "block_punched 2x1"
    with pytest.raises(ValueError, match=r"blocks=\[2\] do not fit 'block_punched'; it takes 2 sizes of 1 or more, by default \[8, 4\]"):
        assign(Net(), partial(Sparse, BLOCK_PUNCHED), rate=2, blocks=[2])
    with pytest.raises(ValueError, match=r"blocks=\[2\] do not fit 'filter'; it takes 0 sizes"):
        assign(Net(), partial(Sparse, structure=FILTER), rate=2, blocks=[2])
    with pytest.raises(ValueError, match=r"NM has no structure, so that blocks=\[2\] size nothing; set constraint\.blocks to null"):
        assign(Net(), NM, blocks=[2])


def test_a_later_step_goes_inside_what_a_set_over_all_layers_froze_and_the_other_way_round() -> None:
    model = Net()
    together, apart = assign(model, partial(GlobalSparse, UNSTRUCTURED), rate=4), assign(model, sparse, rate=2)
    for first, second in ((apart, together), (together, assign(model, sparse, rate=8))):
        frozen = first.freeze(first.read(model))
        inside = second.within(frozen)
        weights = inside.read(model)
        assert frozen.outside(inside.project(weights)) == 0
        later = inside.freeze(weights)
        assert frozen.outside(later.project(weights)) == 0
        assert frozen.merged(later).targets == later.targets
    assert Target("fc.weight") in together.targets
