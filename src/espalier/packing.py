"""Packed checkpoints: sparse and quantized weights as they would be shipped, in one safetensors file without a pickle.

A weight held by a ``Support`` stores the kept values and their places; one wholly ``Pinned`` to few levels stores a codebook and packed
codes. Places are a bitmap or gaps, whichever is smaller: gaps of 8 or 16 bits between kept weights in flat order, with fillers (the top
value, which skips and keeps nothing) where a gap does not fit.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from espalier.constraints import Assignment, Pinned, Support, Target
from espalier.constraints.frozen import as_frozen
from espalier.files import replacing

FORMAT = "espalier-packed-1"
MAX_LEVELS = 256


@dataclass(frozen=True)
class PackReport:
    """Bytes of a packed checkpoint.

    Args:
        tensors: Parameter -> part (``dense``, ``values``, ``places``, ``codes``, ``codebook``) -> bytes.
        file_bytes: Size of the file.
        digest: SHA-256 of its tensors.
    """

    tensors: Mapping[str, Mapping[str, int]]
    file_bytes: int
    digest: str

    @property
    def counted_bytes(self) -> int:
        """Return the sum over all parts; the file adds its header."""
        return sum(sum(parts.values()) for parts in self.tensors.values())


def pack(path: Path, weights: Mapping[str, Tensor], frozen: Assignment | None, meta: Mapping[str, Any]) -> PackReport:
    """Write ``weights`` to ``path``, those of frozen targets packed.

    Args:
        path: The file; replaced whole.
        weights: A state dict.
        frozen: The sets the weights lie in. A target that slices a parameter is stored dense.
        meta: JSON-able facts that travel along (how to rebuild the model).

    Raises:
        ValueError: A weight lies outside its frozen set.
        OSError: The file cannot be written.
    """
    held = {target: as_frozen(part) for targets, part in frozen.parts for target in targets} if frozen else {}
    tensors: dict[str, Tensor] = {}
    layout: dict[str, dict[str, Any]] = {}
    for name, weight in weights.items():
        target = Target(name)
        if target in held and (outside := held[target].outside({target: weight})):
            raise ValueError(f"{outside} weights of {name} lie outside the set frozen for them; project before packing.")
        parts, layout[name] = _packed(weight, held.get(target), target)
        tensors |= {f"{name}/{part}": tensor for part, tensor in parts.items()}
    header = {"format": FORMAT, "layout": layout, "meta": dict(meta)}
    with replacing(path) as temporary:
        save_file(tensors, temporary, metadata={"espalier": json.dumps(header, separators=(",", ":"))})
    report: dict[str, dict[str, int]] = {}
    for key in sorted(tensors):
        name, _, part = key.rpartition("/")
        report.setdefault(name, {})[part] = tensors[key].numel() * tensors[key].element_size()
    return PackReport(report, path.stat().st_size, _digest(tensors))


def content_digest(path: Path) -> str:
    """Return the digest that ``pack`` reported when it wrote the file; raises as ``unpack`` does."""
    return _digest(_content(path)[1])


def check_digest(path: Path, digest: str | None) -> None:
    """Refuse weights that are not the ones a record speaks of.

    Args:
        path: The file.
        digest: ``checkpoint`` of the record.

    Raises:
        ValueError: The file is damaged or no packed checkpoint, or its tensors have another digest.
    """
    if (present := content_digest(path)) != digest:
        raise ValueError(f"{path} has the digest {present[:12]}, its record says {str(digest)[:12]}.")


def _digest(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of the tensors, by name: what records and measurements call the checkpoint.

    The header is left out of it. Which weights are held, and to what, lies in the tensors (places, codes, codebook); what else the header
    says (shape, name of the structure, model, rewrites) follows from the settings, and a measurement lies below the run that those name. An
    archive's manifest guards the file as a whole. With the header, a fact added to it would give equal weights another name, and a repeated
    run could no longer be told equal to its shipped record, which holds a digest of this form.
    """
    content = hashlib.sha256()
    for key in sorted(tensors):
        content.update(key.encode())
        content.update(tensors[key].reshape(-1).view(torch.uint8).numpy().tobytes())
    return content.hexdigest()


def unpack(path: Path) -> tuple[dict[str, Tensor], Assignment | None, dict[str, Any]]:
    """Return the state dict, the frozen sets and the facts that ``pack`` wrote, bit for bit.

    Raises:
        ValueError: The file is missing, damaged, or no packed checkpoint.
    """
    header, tensors = _content(path)
    weights: dict[str, Tensor] = {}
    parts: list[tuple[tuple[Target, ...], Support | Pinned]] = []
    for name, facts in header["layout"].items():
        own = {key.rpartition("/")[2]: tensor for key, tensor in tensors.items() if key.rpartition("/")[0] == name}
        weights[name], frozen = _unpacked(own, facts, Target(name))
        if frozen is not None:
            parts.append(((Target(name),), frozen))
    return weights, Assignment(parts) if parts else None, header["meta"]


