"""The designer's step: never a sample, each layer matched, killed and resumed as undisturbed; and the client's first look."""

from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from surroundings import admm, context, data, network, sparse
from torch import nn

from espalier.composing import composed, register_rows, resolved
from espalier.constraints import UNSTRUCTURED, GlobalSparse, PatternKernels, Support, assign
from espalier.data import BatchNormImages, GaussianImages, ImageData, SmoothedImages, Split, TensorLoader, UniformImages
from espalier.metrics import unknown
from espalier.models import CifarResNet
from espalier.record import Record, Store
from espalier.runner import execute, plan
from espalier.stepping import assigner, built
from espalier.steps import DesignerContext, State, prune_synthetic, receive, retrain
from espalier.steps.layer_units import units
from espalier.tasks import NonFiniteLossError, constant

SETTINGS: dict[str, Any] = {
    "epochs": 4,
    "batches": 3,
    "batch_size": 8,
    "optimizer": partial(torch.optim.Adam, lr=1e-2),
    "schedule": constant,
    "method": admm,
    "constraint": sparse,
    "objective": "layer_wise",
    "layer_input": "student",
    "images": UniformImages(),
}


def client(*, batch_norm: bool = True) -> State:
    return State(network(batch_norm=batch_norm).state_dict(), epochs=5)


def designer(folder: Path, **changes: Any) -> DesignerContext:
    return context(folder, batch_norm=True, **changes).for_designer()


def pruned(folder: Path, **changes: Any) -> State:
    return prune_synthetic(client(), designer(folder), **SETTINGS | changes)


class Untouchable(ImageData):
    """Data of which only the format may be read."""

    def __getattribute__(self, name: str) -> Any:
        if name in ("val", "test", "train_loader", "val_loader", "test_loader", "calibration_loader"):
            raise AssertionError(f"{name} was read")
        return super().__getattribute__(name)


def test_the_designer_holds_nothing_that_leads_to_a_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    surroundings = context(tmp_path, batch_norm=True, data=Untouchable(**vars(data()))).for_designer()
    held = [getattr(surroundings, field.name) for field in fields(surroundings)]
    assert not any(isinstance(value, ImageData | Split | TensorLoader | torch.Tensor) for value in held)

    def read(self: TensorLoader) -> None:
        raise AssertionError("a batch was read")

    monkeypatch.setattr(TensorLoader, "__iter__", read)
    monkeypatch.setattr(Split, "__len__", read)
    after = prune_synthetic(client(), surroundings, **SETTINGS)
    assert after.frozen is not None
    with pytest.raises(ValueError, match=r"step 'step' is a designer's and has no data"):
        surroundings.data.train_loader(0)  # type: ignore[attr-defined]


def test_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a designer's step takes a DesignerContext, which leads to no sample, not a Context"):
        prune_synthetic(client(), context(tmp_path, batch_norm=True), **SETTINGS)  # type: ignore[arg-type]
    for given in (data().train_loader(0), data()):
        with pytest.raises(ValueError, match=rf"draws its own images and takes no {type(given).__name__}"):
            pruned(tmp_path, images=given)


@pytest.mark.parametrize("objective", ["layer_wise", "whole_model"])
@pytest.mark.parametrize("layer_input", ["student", "teacher"])
def test_weights_end_in_their_sets_with_figures_that_have_names(tmp_path: Path, objective: str, layer_input: str) -> None:
    after = pruned(tmp_path, objective=objective, layer_input=layer_input)
    assert after.frozen is not None
    assert after.metrics["weights_outside_set"] == 0
    assert {str(target): int((after.weights[target.parameter] != 0).sum()) for target in after.frozen.targets} == {
        "0.weight": 18,
        "4.weight": 288,
    }
    parts = 2 if objective == "layer_wise" else 1
    assert after.epochs == 5 + 4 * parts
    assert [epoch for epoch, _ in after.series["synthetic/loss"]] == [6 + index for index in range(4 * parts)]
    errors = {name for name in after.metrics if name.startswith("synthetic/error/")}
    assert errors == ({"synthetic/error/0", "synthetic/error/4"} if parts == 2 else {"synthetic/error/output"})
    residuals = [after.metrics[f"admm/residual/{layer}.weight"] for layer in (0, 4)]
    assert after.metrics["admm/residual_max"] == max(residuals)
    assert unknown({**after.metrics, **after.series}) == []
    assert torch.equal(after.weights["1.running_mean"], client().weights["1.running_mean"])
    assert torch.equal(after.weights["1.running_var"], client().weights["1.running_var"])


