"""Every key of conf/ has a description, its values and those that change it."""

from functools import cache
from pathlib import Path

import pytest
import yaml

from espalier.composing import config_dir
from espalier.config_files import GLOSSARY
from espalier.knobs import Knob, knobs

NO_MEANING = ("See ", "see ", "as in ", "As in ", "The same ", "the same ")  # sends the reader elsewhere


@cache
def shipped() -> tuple[Knob, ...]:
    return tuple(knobs())


def one(key: str, reader: str | None = None) -> Knob:
    (found,) = (knob for knob in shipped() if knob.key == key and (reader is None or knob.reader == reader))
    return found


def place(knob: Knob) -> str:
    first = (*knob.defaults, *knob.changed)
    return f"conf/{first[0].file}" if first else f"conf/{knob.key.replace('.', '/')}"


@pytest.mark.tiny
def test_every_key_has_a_description() -> None:
    way_out = {
        True: "give it a line under Args: of {0.reader}",
        False: f"write a comment beside it, or a line in conf/{GLOSSARY} if many files share it",
    }
    missing = [
        f"{place(knob)}: {knob.key}: {way_out[knob.reader is not None and knob.reader.startswith('espalier')].format(knob)}"
        for knob in shipped()
        if not knob.meaning or knob.meaning.startswith(NO_MEANING)
    ]
    assert not missing, "\n".join(["keys without a description of their own (meaning, unit, range):", *missing])


@pytest.mark.tiny
def test_every_option_says_what_it_is() -> None:
    missing = [
        f"conf/{knob.key.replace('.', '/')}/{option}.yaml" for knob in shipped() for option, text in knob.options.items() if not text
    ]
    assert not missing, f"options whose file begins with no comment: {missing}"


@pytest.mark.tiny
def test_every_line_of_the_glossary_is_used() -> None:
    said = yaml.safe_load((config_dir() / GLOSSARY).read_text(encoding="utf-8"))
    used = {knob.meaning for knob in shipped()}
    assert [key for key, text in said.items() if text not in used] == []


def test_a_key_is_described_where_it_is_read() -> None:
    tau = one("method.tau")
    assert tau.reader == "espalier.methods.PrimalProximal"
    assert tau.type == "float | None"
    assert "threshold" in tau.meaning
    assert [(setting.where, setting.value) for setting in tau.defaults] == [("method=primal_proximal", "null")]
    assert "ss-auto (arXiv 2001.08839), S4 and S9" in tau.source
    assert ("ss-auto/cifar10 row=ss-tau1", "${budget.tau1}") in [(setting.where, setting.value) for setting in tau.changed]


def test_a_key_that_two_readers_take_is_two() -> None:
    assert {knob.reader for knob in shipped() if knob.key == "method.num_periods"} == {
        "espalier.methods.ADMM",
        "espalier.methods.PrimalProximal",
    }


def test_a_key_of_a_file_that_builds_on_another_has_its_reader() -> None:
    assert "data=cifar10_5k_16" in [setting.where for setting in one("data.crop_pad", "espalier.data.cifar").defaults]
    assert "method=group_lasso" in [setting.where for setting in one("method.strength").defaults]
    assert "method=primal_proximal" in [setting.where for setting in one("method.rho.start").defaults]


def test_scales_steps_and_optimizers_are_one_key_each() -> None:
    assert {setting.key for setting in one("budgets.*.train").changed} >= {
        "budgets.smoke.train",
        "budgets.desk.train",
        "budgets.paper.train",
    }
    assert {setting.key for setting in one("recipe.steps.*.freeze").defaults} >= {
        "recipe.steps.constrain.freeze",
        "recipe.steps.map.freeze",
    }
    assert one("optimizers.*.momentum").reader == "torch.optim.SGD"
    assert "restarts" in str(one("schedules.*.factor").reader)


def test_rates_by_layer_are_a_value_not_keys() -> None:
    assert not [knob.key for knob in shipped() if "layer1" in knob.key]
    assert "prm/resnet" in [setting.where for setting in one("recipe.columns.rates").changed]


def test_keys_of_ones_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "method").mkdir()
    (tmp_path / "method" / "pull.yaml").write_text(
        "# Pull.\n_target_: pull.Pull\nshare: 0.05   # of the distance, a step\n", encoding="utf-8"
    )
    (tmp_path / GLOSSARY).write_text("method.other: Said elsewhere.\n", encoding="utf-8")
    (tmp_path / "method" / "push.yaml").write_text("defaults: [pull]\nother: 1\n", encoding="utf-8")
    monkeypatch.setenv("ESPALIER_CONFIG", str(tmp_path))
    found = {knob.key: knob for knob in knobs() if knob.reader == "pull.Pull"}
    assert found["method.share"].meaning == "of the distance, a step"
    assert found["method.other"].meaning == "Said elsewhere."
