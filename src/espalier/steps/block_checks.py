"""Checks of grim on masks: that kernels compute what they should, what indices cost, and whether trained masks run like random ones."""

import itertools
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from espalier.compiler.isas import detect
from espalier.constraints import BlockRowsColumns, Target, as_frozen
from espalier.frames.layer_kernels import Case, Layer, by_filters, by_panels, by_vector, drawn, errors_of, timed
from espalier.frames.panels import Panel
from espalier.steps.context import Context
from espalier.steps.measuring import measures
from espalier.steps.state import State
from espalier.steps.training import Assign, restored, weights_of
from espalier.storage import encode_bcrc
from espalier.storage.bcrc import NUMBER_BYTES

TARGET = Target("layer.weight")
PANELS = (Panel(1, 4), Panel(4, 2), Panel(4, 2, pixels_outer=True))
PAIRED_ROWS = 2  # mean rows of a group from which on the format must pay


@measures
def kernel_errors(
    state: State, context: Context, *, layers: Sequence[Sequence[int]], blocks: Sequence[Sequence[int]], rates: Sequence[float]
) -> State:
    """Run every kernel on random masks with empty rows and blocks; record the largest error against PyTorch (grim, claim 1).

    Args:
        state: Any state; its weights stay as they are.
        context: The step's surroundings; its seed draws weights, inputs and masks.
        layers: Filters, channels, the kernel's side and the map's side of each; a map of one pixel is a matrix-vector product.
        blocks: Rows and columns of a block, each with every layer.
        rates: All / kept weights, columns and rows pruned.
    """
    isa, generator = detect(), torch.Generator().manual_seed(context.seed)
    cases: list[Case] = []
    for shape, size, rate in itertools.product(layers, blocks, rates):
        made = drawn(shape, generator)
        mask = BlockRowsColumns(rate, size, columns=rate**0.5).freeze({TARGET: made.weight}).masks[TARGET]
        mask[shape[0] // 2] = False
        mask[: size[0], : max(1, shape[1] // 2)] = False
        pruned = made.pruned(mask)
        cases += [by_filters(pruned, isa), *(by_panels(pruned, isa, panel) for panel in PANELS)]
        cases.append(by_panels(pruned, isa, PANELS[0], grouped=False))
        cases += [by_vector(pruned, isa)] if tuple(shape[2:]) == (1, 1) else []
    figures = {"max_rel_error": max(errors_of(cases, isa)), "check/kernels": float(len(cases))}
    return replace(state, weights=weights_of(restored(state, context)), metrics={**state.metrics, **figures})


def index_bytes(
    state: State, context: Context, *, shape: Sequence[int], rates: Sequence[float], rows: Sequence[int], columns: int
) -> State:
    """Count the bytes of indices in BCRC and as compressed sparse rows, over block heights and rates (grim, claim 5).

    Column numbers take 2 bytes in BCRC and 4 in the other, as the claim counts them; recorded as well is the share with 4 in both.

    Args:
        state: Any state; its weights stay as they are.
        context: The step's surroundings; its seed draws the masks.
        shape: Rows and columns of the matrix.
        rates: All / kept weights; columns of blocks alone are pruned, as many of every block.
        rows: Rows of a block.
        columns: Columns of a block.
    """
    generator = torch.Generator().manual_seed(context.seed)
    figures: dict[str, float] = {}
    paired, single = [], []
    for height, rate in itertools.product(rows, rates):
        weight = torch.randn(*shape, generator=generator)
        made = BlockRowsColumns(rate, (height, columns), columns=rate, balanced=height > 1)
        found = encode_bcrc(weight, made.freeze({TARGET: weight}).masks[TARGET])
        share = found.index_bytes / found.csr_index_bytes
        figures[f"bcrc/index_bytes/{height}-{rate:g}x"] = float(found.index_bytes)
        figures[f"bcrc/share_of_csr/{height}-{rate:g}x"] = share
        figures[f"bcrc/share_equal_width/{height}-{rate:g}x"] = found.index_bytes_with(NUMBER_BYTES) / found.csr_index_bytes
        if found.rows_per_group >= PAIRED_ROWS:
            paired.append(share)
        if found.num_groups == shape[0]:
            single.append((found.index_bytes_with(NUMBER_BYTES) - found.csr_index_bytes) / shape[0])
    figures |= {"bcrc/share_of_csr_max": max(paired)} if paired else {}
    figures |= {"bcrc/excess_per_row_max": max(single)} if single else {}
    return replace(state, weights=weights_of(restored(state, context)), metrics={**state.metrics, **figures})


@measures
def trained_masks(state: State, context: Context, *, constraint: Assign, num_warmup: int, num_runs: int) -> State:
    """Time the pruned convolutions with their trained masks and with random ones of the same set (grim, claim 4).

    Recorded: by how many percent the trained mask takes longer than the random one, layer by layer and the largest distance. The random
    mask is what the set keeps of random weights; template F with the knobs of its rule runs both, on the trained weights.

    Args:
        state: A network whose convolutions an earlier step constrained.
        context: The step's surroundings; its seed draws random weights and inputs.
        constraint: Gives each layer the set that it was constrained to.
        num_warmup: Rounds before the clock counts.
        num_runs: Rounds timed.

    Raises:
        ValueError: No convolution is frozen.
    """
    isa, generator = detect(), torch.Generator().manual_seed(context.seed)
    model = restored(state, context)
    frozen = {} if state.frozen is None else {target: as_frozen(part) for targets, part in state.frozen.parts for target in targets}
    inputs = _inputs(model, torch.randn(1, *context.data.input_shape, generator=generator))
    cases: dict[str, list[Case]] = {}
    for targets, asked in constraint(model).parts:
        for target in targets:
            name = target.parameter.removesuffix(".weight")
            if name not in inputs or target not in frozen:
                continue
            weight = target.read(model).detach()
            layer = Layer(weight, torch.zeros(len(weight)), inputs[name])
            random = as_frozen(asked.freeze({target: torch.randn(weight.shape, generator=generator)})).kept(target)
            for kind, mask in (("trained", frozen[target].kept(target)), ("random", random)):
                cases[f"{kind}/{name}"] = [by_filters(layer.pruned(mask), isa)]
    if not cases:
        raise ValueError(f"step '{context.name}' times pruned convolutions, but no earlier step froze one of stride 1; constrain some.")
    found = timed(cases, num_warmup=num_warmup, num_runs=num_runs, num_search=1, isa=isa)
    names = [name.removeprefix("trained/") for name in cases if name.startswith("trained/")]
    gaps = {name: 100 * (found.ms[f"trained/{name}"] / found.ms[f"random/{name}"] - 1) for name in names}
    figures = {f"masks/time_gap_pct/{name}": gap for name, gap in gaps.items()}
    figures["masks/time_gap_max_pct"] = max(abs(gap) for gap in gaps.values())
    return replace(state, metrics={**state.metrics, **figures, "max_rel_error": found.max_rel_error})


def _inputs(model: nn.Module, example: Tensor) -> dict[str, Tensor]:
    """Return the input of every ungrouped convolution that keeps the size of its map, ``(channels, height, width)``."""
    found: dict[str, Tensor] = {}

    def note(name: str, module: nn.Conv2d, given: tuple[Tensor, ...]) -> None:
        same = all(size % 2 and padding == size // 2 for size, padding in zip(module.kernel_size, module.padding, strict=True))
        if module.groups == 1 and set(module.stride) == set(module.dilation) == {1} and same:
            found[name] = given[0][0].detach().clone()

    layers = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.Conv2d)]
    hooks = [module.register_forward_pre_hook(lambda module, given, name=name: note(name, module, given)) for name, module in layers]
    with torch.no_grad():
        model.eval()(example)
    for hook in hooks:
        hook.remove()
    return found