def test_matching_lowers_the_error_of_every_layer(tmp_path: Path) -> None:
    long = {"epochs": 8, "batches": 20, "images": SmoothedImages(3)}
    trained = pruned(tmp_path / "trained", **long)
    still = pruned(tmp_path / "still", **long | {"optimizer": partial(torch.optim.SGD, lr=1e-12)})
    for layer in (0, 4):
        assert trained.metrics[f"synthetic/error/{layer}"] < 0.8 * still.metrics[f"synthetic/error/{layer}"]


def test_a_network_that_need_not_change_stays_as_it_is(tmp_path: Path) -> None:
    after = pruned(tmp_path, constraint=partial(sparse, rate=1.0), optimizer=partial(torch.optim.SGD, lr=0.1))
    assert all(torch.allclose(value, after.weights[name], atol=1e-6) for name, value in client().weights.items())
    assert max(value for _, value in after.series["synthetic/loss"]) < 1e-12


def test_the_teacher_input_hides_the_error_of_the_layers_before(tmp_path: Path) -> None:
    own, trained = (pruned(tmp_path / name, layer_input=name) for name in ("student", "teacher"))
    assert torch.equal(own.weights["0.weight"], trained.weights["0.weight"])
    assert own.metrics["synthetic/error/4"] > trained.metrics["synthetic/error/4"]


@pytest.mark.parametrize(("objective", "killed_after"), [*(("layer_wise", epoch) for epoch in (1, 3, 4, 5, 8)), ("whole_model", 2)])
def test_a_killed_step_ends_as_an_undisturbed_one(tmp_path: Path, killed_after: int, objective: str) -> None:
    seen: list[int] = []

    def kill(progress: int, _: dict[str, float]) -> None:
        if progress == 5 + killed_after:
            raise KeyError("killed")

    undisturbed = pruned(tmp_path / "undisturbed", objective=objective)
    with pytest.raises(KeyError, match="killed"):
        prune_synthetic(client(), designer(tmp_path / "killed", on_epoch=kill), **SETTINGS | {"objective": objective})
    note = designer(tmp_path / "killed", on_epoch=lambda progress, _: seen.append(progress))
    resumed = prune_synthetic(client(), note, **SETTINGS | {"objective": objective})
    assert seen == [6 + index for index in range(resumed.epochs - 5)]
    assert resumed.series == undisturbed.series
    assert resumed.metrics == undisturbed.metrics
    assert all(torch.equal(value, resumed.weights[key]) for key, value in undisturbed.weights.items())
    resumed.save(tmp_path / "a")
    undisturbed.save(tmp_path / "b")
    assert (tmp_path / "a" / "state.safetensors").read_bytes() == (tmp_path / "b" / "state.safetensors").read_bytes()


def test_a_second_designer_prunes_within_the_zeros_of_the_first(tmp_path: Path) -> None:
    first = pruned(tmp_path / "first")
    settings = SETTINGS | {"constraint": partial(sparse, rate=6.0)}
    second = prune_synthetic(first, designer(tmp_path / "second"), **settings)
    for targets, support in second.frozen.parts if second.frozen else []:
        assert isinstance(support, Support)
        for target in targets:
            assert int(support.masks[target].sum()) in (9, 144)
            assert not (support.masks[target] & (first.weights[target.parameter] == 0)).any()


