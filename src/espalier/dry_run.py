"""What a run would do, before it does it: layers, sets, rates, bytes, epochs."""

from rich.table import Table as Grid

from espalier.constraints import Assignment, Sparse
from espalier.runner import Job
from espalier.stepping import assigner, model_of


def outline(job: Job) -> Grid:
    """Return one line a step and, for constrain steps, one a layer: structure, kept groups, weights and bytes."""
    grid = Grid("step", "layer", "set", "kept groups", "weights", "fp32 bytes kept", "epochs", title=job.name)
    model = model_of(job.config)
    for name, step in job.config["recipe"]["steps"].items():
        grid.add_row(name, "", "", "", "", "", str(step.get("epochs", 0)))
        if not isinstance(step.get("constraint"), dict):
            continue
        assignment: Assignment = assigner(step["constraint"])(model)
        for targets, part in assignment.parts:
            for target in targets:
                weight = target.read(model)
                kept, groups = part.count(weight.shape) if isinstance(part, Sparse) else (weight.numel(), weight.numel())
                what = part.structure.name if isinstance(part, Sparse) else type(part).__name__
                bytes_kept = round(weight.numel() * kept / groups) * weight.element_size()
                grid.add_row("", str(target), what, f"{kept:,} of {groups:,}", f"{weight.numel():,}", f"{bytes_kept:,}", "")
    return grid
