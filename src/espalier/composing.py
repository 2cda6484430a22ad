"""From a row's name to its resolved config: rows as Hydra groups, ``row=X`` rewritten, rate files read, identity taken."""

import copy
import difflib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import ConfigCompositionException, HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from espalier import discovery
from espalier.importing import make_importable
from espalier.record import digest
from espalier.tables.published import paper, rate_file, table
from espalier.tables.schema import SCALES, Table

NEUTRAL_DATA = ("root",)  # keys of the data config that say where, not what
NEUTRAL_MODEL = ("checkpoint",)  # the same of the model config; checkpoint_digest says what
OPEN = ("model.args", "data.args")  # keys that hold whatever a function of the user's takes
WEIGHTS = {"pretrained": False, "checkpoint": None, "checkpoint_digest": None}  # keys of a model config that give it trained weights
TRAINER_IDENTITY = ("gradient_clip_val", "precision", "accumulate_grad_batches")  # keys of the trainer that can change a result
ADDED_LATER = {"num_threads": 1, "bn_images": 2000}  # left out of an identity at these values, so that runs made before keep theirs
OPTIMIZER_DEFAULTS = {"torch.optim.Adam": {"weight_decay": 0.0}}  # the same for an optimizer's keys: PyTorch's own values
READ_BY_CONSTRAIN = ("bn_images",)  # keys of an identity that only steps with a constraint read


def published_cells(name: str) -> dict[str, dict[str, float]]:
    """Return the figures of a quoted table, row -> column -> figure: ``${published:PAPER/TABLE}`` in a config, for checks."""
    rows = table(name).rows.items()
    return {row: {title: cell.value for title, cell in entry.cells.items() if isinstance(cell.value, float)} for row, entry in rows}


OmegaConf.register_new_resolver("published", published_cells, replace=True)
discovery.register()
OmegaConf.register_new_resolver("multiply", lambda left, right: int(left) * int(right), replace=True)
OmegaConf.register_new_resolver("total", lambda *parts: sum(map(int, parts)), replace=True)


def share_of_kept(share: float, *, _root_: DictConfig) -> float:
    """Return a share of the weights that the run's rate keeps, as a share of all: ``${kept:0.2}`` in a config is 0.02 at rate 10.

    Raises:
        ValueError: The run has no rate.
    """
    if _root_.rate is None:
        raise ValueError(
            "sparse training redraws shares of the kept weights, which a rate counts; this set has none. Take a structure with a rate."
        )
    return float(share) / float(_root_.rate)


OmegaConf.register_new_resolver("kept", share_of_kept, replace=True)


def config_dir() -> Path:
    """Return the folder of the configs: the package's in a wheel, the repository's otherwise."""
    packaged = Path(__file__).parent / "_conf"
    return packaged if packaged.is_dir() else Path(__file__).parents[2] / "conf"


def own_config_dir() -> str | None:
    """Return the user's own folder of configs, ``ESPALIER_CONFIG``, as an absolute path.

    Raises:
        ValueError: It is no folder.
    """
    own = os.environ.get("ESPALIER_CONFIG")
    if own is not None and not Path(own).is_dir():
        raise ValueError(f"ESPALIER_CONFIG (--config-dir) is {own}, which is no folder; name the one that holds your configs.")
    return None if own is None else str(Path(own).resolve())


def check_scale(scale: str) -> None:
    """Raise ``ValueError`` with the nearest name unless ``scale`` is one."""
    if scale not in SCALES:
        near = difflib.get_close_matches(scale, SCALES, n=1, cutoff=0.0)
        raise ValueError(f"scale={scale} is not one of {', '.join(SCALES)}; did you mean {near[0]}?")


_REGISTERED: dict[str, tuple[Table, str, str | None]] = {}  # table -> what its rows were registered from


def register_rows(name: str, scale: str, *, store: Path | None = None) -> Table:
    """Register a table's rows as the Hydra group ``row/<paper>/<table>``, with their data and model at ``scale``; return the table.

    ``store`` is the root of the store whose comparisons are meant; None takes ``ESPALIER_STORE``, else ``runs``.

    Raises:
        ValueError: There is no such table or scale, or the table has no row to run.
    """
    check_scale(scale)
    published = table(name, store=store)
    standing = (published, scale, own_config_dir())
    if _REGISTERED.get(published.name) == standing:
        return published  # parsing some dozen rows takes longer than composing one
    if not published.runnable:
        others = ", ".join(f"{published.paper}/{other}" for other in paper(published.paper).rows)
        raise ValueError(f"{name} is quoted only, no row of it can be run; tables of {published.paper} that can: {others or 'none'}.")
    groups = ConfigStore.instance()
    for row, entry in published.runnable.items():
        defaults, values = _split(entry.overrides or [])
        defaults += [{"override /data": published.data_of(row, scale)}]
        if (model := published.model_of(row, scale)) is not None:
            defaults += [{"override /model": model}]
        values |= {"row": row} | ({} if published.experiment is None else {"paper": published.paper, "table": published.table})
        node = {"defaults": [*defaults, "_self_"], **values}
        groups.store(group=f"row/{published.paper}/{published.table}", name=row, package="_global_", node=node)
    _REGISTERED[published.name] = standing
    return published


