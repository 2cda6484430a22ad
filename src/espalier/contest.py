"""What a comparison consists of: a row for each method, constraint and rate; those that cannot be keep their place, with the reason."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from omegaconf import DictConfig, OmegaConf
from torch import nn

from espalier.asking import Chosen, Grid, choose, composed_for, knows
from espalier.composing import resolved
from espalier.constraints.selection import matching
from espalier.contestants import Contestant, contestant
from espalier.refusals import refuse_methods
from espalier.runner import job_of
from espalier.stepping import model_of
from espalier.tables.schema import SCALES

SKIPPED = ("first_conv", "last_linear")  # layers that stay dense for every contestant, where the model has them


@dataclass(frozen=True)
class Entry:
    """One row of a comparison.

    Args:
        row: Its name.
        method: Name of the contestant.
        constraint: Name of the set.
        rate: All / kept; None where the set has none.
        overrides: What makes the row.
        reason: Why the pairing cannot be; empty where it can.
        title: The contestant, in words.
        choice: What tuning chose of it, in words.
    """

    row: str
    method: str
    constraint: str
    rate: float | None
    overrides: list[str]
    title: str
    reason: str = ""
    choice: str = ""

    @property
    def labels(self) -> dict[str, str]:
        """Return what tells it apart, in words."""
        return {"method": self.title, "constraint": self.constraint} | ({} if self.rate is None else {"rate": f"{self.rate:g}x"})


@dataclass(frozen=True)
class Contest:
    """A comparison, planned.

    Args:
        grid: What was asked for.
        dense: Overrides of the dense row.
        entries: Its rows.
        skipped: Rules of the layers that stay dense in every row; None where the user's own word says which.
        epochs: Scale -> epochs of each contestant.
        dense_epochs: Scale -> epochs of the dense row.
        start: ``scratch``, or ``finetune`` where the network's weights are trained already: which learning rates the config takes.
    """

    grid: Grid
    dense: list[str]
    entries: list[Entry]
    skipped: Sequence[str] | None
    epochs: Mapping[str, int] = field(default_factory=dict)
    dense_epochs: Mapping[str, int] = field(default_factory=dict)
    start: str = "scratch"


def planned(grid: Grid, *, scale: str, chosen: Chosen | None = None) -> Contest:
    """Return every row, composed and tried on the untrained network, before anything trains.

    Args:
        grid: What is asked for.
        scale: smoke, desk or paper.
        chosen: What the grid names; None looks.

    Raises:
        ValueError: A name or key is unknown, the data are not on this machine, contestants train for different epochs, or fewer than two
            pairings were asked for or can be.
    """
    found = chosen or choose(grid, scale=scale)
    dense = [word for word in grid.overrides if knows(found.base, word) and not _key(word).startswith(("method.", "constraint.", "rate"))]
    job = job_of(resolved(composed_for(grid, ["recipe=train", *dense], scale)), plain=True)
    model = model_of(job.config)
    skipped = None if any(_key(word) == "constraint.skip" for word in grid.overrides) else [rule for rule in SKIPPED if _means(model, rule)]
    entries, used = [], set(dense)
    for method, constraint, rate in found.pairings:
        entry, known, config = _entry(grid, found.contestants[method], (method, constraint, rate), skipped, scale)
        used |= set(known)
        entries.append(_tried(entry, config, model, job.data.input_shape))
    for word in grid.overrides:
        if word not in used:
            raise ValueError(f"{word} has no effect on any row; leave it out.")
    if not any(not entry.reason for entry in entries):
        raise ValueError(f"none of these pairings can be: {'; '.join(f'{entry.row}: {entry.reason}' for entry in entries)}")
    alone: dict[str, int] = {each: _num_epochs(grid, ["recipe=train", *dense], each) for each in SCALES}
    words = ["recipe=train", *grid.budget, *dense]
    return Contest(grid, words, entries, skipped, _same_epochs(grid, entries), alone, job.config["start"])


def tuned(entry: Entry, index: int) -> Entry:
    """Return the trial ``index`` of an entry; trial 1 has its settings as they are."""
    drawn = contestant(entry.method).trial(entry.method, index)
    return replace(entry, overrides=[*entry.overrides, *drawn], choice=" ".join(drawn))


def _key(word: str) -> str:
    return word.partition("=")[0].lstrip("+")


def _means(model: nn.Module, rule: str) -> bool:
    try:
        return bool(matching(model, rule, "constraint.skip"))
    except ValueError:
        return False


def _entry(
    grid: Grid, contestant: Contestant, pairing: tuple[str, str, float | None], skipped: Sequence[str] | None, scale: str
) -> tuple[Entry, list[str], DictConfig]:
    """Return the row of a pairing, those of the user's words that it knows, and its config."""
    method, constraint, rate = pairing
    words = [*contestant.words, f"constraint={constraint}", *([] if rate is None else [f"rate={rate:g}"])]
    if skipped:
        words.append(f"constraint.skip=[{','.join(skipped)}]")
    config = composed_for(grid, words, scale)
    plain = OmegaConf.to_container(config, resolve=False)
    known = [word for word in grid.overrides if knows(plain, word)]
    further = ["recipe.seen_rate=null"] if rate is None and "seen_rate" in config.recipe else []  # the set has none
    if further or known:
        config = composed_for(grid, [*words, *further, *known], scale)
    name = "-".join([method, constraint, *([] if rate is None else [f"{rate:g}x"])])
    return Entry(name, method, constraint, rate, [*words, *further, *grid.budget, *known], contestant.title), known, config


def _tried(entry: Entry, config: DictConfig, model: nn.Module, input_shape: Sequence[int]) -> Entry:
    """Return the entry, with the reason why the network, the set or the method refuses it, if one does."""
    try:
        refuse_methods(resolved(config), model, input_shape)
    except ValueError as error:
        return replace(entry, reason=str(error))
    return entry


def _same_epochs(grid: Grid, entries: Sequence[Entry]) -> dict[str, int]:
    """Return scale -> epochs that each contestant trains for.

    Raises:
        ValueError: They differ at a scale.
    """
    found: dict[str, int] = {}
    distinct: dict[tuple[str, ...], Entry] = {}
    for entry in entries:
        if not entry.reason:
            distinct.setdefault((entry.method, *filter(_may_change_epochs, entry.overrides)), entry)
    several = len({entry.method for entry in distinct.values()}) < len(distinct)
    for scale in SCALES:
        epochs = {(entry.row if several else entry.method): _num_epochs(grid, entry.overrides, scale) for entry in distinct.values()}
        if len(set(epochs.values())) > 1:
            counts = ", ".join(f"{name} {count}" for name, count in epochs.items())
            raise ValueError(
                f"contestants would train for different epochs at scale={scale}: {counts}; set epochs=, or epochs.train, epochs.method and "
                "epochs.retrain."
            )
        found[scale] = next(iter(epochs.values()))
    return found


def _may_change_epochs(word: str) -> bool:
    """Return whether an override can: all but those of the constraint and the rate, and the rate that a method is told."""
    return _key(word).partition(".")[0] not in ("constraint", "rate") and _key(word) != "recipe.seen_rate"


def _num_epochs(grid: Grid, words: Sequence[str], scale: str) -> int:
    steps = resolved(composed_for(grid, words, scale))["recipe"]["steps"].values()
    return sum(step.get("epochs", 0) for step in steps)
