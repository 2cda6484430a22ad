"""Learning-rate factors: where they restart."""

import pytest

from espalier.tasks import cycles


@pytest.mark.parametrize("milestones", [[], [5], [2, 4, 6, 8]])
def test_cycles_restart_at_their_own_shares_whenever_the_method_refreshes(milestones: list[int]) -> None:
    factors = [cycles(epoch, 10, milestones, rise=1.8, fall=0.5, restart_at=[0.2, 0.6]) for epoch in range(10)]
    assert factors[:2] == pytest.approx([1.0, 0.5**0.5])
    assert factors[2] == pytest.approx(0.9)
    assert factors[4] == pytest.approx(0.9 * 0.5**0.5)
    assert factors[6] == pytest.approx(0.81)


def test_shares_that_fall_on_one_epoch_or_on_an_end_are_merged() -> None:
    factors = [cycles(epoch, 2, [], rise=1.8, fall=0.5, restart_at=[0.2, 0.4, 0.6, 0.8]) for epoch in range(2)]
    assert factors == pytest.approx([1.0, 0.9])
