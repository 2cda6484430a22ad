"""What the forgetting callback says of the examples of each epoch."""

import pytest

from espalier.data import Removal
from espalier.tasks import ForgettingCallback

pytestmark = pytest.mark.tiny


def test_examples_leave_from_the_epoch_of_the_removal_on() -> None:
    hook = ForgettingCallback(50, Removal(0.4375, 0.24, "random", 0), epochs=8)
    assert hook.removed_at == 3
    assert hook.samples() == [50] * 3 + [38] * 5


def test_all_stay_without_a_removal() -> None:
    hook = ForgettingCallback(50, None, epochs=3)
    assert hook.removed_at is None
    assert hook.samples() == [50] * 3


def test_a_restored_count_is_the_saved_one() -> None:
    first, second = ForgettingCallback(2, None, epochs=3), ForgettingCallback(2, None, epochs=3)
    first.forgetting.events_N[1] = 4
    first.forgetting.learnt_N[:] = True
    second.load_state_dict(first.state_dict())
    assert second.forgetting.counts(never_learnt=9).tolist() == [0, 4]
