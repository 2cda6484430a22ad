"""The steps of P-RM after the retraining: silence what is empty, remove unused paths, purify, and cut what is left.  Source: prm, N3-N5."""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from espalier.constraints import Assignment, Pinned, Support, Target
from espalier.constraints.frozen import Frozen, as_frozen
from espalier.frames.cpu import interleaved
from espalier.methods.purification import Purification
from espalier.rewrites.channels import ChannelGraph
from espalier.rewrites.shrink import shrunk
from espalier.rewrites.unused_paths import Kept, merged, remove_unused_paths
from espalier.rewrites.unused_paths import silence as silenced
from espalier.steps.context import Context
from espalier.steps.measuring import measures
from espalier.steps.state import State
from espalier.steps.training import hard_figures, restored, weights_of
from espalier.tasks import accuracy


@torch.no_grad()
def silence(state: State, context: Context) -> State:
    """Set bias, gamma and beta of empty filters to zero and hold them there; before the retraining, because outputs may change.

    Args:
        state: A network whose filters were pruned.
        context: The step's surroundings.
    """
    model, kept = silenced(restored(state, context), _example(context))
    metrics = {**state.metrics, "val/top1_pct": accuracy(model, context.data.val_loader())}
    return replace(state, weights=weights_of(model), frozen=held_in(state.frozen, kept), metrics=metrics)


@torch.no_grad()
def unused_paths(state: State, context: Context) -> State:
    """Remove unused paths, hold them at zero from here on, and record the largest change of a logit on the held-out images.

    Args:
        state: A pruned network.
        context: The step's surroundings.
    """
    model = restored(state, context)
    removal = remove_unused_paths(model, _example(context))
    metrics = {
        **state.metrics,
        "paths/logits_change_max": _largest_change(model, removal.model, context),
        "paths/sweeps": float(removal.sweeps),
        "paths/empty_groups": float(removal.empty_groups),
        "val/top1_pct": accuracy(removal.model, context.data.val_loader()),
    }
    return replace(state, weights=weights_of(removal.model), frozen=held_in(state.frozen, removal.kept), metrics=metrics)


@torch.no_grad()
def purify(state: State, context: Context, *, purification: Purification, rounds: int) -> State:
    """Remove redundant channels, columns and filters, then the paths that this leaves unused, until nothing changes.

    Purified are layers whose channels have several columns: convolutions with a kernel, and linear layers that see flattened maps; those
    that see the network's input keep it. The accuracy before any retraining is recorded as in ``constrain``.

    Args:
        state: A pruned and retrained network.
        context: The step's surroundings.
        purification: The rule that says which channels go.
        rounds: Rounds of purification and unused path removal, at the most; 0 purifies once and removes no paths.

    Raises:
        ValueError: No layer has channels of several columns.
    """
    model, example = restored(state, context), _example(context)
    limits = {name: purification.limit(weight) for name, weight in _purified(model, example).items()}
    if not limits:
        raise ValueError(
            f"step '{context.name}': {type(model).__name__} has no layer behind another whose channels have several columns (a convolution "
            "with a kernel, a linear layer that sees flattened maps), so there is nothing to purify; take unused_paths alone."
        )
    kept: Kept = {}
    sweeps = state.metrics.get("paths/sweeps", 0.0)
    channels = disputed = done = 0
    for _ in range(max(rounds, 1)):
        before = weights_of(model)
        masks, emptied, differing = _purify_once(model, example, purification, limits)
        channels += emptied
        disputed += differing
        kept = merged(kept, masks)
        done += 1
        if not rounds:
            break
        model, quiet = silenced(model, example)
        removal = remove_unused_paths(model, example)
        model, kept = removal.model, merged(merged(kept, quiet), removal.kept)
        sweeps = max(sweeps, removal.sweeps)
        if all(torch.equal(value, before[name]) for name, value in model.state_dict().items()):
            break
    hard = hard_figures(model, context)
    metrics = {
        **state.metrics,
        **hard,
        "val/top1_pct": hard["hard/top1_pct"],
        "paths/sweeps": float(sweeps),
        "paths/rounds": float(done),
        "purified/channels": float(channels),
    }
    if purification.by != "both":
        metrics["purified/disputed"] = float(disputed)
    return replace(state, weights=weights_of(model), frozen=held_in(state.frozen, kept), metrics=metrics)


