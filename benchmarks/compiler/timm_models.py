"""Which networks of timm the compiler takes: exports, compiles without fallback, matches PyTorch, share of multiply-adds in sparse kernels.

    python benchmarks/compiler/timm_models.py                       # 36 networks, minutes each on a busy machine; goes on where it stood
    python benchmarks/compiler/timm_models.py --only resnet18 --again

Each network gets seeded random weights, statistics of batch norm among them, and block-punched masks by magnitude at one rate in all
layers but the first and grouped convolutions. It is compiled in a process of its own, into an empty cache; a failure keeps its line, with
the reason.

Batch norm is scaled on several images, none of which is compared: scaled on one, LeViT's attention blows up on any other, until its
logits are millions and PyTorch's float32 is itself 20 % away from float64. What does not match says how far that is.
"""

import argparse
import copy
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import torch
from suite_results import Entry, arguments, cell, facts, measure_all, origin, table
from torch import Tensor, nn

import espalier
from espalier.compiler import CompiledNetwork, compile_model
from espalier.constraints import prunable
from espalier.devices import cpu, num_cores
from espalier.frames.contending import relative_error
from espalier.frames.groups import preferred_group
from espalier.models.from_timm import input_of, timm_model
from espalier.untrained import calibrate, randomise
from espalier.workload import exported, workload

MODELS = (
    *("resnet18", "resnet50", "resnext50_32x4d", "seresnet18", "res2net50_26w_4s", "vgg11_bn", "densenet121", "inception_v3", "xception41"),
    *("mobilenetv2_100", "mobilenetv3_small_100", "mnasnet_100", "efficientnet_b0", "ghostnet_100", "regnety_002", "regnetx_002"),
    *("repvgg_a0", "mobileone_s0", "dla34", "hrnet_w18_small", "darknet53", "ese_vovnet19b_dw", "convnext_atto", "convmixer_768_32"),
    *("poolformer_s12", "vit_tiny_patch16_224", "deit_tiny_patch16_224", "swin_tiny_patch4_window7_224", "mixer_s32_224", "resmlp_12_224"),
    *("levit_128", "pvt_v2_b0", "coat_lite_tiny", "crossvit_tiny_240", "edgenext_xx_small", "mobilevit_xs"),
)
TOLERANCE = 1e-4  # largest difference of an output that counts as a match, relative to the largest output
TIMEOUT_S = 600.0  # a network
SAMPLES = 8  # images that batch norm is scaled on
INSTALLED = re.compile(r"\S*/site-packages/")  # where packages lie on the machine at hand


def pruned(model: nn.Module, rate: float) -> nn.Module:
    """Return a copy whose layers are pruned by magnitude, the first and grouped convolutions aside."""
    filters, channels = preferred_group(cpu().flags)
    layers = {name: model.get_submodule(name.rpartition(".")[0]) for name in prunable(model)}
    grouped = [name for name, layer in layers.items() if getattr(layer, "groups", 1) > 1]
    skip = tuple(dict.fromkeys([*list(layers)[:1], *grouped]))
    return espalier.prune(model, constraint=f"block_punched {filters}x{channels}", rate=rate, skip=skip)


def sparse_share(compiled: CompiledNetwork) -> float:
    """Return the share of the dense multiply-adds that run through kernels which skip what pruning took away."""
    lines = compiled.explain()
    total = sum(line.macs_dense for line in lines)
    return sum(line.macs_dense for line in lines if line.structure not in ("", "dense")) / total


def network(name: str, rate: float, generator: torch.Generator) -> tuple[nn.Module, Tensor]:
    """Return a pruned network with random weights, and an example of its input."""
    torch.manual_seed(0)
    model = timm_model(name=name, num_classes=1000, in_channels=3, pretrained=False).eval()
    randomise(model, generator)
    side = input_of(name)["size"]
    example = torch.randn(1, 3, side, side, generator=generator)
    model = pruned(model, rate)
    calibrate(model, torch.randn(SAMPLES, 3, side, side, generator=generator), generator)
    return model, example


@torch.inference_mode()
def rounding(model: nn.Module, x: Tensor) -> float:
    """Return how far PyTorch's float32 is from its float64, relative to the largest output."""
    return relative_error(model(x), copy.deepcopy(model).double()(x.double()))


