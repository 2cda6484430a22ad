"""Purification: both conditions, both scores, a layer that never empties, and equal numbers of weights for the rivals."""

from typing import Any

import pytest
import torch

from espalier.methods import Purification


def rule(**changes: Any) -> Purification:
    settings: dict[str, Any] = {
        "emptiness": 0.5,
        "score": "l2sum",
        "quantile": None,
        "threshold": 1.0,
        "column": 0.0,
        "filter": 0.0,
        "by": "both",
    }
    return Purification(**settings | changes)


def layer() -> torch.Tensor:
    """Return 2 filters, 4 channels, 4 columns: weak and empty, strong and empty, weak and full, strong and full."""
    weight_FCD = torch.zeros(2, 4, 4)
    weight_FCD[:, 0, 0] = 0.1
    weight_FCD[:, 1, 1] = 5.0
    weight_FCD[:, 2] = 0.01
    weight_FCD[:, 3] = 3.0
    return weight_FCD


def gone(purification: Purification, weight: torch.Tensor) -> list[int]:
    stays, _ = purification.kept(weight, limit=purification.limit(weight))
    return ((weight != 0).any(2).any(0) & ~stays.any(2).any(0)).nonzero().flatten().tolist()


def test_a_channel_goes_only_if_it_is_empty_enough_and_weak() -> None:
    assert gone(rule(), layer()) == [0]
    assert gone(rule(emptiness=0.0), layer()) == [0, 2]
    assert gone(rule(threshold=100.0), layer()) == [0, 1]
    assert gone(rule(emptiness=1.0), layer()) == []


def test_both_scores_are_those_of_the_definition() -> None:
    torch.manual_seed(0)
    weight = torch.randn(3, 5, 9)
    columns = [[weight[:, c, d].norm() for d in range(9)] for c in range(5)]
    torch.testing.assert_close(rule().scores(weight), torch.stack([torch.stack(norms).sum() for norms in columns]))
    squares = torch.stack([torch.stack(norms).square().mean() for norms in columns])
    torch.testing.assert_close(rule(score="l2sq_mean").scores(weight), squares)


def test_the_limit_is_the_quantile_of_channels_that_are_not_empty() -> None:
    weight = layer()
    weight[:, 1] = 0
    scores = sorted(float(score) for score in rule().scores(weight) if score > 0)
    assert rule(quantile=0.5, threshold=None).limit(weight) == pytest.approx(scores[1])
    assert rule(quantile=0.5, threshold=None).limit(torch.zeros(2, 4, 4)) == 0
    assert gone(rule(quantile=0.0, threshold=None, emptiness=0.0), layer()) == []


def test_a_nearly_empty_column_counts_as_empty_and_is_emptied() -> None:
    weight = layer()
    weight[0, 0, 1:3] = 1e-3
    assert gone(rule(emptiness=0.75), weight) == []
    stays, _ = rule(emptiness=0.75, threshold=0.0, column=0.01).kept(weight, limit=0.0)
    assert not stays[:, 0, 1:3].any()
    assert gone(rule(emptiness=0.75, column=0.01), weight) == [0]


def test_weak_filters_go_but_never_all() -> None:
    weight = layer()
    weight[1] *= 1e-3
    stays, _ = rule(filter=0.5, threshold=0.0).kept(weight, limit=0.0)
    assert not stays[1].any()
    assert torch.equal(stays[0], weight[0] != 0)
    stays, _ = rule(filter=1e6, column=1e6, emptiness=0.0, threshold=1e6).kept(weight, limit=1e6)
    assert stays.any()


@pytest.mark.parametrize("by", ["emptiness", "score"])
def test_the_rivals_remove_as_many_weights_in_their_own_order(by: str) -> None:
    torch.manual_seed(0)
    total = {"both": 0, by: 0}
    owed = 0
    for _ in range(8):
        weight = torch.randn(6, 20, 9) * (torch.rand(20, 9) < 0.3)
        for name in total:
            purification = rule(quantile=0.4, threshold=None, by=name, emptiness=0.7)
            stays, left = purification.kept(weight, limit=purification.limit(weight), owed=owed if name == by else 0)
            total[name] += int(weight.count_nonzero() - stays.sum())
            owed = left if name == by else owed
            if name == by:
                went = ~stays.any(2).any(0) & (weight != 0).any(2).any(0)
                rank = -purification.shares_empty(weight) if by == "emptiness" else purification.scores(weight)
                alive = (weight != 0).any(2).any(0)
                if went.any():
                    assert rank[went].max() <= rank[alive & ~went].min()
    assert total["both"] > 0
    assert total["both"] - total[by] == owed
    assert abs(owed) < 60


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"emptiness": 1.5}, r"emptiness=1\.5.*shares"),
        ({"quantile": 0.1}, "give one of them"),
        ({"threshold": None}, "give one of them"),
        ({"column": -1.0}, r"column=-1\.0.*not negative"),
        ({"score": "l1"}, "score=l1.*l2sum or l2sq_mean"),
        ({"by": "chance"}, "by=chance.*both, emptiness, score"),
    ],
    ids=["share", "two limits", "no limit", "norm", "score", "by"],
)
def test_what_makes_no_rule_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rule(**changes)