def test_the_client_looks_and_retrains(tmp_path: Path) -> None:
    back = pruned(tmp_path / "designer")
    surroundings = context(tmp_path / "client", batch_norm=True)
    received = receive(back, surroundings, start="pruned", original=client())
    assert 0 <= received.metrics["hard/top1_pct"] <= 100
    assert all(torch.equal(value, received.weights[name]) for name, value in back.weights.items())
    original = receive(back, surroundings, start="original", original=client())
    assert original.frozen is not None
    for target, weight in original.frozen.read(original.rebuilt(surroundings.model)).items():
        kept = weight != 0
        assert torch.equal(weight[kept], client().weights[target.parameter][kept])
        assert kept.sum() == (back.weights[target.parameter] != 0).sum()
    after = retrain(received, surroundings, epochs=1, optimizer=partial(torch.optim.SGD, lr=0.05, momentum=0.9), schedule=constant)
    assert after.metrics["weights_outside_set"] == 0
    folded = replace(back, rewrites=[{"_target_": "espalier.rewrites.fold_batch_norm", "skip": []}])
    with pytest.raises(ValueError, match="start=original, but the network was rewritten since"):
        receive(folded, surroundings, start="original", original=client())
    with pytest.raises(ValueError, match="takes a network that an earlier step pruned"):
        receive(client(), surroundings, start="pruned", original=client())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "epochs=0; give at least 1"),
        ({"batches": 0}, "batches=0; give at least 1"),
        ({"objective": "layerwise"}, "objective=layerwise is not one of layer_wise, whole_model"),
        ({"layer_input": "both"}, "layer_input=both is not one of student, teacher"),
        ({"constraint": partial(assign, make=partial(GlobalSparse, UNSTRUCTURED), rate=2.0)}, r"GlobalSparse spans 0, 4.*whole_model"),
        ({"images": BatchNormImages(1, 0.1), "plain": True}, "need batch norms with running statistics"),
        ({"constraint": partial(assign, make=partial(PatternKernels, 2.0), include=["0"]), "kernel": 5}, "is for 3x3 kernels"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    plain, kernel = changes.pop("plain", False), changes.pop("kernel", 3)

    def build() -> nn.Module:
        return nn.Sequential(nn.Conv2d(1, 2, kernel), nn.Flatten()) if plain or kernel != 3 else network(batch_norm=True)

    with pytest.raises(ValueError, match=message):
        prune_synthetic(State(build().state_dict()), designer(tmp_path, model=build), **SETTINGS | changes)


def test_a_loss_that_is_not_finite_and_a_damaged_checkpoint_are_named(tmp_path: Path) -> None:
    with pytest.raises(NonFiniteLossError, match=r"the loss of 0 is not finite in epoch 0 \(learning rate 1e\+30\)"):
        pruned(tmp_path / "loss", optimizer=partial(torch.optim.SGD, lr=1e30))
    (tmp_path / "last.ckpt").write_bytes(b"half a file")
    with pytest.raises(ValueError, match=r"last\.ckpt is damaged"):
        pruned(tmp_path)


def test_units_of_a_residual_network_give_what_the_network_computes() -> None:
    torch.manual_seed(0)
    model = CifarResNet(depth=8, width=0.25, shortcut="conv", num_classes=4, in_channels=3).eval()
    names = [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d)]
    images = torch.randn(2, 3, 8, 8)
    seen: dict[str, torch.Tensor] = {}
    for name in names:
        model.get_submodule(name).register_forward_pre_hook(lambda _, inputs, name=name: seen.__setitem__(name, inputs[0]))
    with torch.no_grad():
        model(images)
        found = units(model, names)
        assert [unit.name for unit in found][:3] == ["conv1", "layer1.0.conv1", "layer1.0.conv2"]
        assert {unit.name for unit in found} == set(names)
        for unit in found:
            inputs = seen[unit.name].clone()
            assert torch.equal(unit.before(images), inputs)
            torch.testing.assert_close(unit(inputs), unit.through(images))
            assert unit.relu == unit.name.endswith("conv1")
            assert len(unit.modules) == 2


