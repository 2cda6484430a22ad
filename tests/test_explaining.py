"""``explain``: keys by name, beginning, glob and option."""

import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

import espalier
from espalier.cli import app
from espalier.completion import complete_key


def keys(name: str) -> list[str]:
    return [knob.key for knob in espalier.explain(name)]


def test_a_key_and_what_lies_below_it() -> None:
    assert keys("method.tau") == ["method.tau"]
    assert {"method.rho", "method.rho.start", "method.rho.growth"} <= set(keys("method.rho"))
    assert {"multi_rho", "grow1.3"} <= espalier.explain("method.rho")[0].options.keys()


def test_a_glob() -> None:
    assert {"constraint.rate", "constraint.rates", "constraint.rate_file", "constraint.rate_of"} <= set(keys("constraint.rate*"))


def test_an_option_has_the_keys_of_what_it_builds_on() -> None:
    found = {knob.key: knob for knob in espalier.explain("method=group_lasso")}
    assert list(found["method"].options) == ["group_lasso"]
    assert [setting.value for setting in found["method.form"].defaults] == ["fixed"]
    assert [setting.value for setting in found["method.inert"].defaults] == ["false"]
    assert "method.fractions" not in found
    assert "method.rho.start" in keys("method=admm")


def test_a_step_and_a_scale_narrow_the_values() -> None:
    (every,) = espalier.explain("recipe.steps.*.freeze")
    (mapped,) = espalier.explain("recipe.steps.map.freeze")
    assert {setting.value for setting in every.defaults} == {"true", "false"}
    assert {setting.value for setting in mapped.defaults} == {"true"}
    (desk,) = espalier.explain("budgets.desk.train")
    assert {setting.key for setting in desk.changed} == {"budgets.desk.train"}
    assert keys("budget.train") == ["budgets.*.train"]


@pytest.mark.parametrize(
    ("name", "near"),
    [("methd.tau", "method.tau"), ("method=adm", "method=admm"), ("recipe.steps.nowhere.freeze", r"recipe\.steps\.\*\.freeze")],
)
def test_an_unknown_key_names_the_nearest(name: str, near: str) -> None:
    with pytest.raises(ValueError, match=f"no config has the key '{name}'.*{near}"):
        espalier.explain(name)


def test_the_shell_says_it_for_people_and_programs() -> None:
    shown = CliRunner().invoke(app, ["explain", "method.num_rounds"]).output
    assert "espalier.methods.IterativeMagnitude" in shown
    assert "method=iterative_magnitude" in shown
    (knob,) = json.loads(CliRunner().invoke(app, ["explain", "method.num_rounds", "--json"]).output)
    assert knob["key"] == "method.num_rounds"
    assert knob["defaults"][0]["file"].startswith("method/iterative_magnitude.yaml:")


def test_keys_complete() -> None:
    assert "method.rho.start" in complete_key("method.rh")


def test_it_brings_no_torch() -> None:
    code = "import sys, espalier; espalier.explain('rate'); print(sorted({'torch', 'wandb'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
