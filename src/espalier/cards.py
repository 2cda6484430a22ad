"""Model cards in the form of the Hugging Face hub: what a packed checkpoint is, how good, how fast where, and how to load it."""

import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml
from safetensors import safe_open

from espalier.data.sources import DataOrigin, origin_of
from espalier.models.from_timm import timm_arguments
from espalier.record import Measurement, Record
from espalier.tables.comparison import setting
from espalier.trust import foreign

TIMM = "espalier.models.timm_model"
HERE = Path(__file__).parent
UNCOMMITTED = """, with changes that were not committed.
Those changes are not kept: `dirty.patch` of the archive, if there is one, is of the time of packing"""


def card(record: Record, checkpoint: Path, seeds: Sequence[Record], measurements: Sequence[Measurement]) -> str:
    """Return the card of one run's checkpoint, Markdown under YAML front matter.

    Args:
        record: The run.
        checkpoint: Its packed weights.
        seeds: All records of the same row, scale and settings, this one among them.
        measurements: Those of this run.
    """
    with safe_open(checkpoint, framework="numpy") as content:
        header = json.loads(content.metadata()["espalier"])
        shapes = {key: content.get_slice(key).get_shape() for key in content.keys()}  # noqa: SIM118  no mapping
    origin = origin_of(record.config["data"])
    accuracies = {one.seed: value for one in seeds if (value := one.metrics.get("top1_pct")) is not None}
    front = yaml.safe_dump(_front(record, origin, accuracies), sort_keys=False, allow_unicode=True)
    parts = [
        _about(record, origin),
        _structure(record, header["layout"], shapes),
        _accuracy(record, accuracies),
        _latency(measurements),
        _training(record),
        _loading(checkpoint, header["meta"]),
    ]
    return f"---\n{front}---\n\n" + "\n".join(parts)


def _front(record: Record, origin: DataOrigin, accuracies: Mapping[int, float]) -> dict[str, Any]:
    results = [{"type": "accuracy", "name": f"top-1 (%), seed {record.seed}", "value": record.metrics.get("top1_pct")}]
    if len(accuracies) > 1:
        name = f"top-1 (%), mean of {len(accuracies)} seeds"
        results.append({"type": "accuracy", "name": name, "value": round(statistics.fmean(accuracies.values()), 4)})
    data = {"name": record.config["data"].get("name", origin.name), "type": origin.key or "own", "split": "test"}
    return {
        "library_name": "timm" if record.config["model"]["_target_"] == TIMM else "pytorch",
        "license": origin.licence,
        "tags": ["image-classification", "model-compression", "pruning", "espalier", record.paper],
        **({"datasets": [origin.key]} if origin.key else {}),
        "metrics": ["accuracy"],
        "model-index": [
            {"name": record.name, "results": [{"task": {"type": "image-classification"}, "dataset": data, "metrics": results}]}
        ],
    }


def _about(record: Record, origin: DataOrigin) -> str:
    model = dict(record.config["model"])
    target = model.pop("_target_")
    data = record.config["data"]
    name = data.get("name", origin.name)
    facts = ", ".join(f"{key} {data[key]}" for key in ("mean", "std") if key in data)
    shape = f"one image is {' x '.join(map(str, record.input_shape))} (channels, height, width)" if record.input_shape else ""
    variant = ", with settings of its own" if record.variant else ""
    return f"""# {record.paper}, {record.table}, {record.row}

A network for images, compressed by espalier: `{target}`{f" with {_words(model)}" if model else ""}. It is the row
`{record.row}` of `{record.paper}/{record.table}` at scale {record.scale}, seed {record.seed}{variant}.

- Data: {name}, of {origin.name} ({origin.source}); {", ".join(part for part in (shape, facts) if part) or "its input is in config.yaml"}.
- Licence of the data: {origin.licence} ({origin.note}). `license` above is the data's; whoever publishes the weights decides theirs.
"""


def _words(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in settings.items())


def _structure(record: Record, layout: Mapping[str, Mapping[str, Any]], shapes: Mapping[str, Sequence[int]]) -> str:
    metrics = record.metrics
    lines = ["## Structure and rates", "", *(f"- Asked in `{step}`: {asked}." for step, asked in _asked(record))]
    counted = {"all weights / kept weights": "rate", "bytes of the file": "stored_bytes", "multiply-adds that are left": "macs_effective"}
    found = [f"{what} {value:,.6g}" for what, name in counted.items() if (value := metrics.get(name)) is not None]
    lines += [f"- Counted: {', '.join(found)}." if found else "- Counted: nothing."]
    packed = {name: facts for name, facts in layout.items() if facts["kind"] != "dense"}
    if packed:
        lines += ["", "| weight | shape | structure | rate | stored as |", "| --- | --- | --- | --- | --- |"]
    for name, facts in packed.items():
        rate = metrics.get(f"layer/rate/{name}")
        how = [f"{facts['bits']}-bit codes" if "bits" in facts else "values", facts.get("places", "")]
        size = f"{' x '.join(map(str, facts['shape']))}"
        lines.append(f"| {name} | {size} | {facts.get('structure', 'levels')} | {'' if rate is None else f'{rate:.4g}x'} | {_plus(how)} |")
    dense = sum(1 for key in shapes if key.endswith("/dense"))
    return "\n".join([*lines, "", f"{dense} tensors are stored dense.", ""])


