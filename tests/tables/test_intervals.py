import pytest

from espalier.tables.intervals import mean_interval, two_sided_t

pytestmark = pytest.mark.tiny


@pytest.mark.parametrize(
    ("df", "t"),
    [(1, 6.313752), (2, 2.919986), (3, 2.353363), (4, 2.131847), (5, 2.015048), (9, 1.833113), (30, 1.697261), (1000, 1.646379)],
)
def test_t_agrees_with_the_printed_table(df: int, t: float) -> None:
    assert two_sided_t(df) == pytest.approx(t, abs=1e-6)


def test_t_agrees_with_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    for df in (1, 2, 3, 6, 7, 40):
        for confidence in (0.5, 0.9, 0.99):
            assert two_sided_t(df, confidence) == pytest.approx(stats.t.ppf((1 + confidence) / 2, df), rel=1e-8)


def test_interval_of_three_values() -> None:
    assert mean_interval([1.0, 2.0, 3.0]) == pytest.approx((2.0, 2.0 - 2.919986 / 3**0.5, 2.0 + 2.919986 / 3**0.5), abs=1e-6)


def test_too_little_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least two values, not 1"):
        mean_interval([1.0])
    with pytest.raises(ValueError, match=r"confidence in \(0, 1\), not 0 and 0.9"):
        two_sided_t(0)
