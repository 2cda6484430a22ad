"""Forgetting counts against a definition in plain loops, and who leaves."""

import itertools
import random

import pytest
import torch

from espalier.data import Forgetting, Removal

pytestmark = pytest.mark.tiny


def observed(history: list[list[bool]]) -> Forgetting:
    """Present every sample once an epoch, in batches of three in another order each time."""
    forgetting = Forgetting(len(history[0]))
    for epoch, right in enumerate(history):
        order = list(range(len(right)))
        random.Random(epoch).shuffle(order)
        for start in range(0, len(order), 3):
            index = torch.tensor(order[start : start + 3])
            forgetting.observe(index, torch.tensor(right)[index])
    return forgetting


def by_hand(history: list[list[bool]], sample: int, never: int) -> int:
    seen = [right[sample] for right in history]
    return sum(before and not after for before, after in itertools.pairwise(seen)) if any(seen) else never


def test_counts_are_those_of_the_definition() -> None:
    draw = random.Random(0)
    history = [[draw.random() < 0.6 for _ in range(40)] for _ in range(5)]
    for right in history:
        right[0], right[1] = True, False
    forgetting = observed(history)
    assert forgetting.counts(never_learnt=99).tolist() == [by_hand(history, sample, 99) for sample in range(40)]
    unforgettable = [any(right[sample] for right in history) and not by_hand(history, sample, 99) for sample in range(40)]
    assert forgetting.unforgettable().tolist() == unforgettable
    assert unforgettable[0]
    assert not unforgettable[1]


def test_a_restored_or_reset_count_goes_on_from_there() -> None:
    forgetting = observed([[True, True, False], [False, True, False]])
    restored = Forgetting(3)
    restored.load_state_dict(forgetting.state_dict())
    forgetting.reset()
    for one in (forgetting, restored):
        one.observe(torch.tensor([0, 1]), torch.tensor([True, False]))
    assert restored.counts(never_learnt=9).tolist() == [1, 1, 9]
    assert forgetting.counts(never_learnt=9).tolist() == [0, 9, 9]


def test_the_least_forgotten_leave_first_and_the_lower_number_among_equals() -> None:
    forgetting = observed([[True, True, True, True, False], [False, True, True, True, False], [True, True, False, True, False]])
    assert Removal(0.5, 0.4, "least_forgotten", 0).kept(forgetting, never_learnt=3).tolist() == [0, 2, 4]
    assert Removal(0.5, 0.2, "least_forgotten", 0).kept(forgetting, never_learnt=3).tolist() == [0, 2, 3, 4]


def test_a_random_removal_follows_from_its_seed() -> None:
    forgetting = Forgetting(50)
    kept = [Removal(0.5, 0.24, "random", seed).kept(forgetting, never_learnt=1) for seed in (0, 0, 1)]
    assert kept[0].equal(kept[1])
    assert not kept[0].equal(kept[2])
    assert [len(index) for index in kept] == [38, 38, 38]
    assert kept[0].equal(kept[0].unique())


def test_it_takes_place_at_a_share_of_any_number_of_epochs() -> None:
    removal = Removal(0.4375, 0.24, "random", 0)
    assert [removal.epoch(epochs) for epochs in (160, 16, 2, 1)] == [70, 7, 1, 1]
    assert removal.num_removed(50_000) == 12_000


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"at": 0.0}, r"removal\.at=0 is not a share between 0 and 1"),
        ({"share": 1.0}, r"removal\.share=1 is not a share"),
        ({"order": "easiest"}, r"removal\.order=easiest is not known; examples leave by least_forgotten or random"),
    ],
)
def test_a_removal_that_makes_no_sense_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Removal(**{"at": 0.5, "share": 0.2, "order": "random", "seed": 0, **changes})  # type: ignore[arg-type]
