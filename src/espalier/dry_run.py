"""What a run would do, before it does it: layers, sets, rates, bytes, epochs."""

from rich.table import Table as Grid

from espalier.constraints import Assignment, Sparse, SupportSet
from espalier.runner import Job
from espalier.stepping import assigner, model_of


def outline(job: Job) -> Grid:
    """Return one line a step and, for constrain steps, one a layer: structure, kept groups, weights and bytes."""
    grid = Grid("step", "layer", "set", "kept groups", "kept weights", "fp32 bytes kept", "epochs", title=job.name)
    model = model_of(job.config)
    for name, step in job.config["recipe"]["steps"].items():
        grid.add_row(name, "", "", "", "", "", str(step.get("epochs", 0)))
        if not isinstance(step.get("constraint"), dict):
            continue
        assignment: Assignment = assigner(step["constraint"], job.data.input_shape)(model)
        for targets, part in assignment.parts:
            weights = {target: target.read(model) for target in targets}
            masks = part.masks(weights) if isinstance(part, SupportSet) else {}
            what = part.label if isinstance(part, SupportSet) else type(part).__name__
            for target, weight in weights.items():
                kept = int(masks[target].sum()) if target in masks else weight.numel()
                groups = "{:,} of {:,}".format(*part.count(weight.shape)) if isinstance(part, Sparse) else ""
                num_bytes = kept * weight.element_size()
                grid.add_row("", str(target), what, groups, f"{kept:,} of {weight.numel():,}", f"{num_bytes:,}", "")
    return grid
