"""The same method in a bare PyTorch loop and under Lightning: bit-identical weights, and no weight leaves its frozen set."""

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from espalier.constraints import FILTER, UNSTRUCTURED, Assignment, Sparse, Structure, UniformLevels, assign
from espalier.data import ImageData, Split
from espalier.methods import ADMM, MaskedRetraining, PartialMap, RhoSchedule
from espalier.methods.method import Method
from espalier.steps import Context
from espalier.steps.fit import fit
from espalier.tasks import Classification, constant

Optimizer = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
OPTIMIZERS: dict[str, Optimizer] = {
    "sgd": partial(torch.optim.SGD, lr=0.05, momentum=0.9, weight_decay=1e-2),
    "adamw": partial(torch.optim.AdamW, lr=0.01, weight_decay=0.1),
}


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 36, 4))


def data() -> ImageData:
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (96, 1, 8, 8), generator=generator, dtype=torch.uint8)
    split = Split(images, torch.randint(0, 4, (96,), generator=generator))
    return ImageData("noise", split, split, split, 4, batch_size=32, eval_batch_size=96, mean=0.5, std=0.3, channels_last=False)


def context(folder: Path, clip: float | None) -> Context:
    trainer = {"accelerator": "cpu", "devices": 1, "gradient_clip_val": clip, "enable_progress_bar": False}
    task = partial(Classification, label_smoothing=0.0)
    return Context("step", "key", 0, folder, data(), network, task, trainer, test_every_epoch=False, on_epoch=lambda *_: None)


def sparse(model: nn.Module, structure: Structure = UNSTRUCTURED) -> Assignment:
    return assign(model, partial(Sparse, structure), rate=3.0)


def bare_loop(
    model: nn.Module, method: Method, optimizer: Optimizer, *, epochs: int, clip: float | None, watch: Assignment | None = None
) -> None:
    stepper, loader = optimizer(model.parameters()), data().train_loader(0)
    method.start(model)
    for epoch in range(epochs):
        loader.set_epoch(epoch)
        for images, labels in loader:
            stepper.zero_grad()
            F.cross_entropy(model(images), labels).backward()
            if clip is not None:
                nn.utils.clip_grad_norm_(model.parameters(), clip)
            method.add_penalty_grad(model)
            stepper.step()
            method.after_step(model)
            if watch is not None:
                assert watch.outside(watch.read(model)) == 0
        method.epoch_end(model)


@pytest.mark.parametrize("clip", [None, 0.1], ids=["no clipping", "clipping"])
@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("structure", [UNSTRUCTURED, FILTER], ids=lambda structure: structure.name)
def test_bare_loop_and_lightning_agree_bit_for_bit(tmp_path: Path, structure: Structure, name: str, clip: float | None) -> None:
    models = {"bare": network(), "lightning": network()}
    for loop, model in models.items():
        rho = RhoSchedule(start=0.1, growth=1.5)
        admm = ADMM(sparse(model, structure), epochs=3, num_periods=3, rho=rho)
        if loop == "bare":
            bare_loop(model, admm, OPTIMIZERS[name], epochs=3, clip=clip)
        else:
            fit(
                model,
                context(tmp_path / "admm", clip),
                epochs=3,
                first_epoch=0,
                optimizer=OPTIMIZERS[name],
                schedule=constant,
                method=admm,
            )
        frozen = admm.assignment.freeze(admm.assignment.read(model))
        masked = MaskedRetraining(frozen)
        if loop == "bare":
            bare_loop(model, masked, OPTIMIZERS[name], epochs=2, clip=clip, watch=frozen)
        else:
            fit(
                model,
                context(tmp_path / "masked", clip),
                epochs=2,
                first_epoch=3,
                optimizer=OPTIMIZERS[name],
                schedule=constant,
                method=masked,
            )
        assert frozen.outside(frozen.read(model)) == 0
    for bare, lightning in zip(models["bare"].parameters(), models["lightning"].parameters(), strict=True):
        assert torch.equal(bare, lightning)
        assert bare.ndim == 1 or torch.equal(bare == 0, lightning == 0)


@pytest.mark.parametrize(
    ("start", "growth", "stages", "expected"),
    [(1e-3, 1.0, 1, [1e-3] * 4), (1e-3, 1.3, 1, [1e-3, 1.3e-3, 1.69e-3, 2.197e-3]), (1e-4, 10.0, 4, [1e-4, 1e-3, 1e-2, 1e-1])],
    ids=["const", "grow1.3", "multi_rho"],
)
def test_rho_follows_its_schedule(start: float, growth: float, stages: int, expected: list[float]) -> None:
    schedule = RhoSchedule(start, growth, stages)
    assert [schedule.rho(period, 4) for period in range(4)] == pytest.approx(expected)