@measures
@torch.no_grad()
def shrink(state: State, context: Context, *, batch_size: int, num_runs: int) -> State:
    """Cut the network to what is in use; record the largest change of a logit on the held-out images and what is gained in time.

    Args:
        state: A pruned network.
        context: The step's surroundings.
        batch_size: Images a timed pass.
        num_runs: Passes of each network, taken in turn on one thread; the medians are compared.
    """
    model = restored(state, context).eval()
    images = next(iter(context.data.val_loader()))[0]
    small = shrunk(model, images)
    batch = images[:batch_size]
    large_ms, small_ms = interleaved([model, small.model], batch, num_warmup=3, num_runs=num_runs)
    metrics = {
        **state.metrics,
        "shrunk/logits_change_max": _largest_change(model, small.model, context),
        "shrunk/speedup": large_ms / small_ms,
        "val/top1_pct": accuracy(small.model, context.data.val_loader()),
    }
    return replace(
        state,
        weights=weights_of(small.model),
        frozen=small.frozen(state.frozen),
        metrics=metrics,
        rewrites=[*state.rewrites, small.rewrite],
    )


def held_in(frozen: Assignment | None, kept: Kept) -> Assignment | None:
    """Return frozen sets that also hold at zero what the masks leave out.

    Raises:
        ValueError: A slice of such a parameter is frozen by itself.
    """
    sets: dict[Target, Frozen] = {target: as_frozen(part) for targets, part in frozen.parts for target in targets} if frozen else {}
    for name, mask in kept.items():
        target = Target(name)
        if bool(mask.all()):
            continue
        if slices := [other for other in sets if other != target and other.overlaps(target)]:
            raise ValueError(f"an earlier step froze {slices[0]}, a slice of {name}; freeze the whole parameter to remove paths from it.")
        sets[target] = _narrowed(sets.get(target), target, mask)
    return Assignment([((target,), part) for target, part in sets.items()]) if sets else None


def _narrowed(held: Frozen | None, target: Target, mask: Tensor) -> Frozen:
    if isinstance(held, Pinned):
        values = torch.where(mask, held.values[target], 0.0)
        return Pinned({target: values}, {target: held.pinned[target] | ~mask}, {target: held.kept(target) & mask})
    if isinstance(held, Support):
        return Support({target: held.masks[target] & mask}, held.structure)
    return Support({target: mask.clone()}, "unused paths")


def _purified(model: nn.Module, example: Tensor) -> dict[str, Tensor]:
    """Return parameter -> weight ``(F, C, D)`` of the layers whose channels have several columns."""
    graph = ChannelGraph(model, example)
    found = {}
    for node in graph.of_kind("layer"):
        source = graph.by_name[node.sources[0]]
        while source.kind in ("same", "norm", "flatten"):
            source = graph.by_name[source.sources[0]]
        weight = model.get_parameter(f"{node.module}.weight").detach()
        if source.kind != "opaque" and weight.numel() > len(weight) * source.channels:
            found[f"{node.module}.weight"] = weight.reshape(len(weight), source.channels, -1)
    return found


def _purify_once(model: nn.Module, example: Tensor, purification: Purification, limits: Mapping[str, float]) -> tuple[Kept, int, int]:
    """Empty what the rule finds, in place.

    Returns:
        The masks of what stays, the number of channels that were emptied, and of those that ``both`` would treat otherwise.
    """
    masks: Kept = {}
    emptied = disputed = owed = 0
    both = replace(purification, by="both")
    for name, weight_FCD in _purified(model, example).items():
        stays_FCD, owed = purification.kept(weight_FCD, limit=limits[name], owed=owed)
        by_both_FCD, _ = both.kept(weight_FCD, limit=limits[name])
        disputed += int((stays_FCD != by_both_FCD).any(2).any(0).sum())
        parameter = model.get_parameter(name).detach()
        emptied += int((weight_FCD.count_nonzero((0, 2)) > 0).sum() - stays_FCD.any(2).any(0).sum())
        masks[name] = (stays_FCD | (weight_FCD == 0)).reshape(parameter.shape)
        parameter.masked_fill_(~masks[name], 0.0)
    return masks, emptied, disputed


def _example(context: Context) -> Tensor:
    return torch.zeros(1, *context.data.input_shape)


def _largest_change(model: nn.Module, other: nn.Module, context: Context) -> float:
    model.eval()
    other.eval()
    return max(float((model(images) - other(images)).abs().max()) for images, _ in context.data.val_loader())
