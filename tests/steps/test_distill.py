"""Distillation as a step: a named loss, a teacher by the name of an earlier step, frozen sets that hold."""

from functools import partial
from pathlib import Path

import pytest
import torch
from surroundings import TRAINING, context, pruned

from espalier.composing import identity_of, step_keys
from espalier.methods import Distillation
from espalier.metrics import unknown
from espalier.record import Record, Store
from espalier.runner import execute, plan
from espalier.steps import State, distill, retrain, train

LENET5 = "progressive-admm/lenet5"
DISTILLED = ["recipe=one_shot_distilled", "model.width=0.2", "constraint.rate_file=null", "rate=4"]
DISTILLED += [f"budgets.smoke.{step}={epochs}" for step, epochs in {"train": 2, "admm": 1, "retrain": 2}.items()]


def row(*overrides: str) -> Record:
    job = plan(LENET5, row="admm-70x", scale="smoke", seed=0, overrides=[*DISTILLED, *overrides])
    return execute(job, store=Store(), command="")


def test_the_teacher_moves_the_student_and_the_term_has_a_name(tmp_path: Path) -> None:
    teacher = train(State(), context(tmp_path / "teacher"), epochs=2, **TRAINING)
    start = pruned(context(tmp_path / "start"), state=teacher)
    term = partial(Distillation, temperature=4.0, weight=5.0)
    taught = distill(start, context(tmp_path / "taught"), epochs=2, **TRAINING, teacher=teacher, distillation=term)
    alone = retrain(start, context(tmp_path / "alone"), epochs=2, **TRAINING)
    assert [epoch for epoch, _ in taught.series["train/loss_distill"]] == [3, 4]
    assert taught.series["train/loss_distill"][1][1] < taught.series["train/loss_distill"][0][1]
    assert not torch.equal(taught.weights["4.weight"], alone.weights["4.weight"])
    assert taught.metrics["weights_outside_set"] == 0
    assert unknown({**taught.metrics, **taught.series}) == []


def test_a_student_that_is_its_own_teacher_and_has_no_frozen_sets_trains_freely(tmp_path: Path) -> None:
    start = train(State(), context(tmp_path / "start"), epochs=1, **TRAINING)
    term = partial(Distillation, temperature=1.0, weight=1e-30)
    after = distill(start, context(tmp_path / "step"), epochs=1, **TRAINING, teacher=start, distillation=term)
    plain = train(start, context(tmp_path / "plain"), epochs=1, **TRAINING)
    assert all(torch.allclose(value, after.weights[name]) for name, value in plain.weights.items())
    assert "weights_outside_set" not in after.metrics


def test_a_row_is_taught_by_the_step_its_recipe_names(store_folder: Path) -> None:
    record = row()
    assert len(record.series["train/loss_distill"]) == 2
    assert record.metrics["weights_outside_set"] == 0
    own = row("recipe.steps.retrain.teacher=constrain")
    assert own.steps["constrain"] == record.steps["constrain"]
    assert own.steps["retrain"] != record.steps["retrain"]
    assert own.series["train/loss_distill"] != record.series["train/loss_distill"]


def test_a_step_that_does_not_come_before_is_refused(store_folder: Path) -> None:
    with pytest.raises(ValueError, match=r"step 'retrain': teacher=retrain names no earlier step; there are train, constrain"):
        row("recipe.steps.retrain.teacher=retrain")


def test_the_key_of_a_taught_step_follows_its_teacher() -> None:
    keys = []
    for override in ("optimizers.train.lr=0.001", "optimizers.train.lr=0.002"):
        job = plan(LENET5, row="admm-70x", scale="smoke", seed=0, overrides=[*DISTILLED, override])
        keys.append(step_keys(identity_of(job.config, job.data.fingerprint))["retrain"])
    assert keys[0] != keys[1]