def _content(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    try:
        with safe_open(path, framework="pt") as content:
            header = json.loads((content.metadata() or {}).get("espalier", "{}"))
            tensors = {key: content.get_tensor(key) for key in content.keys()}  # noqa: SIM118  no mapping
    except (SafetensorError, FileNotFoundError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read as a packed checkpoint ({error}); copy it anew or pack the run again.") from error
    found = header.get("format") if isinstance(header, dict) else None
    if found != FORMAT:
        raise ValueError(f"{path} is of format '{found}', this espalier reads '{FORMAT}'.")
    return header, tensors


def _packed(weight: Tensor, frozen: Support | Pinned | None, target: Target) -> tuple[dict[str, Tensor], dict[str, Any]]:
    shape = list(weight.shape)
    if isinstance(frozen, Support):
        kept = frozen.masks[target].cpu().flatten()
        places, facts = _places(kept)
        return {"values": weight.flatten()[kept].contiguous(), **places}, {
            "kind": "support",
            "shape": shape,
            "structure": frozen.structure,
            **facts,
        }
    if isinstance(frozen, Pinned) and bool(frozen.pinned[target].all()):
        flat, kept = weight.flatten(), frozen.kept(target).cpu().flatten()
        if len(torch.unique(flat[kept])) <= MAX_LEVELS:
            return _quantized(flat, kept, shape)
    return {"dense": weight.contiguous()}, {"kind": "dense"}


def _quantized(flat: Tensor, kept: Tensor, shape: list[int]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Store the codes of the kept weights and their places; where nothing was pruned, of those that are not at level zero."""
    pruned = not bool(kept.all())
    stored = kept if pruned else flat != 0
    levels, codes = torch.unique(flat[stored], return_inverse=True)
    bits = _bits(len(levels))
    parts = {"codebook": levels, "codes": _pack_bits(codes, bits)}
    if bool(stored.all()):
        return parts, {"kind": "levels", "shape": shape, "bits": bits}
    places, facts = _places(stored)
    unpruned = {} if pruned else {"pruned": False}
    return {**parts, **places}, {"kind": "sparse_levels", "shape": shape, "bits": bits, **unpruned, **facts}


def _unpacked(parts: Mapping[str, Tensor], facts: Mapping[str, Any], target: Target) -> tuple[Tensor, Support | Pinned | None]:
    if facts["kind"] == "dense":
        return parts["dense"], None
    shape = facts["shape"]
    count = int(np.prod(shape))
    if facts["kind"] == "levels":
        weight = parts["codebook"][_unpack_bits(parts["codes"], facts["bits"], count)].view(shape)
        return weight, Pinned({target: weight}, {target: torch.ones_like(weight, dtype=torch.bool)})
    kept = _kept(parts, facts, count)
    flat = torch.zeros(count, dtype=parts["values" if facts["kind"] == "support" else "codebook"].dtype)
    if facts["kind"] == "support":
        flat[kept] = parts["values"]
        return flat.view(shape), Support({target: kept.view(shape)}, facts["structure"])
    flat[kept] = parts["codebook"][_unpack_bits(parts["codes"], facts["bits"], int(kept.sum()))]
    weight = flat.view(shape)
    support = {target: kept.view(shape)} if facts.get("pruned", True) else None
    return weight, Pinned({target: weight}, {target: torch.ones_like(weight, dtype=torch.bool)}, support)


def _places(kept: Tensor) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the smallest of a bitmap and gaps of 8 or 16 bits."""
    bitmap = torch.from_numpy(np.packbits(kept.numpy()))
    choices = [({"places": bitmap}, {"places": "bitmap"})]
    index = kept.nonzero().flatten().numpy()
    gaps = np.diff(index, prepend=-1) - 1
    for dtype in (np.uint8, np.uint16):
        top = np.iinfo(dtype).max  # this value skips so many places and keeps none
        fillers = gaps // top
        stream = np.full(int((fillers + 1).sum()), top, dtype=dtype)
        stream[np.cumsum(fillers + 1) - 1] = gaps % top
        choices.append(({"places": torch.from_numpy(stream)}, {"places": f"gaps{stream.itemsize * 8}"}))
    return min(choices, key=lambda choice: choice[0]["places"].numel() * choice[0]["places"].element_size())


def _kept(parts: Mapping[str, Tensor], facts: Mapping[str, Any], count: int) -> Tensor:
    stored = parts["places"].numpy()
    if facts["places"] == "bitmap":
        return torch.from_numpy(np.unpackbits(stored, count=count).astype(bool))
    filler = stored == np.iinfo(stored.dtype).max
    steps = stored.astype(np.int64) + ~filler
    kept = torch.zeros(count, dtype=torch.bool)
    kept[torch.from_numpy((np.cumsum(steps) - 1)[~filler])] = True
    return kept


def _bits(num_levels: int) -> int:
    return max(1, (num_levels - 1).bit_length())


def _pack_bits(codes: Tensor, bits: int) -> Tensor:
    planes = (codes.numpy()[:, None] >> np.arange(bits)) & 1
    return torch.from_numpy(np.packbits(planes.astype(np.uint8).flatten()))


def _unpack_bits(packed: Tensor, bits: int, count: int) -> Tensor:
    planes = np.unpackbits(packed.numpy(), count=count * bits).reshape(count, bits).astype(np.int64)
    return torch.from_numpy((planes << np.arange(bits)).sum(1))