def _split(overrides: Sequence[str]) -> tuple[list[Any], dict[str, Any]]:
    """Split Hydra overrides into choices of groups, which go to a defaults list, and values."""
    defaults: list[Any] = []
    values = OmegaConf.create({})
    for override in OverridesParser.create().parse_overrides(overrides=list(overrides)):
        if (config_dir() / override.key_or_group).is_dir() or _own_group(override.key_or_group):
            defaults.append({f"override /{override.key_or_group}": override.value()})
        else:
            OmegaConf.update(values, override.key_or_group, override.value(), force_add=True)
    plain = OmegaConf.to_container(values)
    assert isinstance(plain, dict)
    return defaults, {str(key): value for key, value in plain.items()}


def _own_group(group: str) -> bool:
    own = own_config_dir()
    return own is not None and (Path(own) / group).is_dir()


def rewrite(name: str, overrides: Sequence[str], *, store: Path | None = None) -> list[str]:
    """Return the overrides as Hydra takes them: the experiment first, ``row=X`` as ``+row/<paper>/<table>=X``.

    Raises:
        ValueError: A row does not exist; the message lists the nearest.
    """
    published = table(name, store=store)
    rewritten = [f"+experiment={published.experiment or published.name}"]
    for override in overrides:
        key, separator, value = override.partition("=")
        if key == "row" and separator:
            if not any(mark in value for mark in "(*"):
                for row in value.split(","):
                    published.row(row)
            rewritten.append(f"+row/{published.paper}/{published.table}={value}")
        elif key in OPEN or key.rpartition(".")[0] in OPEN:
            rewritten.append(f"++{override}")
        else:
            rewritten.append(override)
    return rewritten


@contextmanager
def hydra_ready() -> Iterator[None]:
    """Make ``compose`` usable, inside a Hydra job and outside."""
    if GlobalHydra.instance().is_initialized():
        yield
        return
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        yield


def composed(name: str, overrides: Sequence[str], *, store: Path | None = None) -> DictConfig:
    """Return the config of ``paper/table`` under the given overrides; ``store`` as for ``register_rows``.

    Raises:
        ValueError: An override names a key, a group or an option that does not exist.
    """
    return composed_words(rewrite(name, overrides, store=store), overrides)


def composed_words(words: Sequence[str], own_words: Sequence[str]) -> DictConfig:
    """Return the config of Hydra's words, of which ``own_words`` are those the user gave; raises as ``composed`` does."""
    own = own_config_dir()
    search = [] if own is None else [f"hydra.searchpath=[file://{own}]"]
    with hydra_ready():
        try:
            return compose("config", overrides=[*words, *search])
        except (ConfigCompositionException, HydraException, OmegaConfBaseException) as error:
            raise ValueError(_explain(error, own_words)) from error
        except yaml.YAMLError as error:
            raise ValueError(f"a config is no YAML: {' '.join(str(error).split())}") from error


def _explain(error: Exception, overrides: Sequence[str]) -> str:
    message = str(error).splitlines()[0]
    known = _known_keys(config_dir())
    unknown = [override.partition("=")[0].lstrip("+~") for override in overrides]
    near = {match for key in unknown if key not in known for match in difflib.get_close_matches(key, known, n=2)}
    return f"{message}" + (f" Nearest keys: {', '.join(sorted(near))}." if near else "") + near_options(overrides)


def near_options(overrides: Sequence[str], *, all_where_none_is_near: bool = False) -> str:
    """Return the nearest options of each group that an override gives an unknown one, as words; where none is near, nothing or all."""
    roots = [config_dir(), *(Path(own) for own in [own_config_dir()] if own is not None)]
    words = ""
    for group, _, option in (override.lstrip("+").partition("=") for override in overrides):
        options = sorted({path.stem for root in roots for path in (root / group).glob("*.yaml")}) if group else []
        if options and option not in options:
            if near := difflib.get_close_matches(option, options, n=2):
                words += f" Nearest of {group}=: {', '.join(near)}."
            elif all_where_none_is_near:
                words += f" Known of {group}=: {', '.join(options)}."
    return words


def _known_keys(folder: Path) -> set[str]:
    """Return the dotted keys that the configs define."""
    keys: set[str] = set()
    for path in (path for path in folder.glob("*/**/*.yaml") if not {"experiment", "contestant"} & {*path.parts}):
        group = ".".join(path.parent.relative_to(folder).parts)  # conf/method/rho/const.yaml gives method.rho.start
        keys |= {f"{group}.{key}" for key in _dotted(yaml.safe_load(path.read_text(encoding="utf-8")) or {})}
    keys |= set(_dotted(yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))))
    return keys | {path.name for path in folder.iterdir() if path.is_dir()} | {"row", "scale", "seed", "rate"}


