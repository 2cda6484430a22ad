"""Train parts of a network, one after the other, to match a trained network on synthetic images; a plain loop without labels.

It keeps a checkpoint after every epoch and reseeds before each, as ``fit`` does: an interrupted run ends as an undisturbed one.
"""

import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from espalier.constraints import Assignment
from espalier.files import replacing
from espalier.methods import Method
from espalier.steps.context import DesignerContext
from espalier.steps.fit import Optimizer, Schedule, subnormals_flushed
from espalier.tasks import NonFiniteLossError
from espalier.tasks.journal import Series, by_epoch, reseed

Matcher = Callable[[Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Part:
    """What is trained at one time.

    Args:
        name: For figures and messages.
        assignment: The sets of its weights.
        parameters: What the optimizer moves.
        outputs: Images -> (output, what it should be).
    """

    name: str
    assignment: Assignment
    parameters: Sequence[nn.Parameter]
    outputs: Matcher


@dataclass
class Progress:
    """How far the matching has come.

    Args:
        epochs: Epochs done, over all parts.
        series: Figures by epoch.
        frozen: States of the sets that the parts done so far settled in.
    """

    epochs: int = 0
    series: Series = field(default_factory=dict)
    frozen: list[dict[str, Any]] = field(default_factory=list)


@subnormals_flushed()
def match(
    model: nn.Module,
    parts: Sequence[Part],
    context: DesignerContext,
    *,
    epochs: int,
    batches: int,
    draw: Callable[[], Tensor],
    optimizer: Optimizer,
    schedule: Schedule,
    method: Callable[[Assignment], Method],
    first_epoch: int,
) -> Progress:
    """Train ``model`` in place, part by part, and settle each part in its sets before the next begins.

    The loss is the mean over batch and elements of the squared difference of outputs.

    Args:
        model: The network that the parts belong to, in evaluation mode.
        parts: In order.
        context: The step's surroundings.
        epochs: Epochs of each part, at least 1.
        batches: Batches an epoch.
        draw: Returns a new batch of images.
        optimizer: Parameters -> optimizer, made anew for every part.
        schedule: ``(epoch, epochs, milestones)`` -> factor on the learning rate.
        method: Builds the method from a part's sets.
        first_epoch: Epochs trained before this step.

    Raises:
        ValueError: The checkpoint is damaged; the message names it.
        NonFiniteLossError: The loss became NaN or infinite.
    """
    progress, kept = _resumed(model, context)
    for epoch, figures in by_epoch(progress.series, after=first_epoch):
        context.on_epoch(epoch, figures)
    for index, part in enumerate(parts):
        done = progress.epochs - index * epochs
        if done >= epochs:
            continue
        runner, stepper = method(part.assignment), optimizer(part.parameters)
        rates = [group["lr"] for group in stepper.param_groups]
        _begin(model, runner, stepper, kept if done else None)
        for epoch in range(done, epochs):
            reseed(f"{context.seed}/{context.key}/{progress.epochs}")
            factor = schedule(epoch, epochs, runner.milestones)
            for group, rate in zip(stepper.param_groups, rates, strict=True):
                group["lr"] = rate * factor
            loss = _epoch(model, part, context, stepper, runner, batches=batches, draw=draw)
            if not loss < float("inf"):
                raise NonFiniteLossError(
                    f"step '{context.name}': the loss of {part.name} is not finite in epoch {epoch} (learning rate {rates[0] * factor:g}); "
                    "lower the rate. The epochs before are kept."
                )
            runner.epoch_end(model)
            figures = {"train/lr": rates[0] * factor, "synthetic/loss": loss, **runner.figures}
            if epoch == epochs - 1:
                progress.frozen.append(runner.settle(model).state_dict())
                figures |= {f"synthetic/error/{part.name}": relative_error(part, draw())}
            _note(progress, first_epoch, figures)
            _save(context, progress, model, runner, stepper)
            context.on_epoch(first_epoch + progress.epochs, figures)
    return progress


@torch.no_grad()
def relative_error(part: Part, images: Tensor) -> float:
    """Return ``||output - wanted|| / ||wanted||`` (Frobenius) on a batch (privacy-pruning, P8)."""
    output, wanted = part.outputs(images)
    return float((output - wanted).norm() / wanted.norm().clamp_min(1e-12))


def _epoch(
    model: nn.Module,
    part: Part,
    context: DesignerContext,
    stepper: torch.optim.Optimizer,
    runner: Method,
    *,
    batches: int,
    draw: Callable[[], Tensor],
) -> float:
    clip = context.trainer["gradient_clip_val"]
    total = torch.zeros(())
    for _ in range(batches):
        stepper.zero_grad()
        output, wanted = part.outputs(draw())
        loss = nn.functional.mse_loss(output, wanted)
        loss.backward()  # type: ignore[no-untyped-call]
        if clip is not None:
            nn.utils.clip_grad_norm_(part.parameters, clip)
        runner.add_penalty_grad(model)
        stepper.step()
        runner.after_step(model)
        total = total.to(loss.device) + loss.detach()
    return float(total) / batches


def _begin(model: nn.Module, runner: Method, stepper: torch.optim.Optimizer, kept: dict[str, Any] | None) -> None:
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    runner.start(model)
    if kept is not None:  # start() took the weights of now for those of then, and may have moved them
        model.load_state_dict(weights)
        runner.load_state_dict(kept["method"])
        stepper.load_state_dict(kept["optimizer"])


def _note(progress: Progress, first_epoch: int, figures: dict[str, float]) -> None:
    progress.epochs += 1
    for name, value in figures.items():
        progress.series.setdefault(name, []).append([first_epoch + progress.epochs, value])


def _save(context: DesignerContext, progress: Progress, model: nn.Module, runner: Method, stepper: torch.optim.Optimizer) -> None:
    content = {
        "weights": model.state_dict(),
        "method": runner.state_dict(),
        "optimizer": stepper.state_dict(),
        "progress": {"epochs": progress.epochs, "series": progress.series, "frozen": progress.frozen},
    }
    context.folder.mkdir(parents=True, exist_ok=True)
    with replacing(context.folder / "last.ckpt") as temporary:
        torch.save(content, temporary)


def _resumed(model: nn.Module, context: DesignerContext) -> tuple[Progress, dict[str, Any]]:
    path = context.folder / "last.ckpt"
    if not path.exists():
        return Progress(), {}
    try:
        kept: dict[str, Any] = torch.load(path, map_location=next(model.parameters()).device, weights_only=True)
        model.load_state_dict(kept["weights"])
        return Progress(**kept["progress"]), kept
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, TypeError, pickle.UnpicklingError) as error:
        raise ValueError(f"{path} is damaged ({error}); delete it, the step then starts from its first epoch.") from error