def test_layers_that_cannot_be_matched_one_by_one_are_named() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 1, 3, padding=1)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.conv(self.conv(images))

    class Branching(Twice):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.conv(images) if images.sum() > 0 else images

    with pytest.raises(ValueError, match="layer conv is called 2 times"):
        units(Twice(), ["conv"])
    with pytest.raises(ValueError, match=r"torch\.fx cannot follow Branching .*objective: whole_model"):
        units(Branching(), ["conv"])


@pytest.mark.parametrize("images", [GaussianImages(), SmoothedImages(3), BatchNormImages(2, 0.1)], ids=lambda images: type(images).__name__)
def test_other_images_prune_as_well(tmp_path: Path, images: Any) -> None:
    assert pruned(tmp_path, images=images, epochs=1).metrics["weights_outside_set"] == 0


QUICK = ["budgets.smoke.width=0.25", *(f"budgets.smoke.{key}=1" for key in ("train", "batches", "retrain", "magnitude_retrain"))]


def row(name: str, *overrides: str) -> Record:
    job = plan("privacy-pruning/cifar10", row=name, scale="smoke", seed=0, overrides=[*QUICK, *overrides])
    return execute(job, store=Store(), command="")


def test_rows_prune_through_their_recipes_and_share_the_dense_network(store_folder: Path) -> None:
    layer = row("layer-4.5x")
    assert layer.metrics["train/epochs"] == 1 + 4 * 4 + 1
    assert layer.metrics["synthetic/epochs"] == 4 * 4
    masked = row("layer-mask-2.25x")
    assert masked.steps["prune"] == row("layer-2.25x").steps["prune"]
    assert masked.metrics["train/epochs"] == 1 + 4 * 4 + 1
    assert layer.metrics["weights_outside_set"] == 0
    assert 3.5 < (layer.metrics["conv_rate"] or 0) < 4.5  # the first convolution keeps every kernel
    assert layer.metrics["layer/rate/features.0.weight"] == 2.25
    assert "hard/top1_pct" in layer.metrics
    greedy = row("greedy6-2.25x")
    assert greedy.metrics["conv_rate"] == 2.25
    assert 80 < (greedy.metrics["patterns/energy_vs_best4_pct"] or 0) <= 100  # std8 keeps 80 % on random ones
    assert layer.steps["train"] == greedy.steps["train"]


@pytest.mark.parametrize("name", ["uniform", "gaussian", "smoothed", "bn_matched"])
def test_every_source_of_images_is_a_word(name: str) -> None:
    register_rows("privacy-pruning/cifar10", "smoke")
    config = resolved(composed("privacy-pruning/cifar10", ["row=layer-4.5x", "scale=smoke", f"images@recipe.steps.prune.images={name}"]))
    images = built(config["recipe"]["steps"]["prune"]["images"])
    assert type(images) in (UniformImages, GaussianImages, SmoothedImages, BatchNormImages)
    assert (type(images) is UniformImages) == (name == "uniform")


@pytest.mark.parametrize("scale", ["smoke", "desk", "paper"])
def test_the_whole_network_is_given_the_epochs_of_all_layers(scale: str) -> None:
    register_rows("privacy-pruning/cifar10", scale)
    prunes = [resolved(composed("privacy-pruning/cifar10", [f"row={name}", f"scale={scale}"])) for name in ("layer-4.5x", "whole-4.5x")]
    layer, whole = (config["recipe"]["steps"]["prune"] for config in prunes)
    with torch.device("meta"):
        layers = len(assigner(layer["constraint"])(built(prunes[0]["model"])).targets)
    assert (layer["objective"], whole["objective"]) == ("layer_wise", "whole_model")
    assert whole["epochs"] == layers * layer["epochs"]
    assert {**whole, "objective": layer["objective"], "epochs": layer["epochs"]} == layer
