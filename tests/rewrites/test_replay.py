"""Lists of rewrites: applied in order, unknown names and arguments explained, code outside trusted packages found."""

import pytest
from torch import nn

from espalier.rewrites import rewritten, untrusted

FOLD = "espalier.rewrites.fold_batch_norm"
TRUSTED = ("espalier.models.", "timm.", "espalier.rewrites.")


def widened(model: nn.Module, *, by: int) -> nn.Module:
    return nn.Sequential(model, nn.Linear(2, by))


def test_rewrites_apply_in_order() -> None:
    model = rewritten(nn.Linear(2, 2), [{"_target_": f"{__name__}.widened", "by": 2}, {"_target_": f"{__name__}.widened", "by": 3}])
    assert [module.out_features for module in model.modules() if isinstance(module, nn.Linear)] == [2, 2, 3]


@pytest.mark.parametrize("name", ["espalier.rewrites.fold_batchnorm", "fold_batch_norm", "espalier.rewrite.fold_batch_norm", "None"])
def test_an_unknown_rewrite_names_the_nearest(name: str) -> None:
    with pytest.raises(ValueError, match=rf"no rewrite '{name}'; nearest: {FOLD}"):
        rewritten(nn.Linear(2, 2), [{"_target_": name}])


def test_a_wrong_argument_is_named() -> None:
    with pytest.raises(ValueError, match=r"fold_batch_norm cannot be called with .*'skp'"):
        rewritten(nn.Linear(2, 2), [{"_target_": FOLD, "skp": []}])


@pytest.mark.parametrize(
    ("config", "names"),
    [
        ({"_target_": "espalier.models.LeNet5", "width": 1.0}, []),
        ([{"_target_": FOLD, "skip": ["bn1"]}], []),
        ({"_target_": "timm.create_model", "model_name": "resnet18"}, []),
        ({"_target_": "os.system", "command": "true"}, ["os.system"]),
        ({"_target_": "espalier.models.LeNet5", "width": {"_target_": "os.system", "command": "true"}}, ["os.system"]),
        ({"_target_": "espalier.models.lenet5.nn.Linear"}, ["espalier.models.lenet5.nn.Linear"]),
        ({"_target_": "espalier.rewrites.replay.import_module", "name": "this"}, ["espalier.rewrites.replay.import_module"]),
        ({"_target_": "espalier.runner.built", "config": {}}, ["espalier.runner.built"]),
        ({"_target_": "espalier.models.nothing"}, ["espalier.models.nothing"]),
    ],
    ids=["model", "rewrite", "timm", "elsewhere", "nested", "by way of a module", "imported function", "not a model", "unknown"],
)
def test_code_outside_the_trusted_packages_is_found(config: dict | list, names: list[str]) -> None:
    assert untrusted(config, TRUSTED) == names