def found(name: str, rate: float, num_threads: int) -> Entry:
    """Return what the compiler makes of one network."""
    generator = torch.Generator().manual_seed(0)
    model, example = network(name, rate, generator)
    result: Entry = {"exports": False, "compiles": False, "matches": False, "input": example.shape[-1], "samples": SAMPLES}
    try:
        exported(model, example)
        result["exports"] = True
        counts = workload(model, example)
        result |= {"macs": counts.macs, "rate_macs": counts.macs / counts.macs_effective}
        with tempfile.TemporaryDirectory() as cache:
            start = time.monotonic()
            compiled = compile_model(model, example, num_threads=num_threads, frozen=espalier.frozen(model), cache=Path(cache))
            seconds = time.monotonic() - start
            with compiled:
                result |= {"compiles": True, "isa": compiled.program.isa.name, "compile_s": seconds, "sparse_share": sparse_share(compiled)}
                x = torch.randn(example.shape, generator=generator)
                with torch.inference_mode():
                    error = relative_error(torch.as_tensor(compiled(x)), model(x))
                result |= {"max_rel_error": error, "matches": error <= TOLERANCE}
                if not result["matches"]:
                    own = rounding(model, x)
                    result |= {"rounding": own, "reason": [f"{error:.1e} from PyTorch, whose float32 is {own:.1e} from its float64"]}
    except ValueError as refused:  # what the compiler says of a network that it does not take
        result["reason"] = [INSTALLED.sub("", line) for line in str(refused).splitlines()]
    return result


def measured(name: str, asked: argparse.Namespace) -> Entry:
    """Return one network's entry, from a process of its own."""
    settings = {"rate": asked.rate, "num_threads": asked.threads}
    command = [sys.executable, __file__, "--one", name, "--rate", str(asked.rate), "--threads", str(asked.threads)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=asked.timeout, check=False)  # noqa: S603  this script
    except subprocess.TimeoutExpired:
        return {**facts(), **settings, **_none(f"took more than {asked.timeout:g} s")}
    if done.returncode != 0:
        return {**facts(), **settings, **_none((done.stderr.strip().splitlines() or [f"ended with status {done.returncode}"])[-1])}
    return {**facts(), **settings, **json.loads(done.stdout.splitlines()[-1])}


def _none(reason: str) -> Entry:
    return {"exports": None, "compiles": False, "matches": False, "reason": [reason]}


def page(entries: Mapping[str, Entry]) -> list[str]:
    """Return the page."""
    compiles = sum(entry["compiles"] for entry in entries.values())
    matches = sum(entry["matches"] for entry in entries.values())
    rates = ", ".join(dict.fromkeys(f"{entry['rate']:g}x" for entry in entries.values()))
    samples = " or ".join(map(str, sorted({entry.get("samples", 1) for entry in entries.values() if "macs" in entry})))
    head = (
        "network",
        "input",
        "GMAC",
        "exports",
        "compiles",
        "matches",
        "max. rel. error",
        "MAC rate",
        "MACs in sparse kernels",
        "compile s",
    )
    reasons = [f"- {name}: {' '.join(line.strip() for line in entry['reason'])}" for name, entry in entries.items() if entry.get("reason")]
    return [
        "# Networks of timm",
        "",
        *origin(entries),
        "Written by benchmarks/compiler/timm_models.py.",
        "",
        f"{len(entries)} networks: {compiles} compile without fallback, {matches} match PyTorch (largest difference of an output,",
        f"relative to the largest output, at most {TOLERANCE:g}). Random weights; block-punched masks, {rates} in every layer but the",
        f"first and grouped convolutions; batch norm scaled on {samples or 'no'} random images. The share counts dense multiply-adds",
        "of layers that run through kernels which skip what is pruned; products of two activations (attention) and dense layers are in",
        "the whole. Compile seconds are cold, on a machine that was doing other work.",
        "",
        *table(head, [_row(name, entry) for name, entry in entries.items()]),
        *(["", "What failed:", "", *reasons] if reasons else []),
    ]


def _row(name: str, entry: Entry) -> list[str]:
    words = {True: "yes", False: "no", None: "-"}
    macs, share = entry.get("macs"), entry.get("sparse_share")
    return [
        name,
        cell(entry.get("input"), "d"),
        cell(None if macs is None else macs / 1e9, ".2f"),
        *(words[entry[key]] for key in ("exports", "compiles", "matches")),
        cell(entry.get("max_rel_error"), ".1e"),
        cell(entry.get("rate_macs"), ".2f"),
        cell(None if share is None else 100 * share, ".1f") + (" %" if share is not None else ""),
        cell(entry.get("compile_s"), ".1f"),
    ]


def main() -> None:
    """Take the networks that are asked, or one of them in this process."""
    parser = arguments(__doc__, "timm_models")
    parser.add_argument("--one", metavar="NAME", help="Print one network's entry as JSON; no file is written.")
    parser.add_argument("--rate", type=float, default=4.0, help="All weights / kept ones of a pruned layer.")
    parser.add_argument("--threads", type=int, default=min(2, num_cores()))
    parser.add_argument("--timeout", type=float, default=TIMEOUT_S, help="Seconds after which a network counts as failed.")
    asked = parser.parse_args()
    if asked.one:
        sys.stdout.write(json.dumps(found(asked.one, asked.rate, asked.threads)) + "\n")
    else:
        measure_all(MODELS, lambda name: measured(name, asked), page, asked)


if __name__ == "__main__":
    main()
