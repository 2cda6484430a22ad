import io

import pytest
import torch
from torch import nn

from espalier.constraints import UNSTRUCTURED, Assignment, Binary, GlobalSparse, Sparse, Support, Target, UniformLevels, prunable

FIRST, LAST = Target("0.weight"), Target("2.weight")


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4))


def test_the_product_projects_each_part_for_itself() -> None:
    model = network()
    assignment = Assignment([((FIRST,), Sparse(UNSTRUCTURED, 3)), ((LAST,), Binary())])
    weights = assignment.read(model)
    projected = assignment.project(weights)
    assert assignment.targets == (FIRST, LAST)
    assert torch.equal(projected[FIRST], Sparse(UNSTRUCTURED, 3).project({FIRST: weights[FIRST]})[FIRST])
    assert torch.equal(projected[LAST], Binary().project({LAST: weights[LAST]})[LAST])
    assignment.write(model, projected)
    assert assignment.freeze(weights).outside(assignment.read(model)) == 0


def test_progressive_steps_stay_within_what_the_former_froze() -> None:
    model = network()
    both = [(FIRST,), (LAST,)]
    first = Assignment([(targets, Sparse(UNSTRUCTURED, 2)) for targets in both]).freeze({t: t.read(model) for t in (FIRST, LAST)})
    second = Assignment([(targets, Sparse(UNSTRUCTURED, 5)) for targets in both]).within(first)
    weights = second.read(model)
    frozen = second.freeze(weights)
    assert [int(part.masks[targets[0]].sum()) for targets, part in frozen.parts if isinstance(part, Support)] == [6, 4]
    assert first.outside(second.project(weights)) == 0
    quantized = Assignment([((FIRST,), UniformLevels(2, False))]).within(frozen).freeze({FIRST: weights[FIRST]})
    merged = frozen.merged(quantized)
    held = merged.project(weights)
    assert set(merged.targets) == {FIRST, LAST}
    assert frozen.outside(held) == 0
    assert held[FIRST].unique().numel() <= 5


def test_within_nothing_is_the_assignment_itself() -> None:
    assignment = Assignment([((FIRST,), Binary())])
    assert assignment.within(None) is assignment


def test_frozen_round_trip_without_pickle() -> None:
    model = network()
    assignment = Assignment([((FIRST,), Sparse(UNSTRUCTURED, 3)), ((LAST,), Binary())])
    weights = assignment.read(model)
    frozen = assignment.freeze(weights)
    file = io.BytesIO()
    torch.save(frozen.state_dict(), file)
    file.seek(0)
    rebuilt = Assignment.frozen_from_state(torch.load(file, weights_only=True))
    assert rebuilt.targets == frozen.targets
    assert all(torch.equal(weight, rebuilt.project(weights)[target]) for target, weight in frozen.project(weights).items())


def test_state_is_restored_in_place_and_only_for_the_same_targets() -> None:
    saved = Assignment([((FIRST,), Sparse(UNSTRUCTURED, 3))])
    other = Assignment([((FIRST,), Sparse(UNSTRUCTURED, 1))])
    other.load_state_dict(saved.state_dict())
    constraint = other.parts[0][1]
    assert isinstance(constraint, Sparse)
    assert constraint.rate == 3
    with pytest.raises(ValueError, match=r"the checkpoint constrains \[\['0\.weight'\]\], this run \[\['2\.weight'\]\]"):
        Assignment([((LAST,), Sparse(UNSTRUCTURED, 1))]).load_state_dict(saved.state_dict())


def test_errors() -> None:
    with pytest.raises(ValueError, match=r"0\.weight is assigned twice; a weight lies in one set"):
        Assignment([((FIRST,), Binary()), ((FIRST,), Binary())])
    assignment = Assignment([((FIRST,), Binary())])
    with pytest.raises(ValueError, match=r"weights hold 2\.weight, the assignment 0\.weight; give exactly its targets"):
        assignment.project({LAST: torch.zeros(2)})
    with pytest.raises(ValueError, match=r"names 0\.weight, which the model lacks; it has weight, bias"):
        assignment.read(nn.Linear(2, 2))
    with pytest.raises(ValueError, match=r"Binary is not frozen; call freeze\(weights\) first"):
        assignment.outside({FIRST: torch.zeros(2)})
    open_set = Assignment([((FIRST,), Sparse(UNSTRUCTURED, 1))])
    with pytest.raises(ValueError, match=r"Sparse is not frozen"):
        assignment.within(open_set)


def test_a_set_over_two_targets_frozen_only_in_part_is_refused() -> None:
    frozen = Assignment([((FIRST,), Binary())]).freeze({FIRST: torch.randn(5, 6)})
    with pytest.raises(ValueError, match="of which an earlier step froze only a part; give each a set"):
        Assignment([((FIRST, LAST), Binary())]).within(frozen)


def test_prunable_weights() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv1d(2, 4, 3, groups=2), nn.GRU(4, 5), nn.Embedding(3, 4), nn.ConvTranspose2d(2, 3, 2)
    )
    assert prunable(model) == ["0.weight", "2.weight", "3.weight_ih_l0", "3.weight_hh_l0"]
    tied = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    tied[1].weight = tied[0].weight
    assert prunable(tied) == ["0.weight"]
    assert prunable(nn.Linear(2, 2)) == ["weight"]


def test_targets_that_share_weights_are_refused() -> None:
    gate = Target("0.weight", 0, 0, 2)
    with pytest.raises(ValueError, match=r"0\.weight\[0:0:2\] and 0\.weight share weights; .* take the whole or disjoint slices"):
        Assignment([((FIRST,), Binary()), ((gate,), Binary())])
    assert Assignment([((gate,), Binary()), ((Target("0.weight", 0, 2, 4),), Binary())]).targets[0] == gate
    frozen = Assignment([((FIRST,), Binary())]).freeze({FIRST: torch.randn(5, 6)})
    with pytest.raises(ValueError, match=r"an earlier step froze 0\.weight, this one takes 0\.weight\[0:0:2\]; constrain the same targets"):
        Assignment([((gate,), Binary())]).within(frozen)


def test_a_set_over_all_layers_goes_inside_sets_that_were_frozen_one_by_one() -> None:
    weights = {FIRST: torch.randn(5, 6), LAST: torch.randn(4, 5)}
    pruned, levels = Sparse(UNSTRUCTURED, 2), Binary()
    for first, last in ((pruned, pruned), (pruned, levels), (levels, levels)):
        frozen = Assignment([((FIRST,), first), ((LAST,), last)]).freeze(weights)
        inside = Assignment([((FIRST, LAST), GlobalSparse(UNSTRUCTURED, 4))]).within(frozen)
        assert frozen.outside(inside.project(weights)) == 0


def test_what_a_newer_step_leaves_alone_stays_held() -> None:
    weights = {FIRST: torch.randn(5, 6), LAST: torch.randn(4, 5)}
    frozen = Assignment([((FIRST, LAST), GlobalSparse(UNSTRUCTURED, 4))]).freeze(weights)
    newer = Assignment([((FIRST,), Binary())]).within(frozen).freeze({FIRST: weights[FIRST]})
    merged = frozen.merged(newer)
    assert set(merged.targets) == {FIRST, LAST}
    held = merged.project(weights)
    assert frozen.outside(held) == 0
    assert torch.equal(held[LAST], frozen.project(weights)[LAST])
