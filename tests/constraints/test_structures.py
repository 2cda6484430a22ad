import itertools
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from espalier.constraints import CHANNEL, COLUMN, FILTER, STRUCTURES, UNSTRUCTURED, Structure, largest, structure

BLOCK = Structure("block", "(i r) ... -> (i ...) r", {"r": 4}, "a block column with padded edges")
PUNCHED = Structure("punched", "(i f) (j c) ... -> (i j ...) (f c)", {"f": 2, "c": 2}, "a block-punched structure with padded edges")
TILE = Structure("tile", "(i r) (j k) -> (i j r) k", {"r": 2, "k": 3}, "block rows of the GEMM matrix", view="f ... -> f (...)")
SHAPES = {
    "linear": (4, 3),
    "conv1d": (3, 2, 2),
    "conv2d": (3, 2, 1, 2),
    "conv3d": (2, 2, 1, 1, 2),
    "depthwise": (4, 1, 1, 3),
    "ragged": (5, 3),
}

Key = Callable[[tuple[int, ...]], object]  # position in the weight -> group
BY_HAND: dict[str, tuple[Structure, Key]] = {
    "unstructured": (UNSTRUCTURED, lambda position: position),
    "filter": (FILTER, lambda position: position[0]),
    "channel": (CHANNEL, lambda position: position[1]),
    "column": (COLUMN, lambda position: position[1:]),
    "block": (BLOCK, lambda position: (position[0] // 4, position[1:])),
    "punched": (PUNCHED, lambda position: (position[0] // 2, position[1] // 2, position[2:])),
}


def groups_by_hand(shape: tuple[int, ...], key: Key) -> list[list[tuple[int, ...]]]:
    groups: dict[object, list[tuple[int, ...]]] = {}
    for position in itertools.product(*map(range, shape)):
        groups.setdefault(key(position), []).append(position)
    return list(groups.values())


@pytest.mark.tiny
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("name", BY_HAND)
def test_projection_is_the_nearest_feasible_tensor(name: str, shape: tuple[int, ...]) -> None:
    grouping, key = BY_HAND[name]
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    groups = groups_by_hand(shape, key)
    energies = [sum(weight[p].item() ** 2 for p in group) for group in groups]
    assert grouping.num_groups(shape) == len(groups)
    for num_keep in {0, 1, 2, len(groups) - 1, len(groups)}:
        if num_keep > len(groups):
            continue
        dropped = min(map(sum, itertools.combinations(energies, len(groups) - num_keep)))
        projected = grouping.project(weight, num_keep)
        assert (weight - projected).square().sum().item() == pytest.approx(dropped, rel=1e-5, abs=1e-7)
        assert sum(any(projected[p] != 0 for p in group) for group in groups) <= num_keep
        assert torch.equal(grouping.project(projected, num_keep), projected)
        assert torch.equal(projected[projected != 0], weight[projected != 0])


def test_a_view_regroups_before_blocks_are_cut() -> None:
    weight = torch.arange(1.0, 13.0).view(3, 2, 2)  # as a matrix 3 x 4: row blocks of 3 and 1 columns
    kept = TILE.project(weight, 1).view(3, 4)
    assert kept.nonzero().tolist() == [[2, 0], [2, 1], [2, 2]]


@pytest.mark.parametrize("shape", [(3, 3), (5, 3, 2), (1, 1)])
def test_padding_points_one_past_the_end_and_every_weight_is_in_one_group(shape: tuple[int, ...]) -> None:
    index = replace(PUNCHED, blocks={"f": 4, "c": 2}).groups(shape)
    inside = index[index < torch.Size(shape).numel()]
    assert sorted(inside.tolist()) == list(range(torch.Size(shape).numel()))
    assert index.max() <= torch.Size(shape).numel()


@given(st.lists(st.sampled_from([0.0, -1.0, 1.0, 2.0, -2.0, 0.5]), min_size=1, max_size=24), st.data())
@settings(max_examples=100, deadline=None)
def test_ties_keep_the_lower_index(values: list[float], data: st.DataObject) -> None:
    num_keep = data.draw(st.integers(0, len(values)))
    kept = largest(torch.tensor(values), num_keep)
    expected = sorted(sorted(range(len(values)), key=lambda index: (-values[index], index))[:num_keep])
    assert kept.nonzero().flatten().tolist() == expected


def test_selection_does_not_sort(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("sorted")

    for name in ("sort", "argsort", "topk"):
        monkeypatch.setattr(torch.Tensor, name, refuse)
        monkeypatch.setattr(torch, name, refuse)
    assert int(largest(torch.rand(1000), 10).sum()) == 10


def test_half_precision_does_not_overflow() -> None:
    weight = torch.tensor([300.0, 400.0, 500.0], dtype=torch.float16)
    assert UNSTRUCTURED.project(weight, 1).tolist() == [0.0, 0.0, 500.0]


def test_infinite_weights_are_kept_and_nan_is_refused() -> None:
    assert UNSTRUCTURED.project(torch.tensor([1.0, float("inf"), 2.0]), 1).tolist() == [0.0, float("inf"), 0.0]
    with pytest.raises(ValueError, match="cannot keep 1 of 2 groups, 1 of them NaN; check rate and weights"):
        UNSTRUCTURED.project(torch.tensor([1.0, float("nan")]), 1)


@pytest.mark.parametrize("num_keep", [-1, 4])
def test_a_count_out_of_range_is_refused(num_keep: int) -> None:
    with pytest.raises(ValueError, match=f"cannot keep {num_keep} of 3 groups"):
        largest(torch.rand(3), num_keep)


@pytest.mark.parametrize("grouping", [PUNCHED, CHANNEL], ids=lambda grouping: grouping.name)
def test_a_weight_without_the_axes_names_the_way_out(grouping: Structure) -> None:
    with pytest.raises(ValueError, match=rf"{grouping.name} groups weights as .*shape \(7,\).*constraint\.skip"):
        grouping.project(torch.zeros(7), num_keep=1)


def test_names() -> None:
    assert all(structure(name) is entry and entry.name == name and entry.source for name, entry in STRUCTURES.items())
    with pytest.raises(ValueError, match=r"no structure is called 'filtre'; nearest: filter"):
        structure("filtre")


def test_labels_read_back() -> None:
    assert [entry.label for entry in STRUCTURES.values() if entry.blocks] == [
        "block_column 16",
        "block_row 8x32",
        "block_punched 8x4",
        "kgs 8x4",
        "vanilla 8x4",
    ]
    assert all(structure(entry.label) == entry for entry in STRUCTURES.values())
    assert structure("block_punched 16x2").blocks == structure("block_punched", [16, 2]).blocks == {"f": 16, "c": 2}
    assert FILTER.label == "filter"


@pytest.mark.parametrize("blocks", [[], [4], [4, 0], [4, 4, 4]], ids=str)
def test_block_sizes_that_do_not_fit_are_refused(blocks: list[int]) -> None:
    with pytest.raises(ValueError, match=r"do not fit 'kgs'; it takes 2 sizes of 1 or more, by default \[8, 4\]"):
        structure("kgs", blocks)
    with pytest.raises(ValueError, match="no structure is called 'kgs 4xx'; nearest: kgs"):
        structure("kgs 4xx")


def test_blocks_of_padding_alone_are_no_groups() -> None:
    blocks = structure("block_row", [4, 2])  # 5 filters fill one block of 4 and a quarter of the next
    assert blocks.num_groups((5, 6)) == 15
    assert blocks.groups((5, 6)).shape == (15, 2)
    assert blocks.mask((5, 6), torch.arange(15) >= 12).nonzero().tolist() == [[4, column] for column in range(6)]
    with pytest.raises(ValueError, match="cannot keep 16 of 15 groups"):
        blocks.project(torch.ones(5, 6), 16)


@pytest.mark.parametrize("grouping", STRUCTURES.values(), ids=lambda grouping: grouping.name)
def test_index_sizes_scores_and_mask_agree(grouping: Structure) -> None:
    shape = (10, 6, 3, 3)
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    index = grouping.groups(shape)
    padded = torch.cat([weight.flatten(), torch.zeros(1)])
    assert torch.allclose(grouping.scores(weight), padded[index].square().sum(1))
    assert grouping.sizes(shape).tolist() == (index < weight.numel()).sum(1).tolist()
    kept = torch.arange(len(index)) % 3 == 0
    mask = torch.zeros(weight.numel() + 1, dtype=torch.bool).index_fill(0, index[kept].flatten(), True)[:-1].view(shape)
    assert torch.equal(grouping.mask(shape, kept), mask)


def test_a_view_may_move_axes() -> None:
    swapped = Structure("swapped", "(i r) ... -> (i ...) r", {"r": 2}, "input channels in blocks", view="f c ... -> c f ...")
    weight = torch.arange(1.0, 13.0).view(2, 3, 2)
    kept = swapped.project(weight, 1)
    assert kept.nonzero().tolist() == [[1, 0, 1], [1, 1, 1]]  # input channels 0 and 1 of the second filter
    assert torch.equal(swapped.project(kept, 1), kept)
