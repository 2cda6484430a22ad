"""Read a packed checkpoint with PyTorch and safetensors alone. Every model card carries this file: nobody needs espalier for it."""

import json
import math

import numpy as np
import torch
from safetensors import safe_open


def state_dict(path: str) -> dict[str, torch.Tensor]:
    """Return the dense weights by name."""
    weights = {}
    with safe_open(path, framework="pt") as file:
        for name, facts in json.loads(file.metadata()["espalier"])["layout"].items():
            if facts["kind"] == "dense":
                weights[name] = file.get_tensor(f"{name}/dense")
                continue
            count = math.prod(facts["shape"])
            kept = np.ones(count, dtype=bool)
            if facts.get("places") == "bitmap":
                kept = np.unpackbits(file.get_tensor(f"{name}/places").numpy(), count=count).astype(bool)
            elif "places" in facts:  # gaps between kept weights; the top value skips and keeps nothing
                gaps = file.get_tensor(f"{name}/places").numpy()
                filler = gaps == np.iinfo(gaps.dtype).max
                kept = np.zeros(count, dtype=bool)
                kept[(np.cumsum(gaps.astype(np.int64) + ~filler) - 1)[~filler]] = True
            if facts["kind"] == "support":
                values = file.get_tensor(f"{name}/values")
            else:  # codes of a few bits each into a codebook
                codes = file.get_tensor(f"{name}/codes").numpy()
                planes = np.unpackbits(codes, count=int(kept.sum()) * facts["bits"]).reshape(-1, facts["bits"])
                values = file.get_tensor(f"{name}/codebook")[torch.from_numpy(planes @ (1 << np.arange(facts["bits"])))]
            flat = torch.zeros(count, dtype=values.dtype)
            flat[torch.from_numpy(kept)] = values
            weights[name] = flat.view(facts["shape"])
    return weights