def _plus(parts: Sequence[str]) -> str:
    return " + ".join(part for part in parts if part)


def _asked(record: Record) -> Iterator[tuple[str, str]]:
    """Yield each step that has a constraint, and what that asks for."""
    for name, step in record.config["steps"]:
        if constraint := step.get("constraint"):
            made = constraint["set"]
            structure = made.get("structure", {}).get("name") or made["_target_"].rpartition(".")[2]
            knobs = {key: constraint[key] for key in ("rate", "rates", "kept", "skip") if constraint.get(key)}
            yield name, f"{structure}, {_words(knobs)}" if knobs else str(structure)


def _accuracy(record: Record, accuracies: Mapping[int, float]) -> str:
    lines = ["## Accuracy", ""]
    values = list(accuracies.values())
    if values:
        spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
        lines.append(f"Test top-1 over n = {len(values)} seeds of this row: {statistics.fmean(values):.2f}{spread} %.")
        lines += [
            "",
            *(f"- seed {seed}: {value:.2f} %{', this file' * (seed == record.seed)}" for seed, value in sorted(accuracies.items())),
        ]
    else:
        lines.append("Not measured.")
    return "\n".join([*lines, ""])


def _latency(measurements: Sequence[Measurement]) -> str:
    lines = ["## Latency", ""]
    for one in measurements:
        times = {name: value for name, value in one.metrics.items() if name.startswith("latency_ms") and value is not None}
        lines.append(f"- {', '.join(f'{name} {value:.4g}' for name, value in times.items())}: {setting(one)} ({one.num_runs} passes)")
    return "\n".join([*lines, *([] if measurements else ["Not measured."]), ""])


def _training(record: Record) -> str:
    epochs = record.metrics.get("train/epochs")
    steps = ", ".join(name for name, _ in record.config["steps"])
    return f"""## Training

Steps: {steps}{f"; {epochs:g} epochs in all" if epochs is not None else ""}. Trained on {record.device}, {record.duration_s:.0f} s, with
{_words(record.versions)}; commit {record.commit or "unknown"}{UNCOMMITTED if record.dirty else ""}.

```sh
{record.command}
```
"""


def _loading(checkpoint: Path, meta: Mapping[str, Any]) -> str:
    """Return how to load a checkpoint; ``meta`` has its ``model`` and ``rewrites``, which ``espalier.load`` reads."""
    reader = (HERE / "standalone.py").read_text(encoding="utf-8").strip()
    outside = [*foreign(meta.get("model")), *foreign(meta.get("rewrites", []))]
    trust = ", trust=True" if outside else ""
    return f"""## Load it

With espalier {version("espalier")}{f", which runs code from outside it ({', '.join(outside)}) that must be importable" if outside else ""}:

```python
import espalier

model = espalier.load("{checkpoint.name}"{trust})
```

Without espalier: {len(reader.splitlines())} lines of PyTorch, NumPy and safetensors read the packed form.

```python
{reader}


weights = state_dict("{checkpoint.name}")
{_module(meta)}
```
"""


def _module(meta: Mapping[str, Any]) -> str:
    """Return the lines of a card that build the network without espalier, or that say why they cannot."""
    model = dict(meta.get("model") or {})
    if meta.get("rewrites"):
        names = ", ".join(rewrite["_target_"].rpartition(".")[2] for rewrite in meta["rewrites"])
        return f"# the weights are those of the network after {names}; espalier.load does that again"
    if model.get("_target_") != TIMM:
        name = model.get("target") or model.get("_target_") or "the network they were saved from"
        return f"# for {name}; copy that class, or load the weights into your own"
    name = json.dumps(model["name"])
    given = timm_arguments(**{key: model[key] for key in ("name", "num_classes", "in_channels", "image_size", "args") if key in model})
    arguments = ", ".join([name, *(f"{key}={value!r}" for key, value in given.items())])
    return f"""
import timm

model = timm.create_model({arguments})
model.load_state_dict(weights)
model.eval()"""
