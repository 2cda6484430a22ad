"""What a comparison consists of: rows, refusals with their reason, equal epochs; what cannot be asked for."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from espalier.asking import Grid, composed_for
from espalier.comparing import _counted, _settings
from espalier.composing import resolved
from espalier.contest import Contest, _same_epochs, planned, tuned
from espalier.contestants import contestant, contestant_names

EVERY = ("admm", "magnitude", "iterative_magnitude", "reweighted", "group_lasso", "primal_proximal", "mest_ems", "mest_em", "set", "rigl")


def contest(**changed: Any) -> Contest:
    asked = {"model": "conv4", "data": "digits_rgb", "methods": ["admm", "mest_em"], "constraints": ["filter"], "rates": [2.0], **changed}
    return planned(Grid(**asked), scale="smoke")


def test_every_method_of_the_list_is_a_contestant() -> None:
    assert set(contestant_names()) >= set(EVERY)


def test_every_contestant_trains_for_as_many_epochs_on_the_same_layers() -> None:
    found = contest(methods=EVERY, constraints=["row_column", "filter"])
    assert found.epochs == {"smoke": 5, "desk": 20, "paper": 400}
    able = {entry.row for entry in found.entries if not entry.reason}
    assert able == {f"{name}-filter-2x" for name in EVERY} | {
        f"{name}-row_column-2x" for name in ("admm", "magnitude", "reweighted", "group_lasso", "primal_proximal", "iterative_magnitude")
    }
    assert found.skipped == ["first_conv", "last_linear"]
    for entry in found.entries:
        if not entry.reason:
            steps = resolved(composed_for(found.grid, entry.overrides, "smoke"))["recipe"]["steps"]
            assert sum(step.get("epochs", 0) for step in steps.values()) == 5, entry.row
            assert {tuple(step["constraint"]["skip"]) for step in steps.values() if "constraint" in step} == {("first_conv", "last_linear")}


def test_a_pairing_that_cannot_be_keeps_its_place_with_the_reason() -> None:
    found = contest(constraints=["filter", "pattern"], methods=["admm", "mest_em", "reweighted"], rates=[2.0, 1e6])
    reasons = {entry.row: entry.reason for entry in found.entries}
    assert list(reasons) == [
        *(f"{method}-filter-{rate}x" for method in ("admm", "mest_em", "reweighted") for rate in ("2", "1e+06")),
        *(f"{method}-pattern" for method in ("admm", "mest_em", "reweighted")),
    ]
    assert [row for row, reason in reasons.items() if not reason] == [
        "admm-filter-2x",
        "mest_em-filter-2x",
        "reweighted-filter-2x",
        "admm-pattern",
    ]
    assert "would empty a weight" in reasons["admm-filter-1e+06x"]
    assert reasons["mest_em-pattern"].startswith("sparse training redraws shares of the kept weights, which a rate counts")
    assert "acts on the norms of groups" in reasons["reweighted-pattern"]


def test_epochs_and_further_words_reach_the_rows_that_know_them() -> None:
    found = contest(epochs=6, overrides=["method.rho.start=0.5", "optimizers.train.lr=0.2", "constraint.skip=[last_linear]"])
    assert set(found.epochs.values()) == {6 + 6 + 3}
    assert found.skipped is None
    assert "optimizers.train.lr=0.2" in found.dense
    assert "method.rho.start=0.5" not in found.dense
    admm, mest = found.entries
    assert "method.rho.start=0.5" in admm.overrides
    assert "method.rho.start=0.5" not in mest.overrides
    assert all("optimizers.train.lr=0.2" in entry.overrides for entry in found.entries)
    assert not any("first_conv" in word for entry in found.entries for word in entry.overrides)


def test_a_network_of_linear_layers_skips_its_last_alone() -> None:
    assert contest(model="lenet300_100", data="digits", constraints=["unstructured"]).skipped == ["last_linear"]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"methods": ["admm"]}, "two contestants or more.*espalier run"),
        ({"methods": ["admm"], "constraints": ["nm"], "rates": [2.0, 4.0]}, "two contestants or more.*espalier run"),
        ({"methods": ["amm", "magnitude"]}, "method=amm is not known; did you mean 'admm'"),
        ({"constraints": ["filtr"]}, "Nearest of constraint=: filter"),
        ({"model": "conv5"}, "Nearest of model=: conv4"),
        ({"data": "digit"}, "Nearest of data=: digits"),
        ({"rates": [0.5, 2.0]}, "rate=0.5: a rate is all / kept"),
        ({"rates": [2.0, 2.0]}, "names 2.0 twice"),
        ({"rates": []}, "constraint=filter has a rate; add rate="),
        ({"methods": []}, "method= names nothing"),
        ({"epochs": 0}, "epochs=0"),
        ({"overrides": ["method.rho.stat=1"]}, r"^Could not override 'method.rho.stat'. Nearest keys: .*method.rho.start"),
        ({"overrides": ["optimizers.admm.lrr=1"]}, r"^Could not override 'optimizers.admm.lrr'. Nearest keys: optimizers.admm.lr,"),
        ({"overrides": ["epoch=3"]}, r"^Could not override 'epoch'. Nearest keys: epochs"),
        ({"overrides": ["seeds=0,1"]}, r"seeds=0,1 names several values.*Did you mean seed=\?"),
        ({"overrides": ["trainer=defaultt"]}, "trainer=defaultt is not known. Nearest of trainer=: default"),
        ({"data": "zzz"}, "data=zzz is not known. Known of data=: cifar10, .*mnist"),
        ({"overrides": ["method.rho.start=1,2"]}, "names several values.*-m"),
        ({"overrides": ["recipe=train"]}, "a comparison sets recipe itself"),
        ({"overrides": ["nonsense"]}, "'nonsense' is no key=value"),
        ({"overrides": ["recipe.steps.retrain.epochs=9"]}, "different epochs at scale=smoke: admm 13, mest_em 5"),
        ({"rates": [1e6, 2e6]}, "none of these pairings can be: .*would empty"),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(f"{key}" for key in value),
)
def test_what_cannot_be_asked_for_names_the_way_out(changed: dict[str, Sequence[object]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        contest(**changed)


def test_epochs_are_compared_of_every_row_whose_words_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    found = contest(constraints=["filter", "unstructured"], rates=[2.0, 4.0])
    last = replace(found.entries[-1], overrides=[*found.entries[-1].overrides, "recipe.steps.train.epochs=9"])
    with pytest.raises(ValueError, match=r"different epochs at scale=smoke: .*admm-filter-2x 5.*mest_em-unstructured-4x 9"):
        _same_epochs(found.grid, [*found.entries[:-1], last])
    composed: list[str] = []
    monkeypatch.setattr("espalier.contest._num_epochs", lambda grid, words, scale: composed.append(scale) or 5)
    _same_epochs(found.grid, found.entries)
    assert len(composed) == 3 * 2  # a scale and method each, whatever the sets and rates


def test_one_epoch_is_no_epochs() -> None:
    assert [_counted({"smoke": count, "desk": count}) for count in (1, 2)] == ["1 epoch", "2 epochs"]
    assert _counted({"smoke": 2, "desk": 8}) == "2 epochs at smoke, 8 epochs at desk"


def test_the_dense_rows_own_epochs_are_counted() -> None:
    assert contest().dense_epochs == {"smoke": 2, "desk": 8, "paper": 160}
    assert set(contest(epochs=6).dense_epochs.values()) == {6}


def test_what_was_chosen_is_said() -> None:
    said = {name: contestant(name).chosen for name in EVERY}
    assert [name for name in EVERY if said[name]] == ["reweighted", "group_lasso", "primal_proximal"]
    assert all("validation" in text and "conv4" in text and "CIFAR-10" in text for text in said.values() if text)
    assert _settings(contest().grid) == "paper defaults"
    both = _settings(contest(methods=["admm", "reweighted"]).grid)
    assert both.startswith("paper defaults, except: Reweighted (lambda")
    assert both.endswith("; the others had no such search")


def test_trials_are_drawn_alike_for_every_pairing_and_the_first_is_the_default() -> None:
    found = contest(methods=["admm", "magnitude"], rates=[2.0, 3.0])
    two, three = found.entries[0], found.entries[1]
    assert tuned(two, 1).overrides == two.overrides
    drawn = [tuned(entry, 2).overrides[len(entry.overrides) :] for entry in (two, three)]
    assert drawn[0] == drawn[1] != tuned(two, 3).overrides[len(two.overrides) :]
    values = {word.partition("=")[0]: float(word.partition("=")[2]) for word in drawn[0]}
    assert values.keys() == contestant("admm").tune.keys()
    for key, value in values.items():
        low, high = contestant("admm").tune[key]
        assert float(low) <= value <= float(high)


def test_a_users_own_contestant_and_method(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "contestant").mkdir()
    (tmp_path / "method").mkdir()
    mine = {
        "title": "Mine",
        "recipe": "magnitude",
        "method": None,
        "overrides": ["optimizers.retrain.lr=0.02"],
        "tune": {"optimizers.retrain.lr": [0.01, 0.1]},
    }
    (tmp_path / "contestant" / "mine.yaml").write_text(yaml.safe_dump(mine))
    (tmp_path / "method" / "plain.yaml").write_text("_target_: espalier.methods.Magnitude\n_partial_: true\n")
    monkeypatch.setenv("ESPALIER_CONFIG", str(tmp_path))
    found = contest(methods=["mine", "plain"])
    assert [entry.reason for entry in found.entries] == ["", ""]
    assert "optimizers.retrain.lr=0.02" in found.entries[0].overrides
    assert found.entries[1].overrides[:2] == ["recipe=one_shot", "method=plain"]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"recipe": "one_sho"}, "did you mean 'one_shot'"),
        ({"tune": {"x.lr": [3, 1]}}, r"write \[low, high\]"),
        ({"tilte": "x"}, "unknown key 'tilte'"),
    ],
)
def test_a_malformed_contestant_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: dict[str, object], message: str) -> None:
    (tmp_path / "contestant").mkdir()
    mine = {"title": "Mine", "recipe": "magnitude", "method": None, "tune": {"optimizers.retrain.lr": [0.01, 0.1]}, **changed}
    (tmp_path / "contestant" / "mine.yaml").write_text(yaml.safe_dump(mine))
    monkeypatch.setenv("ESPALIER_CONFIG", str(tmp_path))
    with pytest.raises(ValueError, match=message):
        contestant("mine")
