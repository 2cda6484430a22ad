"""How long runs will take: the mean of their like on this device, else unknown."""

from types import SimpleNamespace
from typing import Any

import pytest

from espalier.devices import cpu
from espalier.expectation import duration, expectation, expected_s

PLACE = {"paper": "p", "table": "t", "row": "r", "scale": "smoke"}


def job(*, variant: bool = False, **identity: Any) -> Any:
    return SimpleNamespace(config=PLACE, variant=variant, identity={"seed": 3, **identity})


def record(duration_s: float, *, variant: bool = False, device: str | None = None, config: dict | None = None, **place: str) -> Any:
    return SimpleNamespace(**{**PLACE, **place}, duration_s=duration_s, variant=variant, device=device or cpu().name, config=config or {})


def test_only_the_rows_own_runs_on_this_device_count() -> None:
    known = [record(10.0), record(20.0), record(99.0, scale="desk"), record(99.0, row="other"), record(99.0, device="another")]
    known.append(record(99.0, variant=True))
    assert expected_s(job(), known) == 15.0
    assert expected_s(job(), known[2:]) is None


def test_a_variant_is_expected_to_take_as_long_as_its_other_seeds() -> None:
    known = [record(10.0, variant=True, config={"seed": 0, "width": 1}), record(99.0, variant=True, config={"seed": 0, "width": 2})]
    assert expected_s(job(variant=True, width=1), known) == 10.0


def test_words() -> None:
    assert expectation([job(), job()], [record(10.0)]) == "expected time 20 s"
    assert "unknown" in expectation([job()], [])
    mixed = expectation([job(), job(variant=True)], [record(10.0)])
    assert mixed == "expected time 10 s, and 1 run of unknown duration"


@pytest.mark.parametrize(("seconds", "words"), [(3.2, "3 s"), (99, "99 s"), (130, "2 min"), (7200, "2 h"), (9000, "2.5 h")])
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words