@pytest.mark.parametrize("dual", [True, False])
def test_admm_refreshes_as_the_paper_writes_it(dual: bool) -> None:
    model = network()
    assignment = sparse(model)
    admm = ADMM(assignment, epochs=4, num_periods=2, rho=RhoSchedule(0.2, 2.0), dual=dual)
    admm.start(model)
    w0 = assignment.read(model)
    z, u = assignment.project(w0), {target: torch.zeros_like(weight) for target, weight in w0.items()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.01)
    admm.add_penalty_grad(model)
    weights = assignment.read(model)
    for target in assignment.targets:
        gradient = model.get_parameter(target.parameter).grad
        torch.testing.assert_close(gradient, 0.2 * (weights[target] - z[target] + u[target]))
    admm.epoch_end(model)
    assert admm.figures == {}
    admm.epoch_end(model)  # epoch 2 of 4: the first of two periods ends
    z = assignment.project({target: weights[target] + u[target] for target in weights})
    for target in assignment.targets:
        torch.testing.assert_close(admm.z[target], z[target])
        torch.testing.assert_close(admm.u[target], weights[target] - z[target] if dual else u[target])
    assert admm.rho == pytest.approx(0.4)
    assert 0 < admm.figures["admm/residual_max"] < 1


def test_each_stage_of_multi_rho_starts_with_a_zero_dual() -> None:
    model = network()
    admm = ADMM(sparse(model), epochs=4, num_periods=4, rho=RhoSchedule(1e-4, 10.0, stages=2))
    admm.start(model)
    zero = []
    for _ in range(3):
        admm.epoch_end(model)
        zero.append(all(not u.any() for u in admm.u.values()))
    assert zero == [False, True, False]


def test_a_partial_map_snaps_the_closest_share_of_each_level_and_keeps_its_codebook(tmp_path: Path) -> None:
    model = network()
    levels = assign(model, partial(UniformLevels, 3, zero=False))
    weights = levels.read(model)
    nearest = levels.project(weights)
    method = PartialMap(levels, epochs=2, fractions=[0.3, 0.9])
    method.start(model)
    for target in levels.targets:
        distance = (weights[target] - nearest[target]).abs().flatten().tolist()
        level = nearest[target].flatten().tolist()
        expected = set()
        for value in set(level):
            members = sorted((index for index, at in enumerate(level) if at == value), key=lambda index: distance[index])
            expected |= set(members[: -(-len(members) * 3 // 10)])
        assert set(method.held.pinned[target].flatten().nonzero().flatten().tolist()) == expected
    bare_loop(model, method, OPTIMIZERS["sgd"], epochs=2, clip=None)
    final = method.assignment.project(method.assignment.read(model))
    for target in levels.targets:
        assert set(final[target].unique().tolist()) <= set(nearest[target].unique().tolist())
    assert method.figures["map/snapped_pct"] == pytest.approx(90, abs=2)


def test_a_partial_map_refuses_a_sparsity_structure() -> None:
    with pytest.raises(ValueError, match="level sets"):
        PartialMap(sparse(network()), epochs=2, fractions=[0.3])


@pytest.mark.parametrize("kind", ["admm", "masked", "partial_map"])
def test_a_restored_method_goes_on_as_if_nothing_had_happened(tmp_path: Path, kind: str) -> None:
    def make(model: nn.Module) -> Method:
        if kind == "admm":
            return ADMM(sparse(model), epochs=4, num_periods=4, rho=RhoSchedule(0.1, 1.5))
        if kind == "masked":
            return MaskedRetraining(sparse(model).freeze(sparse(model).read(model)))
        return PartialMap(assign(model, partial(UniformLevels, 3, zero=False)), epochs=4, fractions=[0.3, 0.6, 0.9])

    ends = {}
    for interrupted in (False, True):
        model = network()
        stopped: list[bool] = []

        def stop(progress: int, _: dict[str, float], *, at: bool = interrupted, stopped: list[bool] = stopped) -> None:
            if at and progress == 2 and not stopped:
                stopped.append(True)
                raise KeyError("stopped")

        place = tmp_path / str(interrupted)
        surroundings = Context(**{**vars(context(place, None)), "on_epoch": stop})
        arguments = {"epochs": 4, "first_epoch": 0, "optimizer": OPTIMIZERS["sgd"], "schedule": constant}
        if interrupted:
            with pytest.raises(KeyError, match="stopped"):
                fit(model, surroundings, method=make(model), **arguments)  # type: ignore[arg-type]
            model = network()
        ends[interrupted] = fit(model, surroundings, method=make(model), **arguments)  # type: ignore[arg-type]
    assert ends[True].series == ends[False].series
    for name, weight in ends[False].last.items():
        assert torch.equal(weight, ends[True].last[name])
        assert torch.equal(ends[False].best[name], ends[True].best[name])


def test_a_loss_that_is_not_finite_stops_with_the_step_and_keeps_the_checkpoint(tmp_path: Path) -> None:
    explode = partial(torch.optim.SGD, lr=1e30)
    with pytest.raises(ValueError, match=r"not finite at step 1 of epoch 0.*gradient_clip_val"):
        fit(network(), context(tmp_path, None), epochs=2, first_epoch=0, optimizer=explode, schedule=constant, method=None)


def test_a_damaged_resume_checkpoint_is_named(tmp_path: Path) -> None:
    (tmp_path / "last.ckpt").write_bytes(b"half a file")
    with pytest.raises(ValueError, match=r"last\.ckpt is damaged"):
        fit(network(), context(tmp_path, None), epochs=1, first_epoch=0, optimizer=OPTIMIZERS["sgd"], schedule=constant, method=None)