def _dotted(content: Mapping[str, Any], prefix: str = "") -> list[str]:
    names = []
    for key, value in content.items():
        names.append(f"{prefix}{key}")
        if isinstance(value, Mapping):
            names += _dotted(value, f"{prefix}{key}.")
    return names


def resolved(config: DictConfig) -> dict[str, Any]:
    """Return the config with every interpolation resolved and every rate file read into its constraint; its targets can be imported."""
    make_importable()
    try:
        plain = OmegaConf.to_container(_with_rate(config), resolve=True, throw_on_missing=False)
    except OmegaConfBaseException as error:
        raise discovery.explained(error) from None
    assert isinstance(plain, dict)
    steps = plain["recipe"]["steps"]
    for step_name, step in steps.items():
        if missing := [key for key, value in step.items() if value == "???"]:
            raise ValueError(f"step '{step_name}' lacks {', '.join(missing)}; give it on the command line.")
        if isinstance(step.get("constraint"), dict):
            _inherit(step["constraint"], plain["constraint"])
            _read_rates(step["constraint"], step_name)
    return {str(key): value for key, value in plain.items()}


def _with_rate(config: DictConfig) -> DictConfig:
    """Return the config with ``sparsity`` said as a rate, and with ``rate_of`` in the run's constraint."""
    if config.sparsity is None and config.rate_of is None:
        return config
    config = copy.deepcopy(config)
    if config.sparsity is not None:
        if config.rate is not None:
            raise ValueError(f"rate={config.rate} and sparsity={config.sparsity} are both given; they say the same, give one.")
        from espalier.constraints.rates import rate_of_sparsity  # noqa: PLC0415  its package brings torch, which naming keys needs not

        config.rate = rate_of_sparsity(config.sparsity)
    if config.rate_of is not None:
        OmegaConf.update(config, "constraint.rate_of", config.rate_of, force_add=True)
    return config


def _inherit(constraint: dict[str, Any], run: Mapping[str, Any]) -> None:
    """Let a constraint that a recipe writes out over the run's set slice gates and count its rate as the run's does."""
    if constraint["set"] != run["set"]:
        return
    for key in ("gates", *(("rate_of", "costs") if constraint["rate"] is not None else ())):
        if key in run:
            constraint.setdefault(key, run[key])


def _read_rates(constraint: dict[str, Any], step: str) -> None:
    name = constraint.pop("rate_file", None)
    if name in (None, "???"):
        if name == "???":
            raise ValueError(f"step '{step}' needs a rate file, such as constraint.rate_file=progressive-admm/lenet5-71x.")
        return
    from espalier.constraints.rates import read_rate_file  # noqa: PLC0415  as above

    content = read_rate_file(rate_file(name))
    constraint |= {"rate": None, "kept": dict(content.kept) or None, "rates": dict(content.rates) or None}


def identity_of(config: Mapping[str, Any], fingerprint: str | None) -> dict[str, Any]:
    """Return those parts of a resolved config that can change its result."""
    data = config["data"]
    identity = {
        "scale": config["scale"],
        "seed": config["seed"],
        "model": None if config["model"] is None else {key: value for key, value in config["model"].items() if key not in NEUTRAL_MODEL},
        "data": None if data is None else {key: value for key, value in data.items() if key not in NEUTRAL_DATA},
        "fingerprint": fingerprint,
        "task": config["task"],
        "steps": [[name, _without_defaults(step)] for name, step in config["recipe"]["steps"].items()],
        "trainer": {key: config["trainer"][key] for key in TRAINER_IDENTITY},
        "test_every_epoch": config["test_every_epoch"],
    }
    return identity | {key: config[key] for key, default in ADDED_LATER.items() if config[key] != default}


def refilled(model: Mapping[str, Any]) -> dict[str, Any]:
    """Return a model's config for a network that a checkpoint fills: it asks for no trained weights, so that none are downloaded."""
    return {**model, **{key: value for key, value in WEIGHTS.items() if key in model}}


def _without_defaults(step: Mapping[str, Any]) -> dict[str, Any]:
    """Return a step's config with its optimizer's keys left out where they hold PyTorch's own value."""
    if not isinstance(optimizer := step.get("optimizer"), Mapping):
        return dict(step)
    defaults = OPTIMIZER_DEFAULTS.get(str(optimizer.get("_target_")), {})
    stated = {key: value for key, value in optimizer.items() if key not in defaults or value != defaults[key]}
    return {**step, "optimizer": stated}


def step_keys(identity: Mapping[str, Any]) -> dict[str, str]:
    """Return each step's key: the hash of what it reads and of the key before it."""
    shared = {key: value for key, value in identity.items() if key not in ("steps", *READ_BY_CONSTRAIN)}
    keys: dict[str, str] = {}
    before = digest(shared)
    for name, step in identity["steps"]:
        read = {key: identity[key] for key in READ_BY_CONSTRAIN if key in identity and "constraint" in step}
        before = keys[name] = digest([step, before, *([read] if read else [])])
    return keys
