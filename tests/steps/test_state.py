"""States on disk: back as they were, damage named."""

import json
from pathlib import Path

import pytest
import torch
from surroundings import context, pruned

from espalier.steps import State


def saved(folder: Path) -> State:
    state = pruned(context(folder / "step"), epochs=1)
    state.save(folder / "state")
    return state


def test_a_state_comes_back_as_it_was(tmp_path: Path) -> None:
    state = saved(tmp_path)
    back = State.load(tmp_path / "state")
    assert (back.metrics, back.series, back.epochs, back.rewrites) == (state.metrics, state.series, state.epochs, [])
    assert all(torch.equal(value, back.weights[name]) for name, value in state.weights.items())
    assert state.frozen is not None
    assert back.frozen is not None
    for (targets, support), (back_targets, back_support) in zip(state.frozen.parts, back.frozen.parts, strict=True):
        assert targets == back_targets
        assert all(torch.equal(support.masks[target], back_support.masks[target]) for target in targets)  # type: ignore[attr-defined]


def test_a_state_written_before_there_were_rewrites_is_read(tmp_path: Path) -> None:
    saved(tmp_path)
    path = tmp_path / "state" / "state.json"
    plain = json.loads(path.read_text())
    del plain["rewrites"]
    path.write_text(json.dumps(plain))
    assert State.load(tmp_path / "state").rewrites == []


@pytest.mark.parametrize("name", ["state.json", "state.safetensors"])
@pytest.mark.parametrize("damage", ["missing", "empty", "truncated", "half", "other content", "another state's"])
def test_damage_is_named_with_the_way_out(tmp_path: Path, name: str, damage: str) -> None:
    saved(tmp_path)
    path = tmp_path / "state" / name
    content = path.read_bytes()
    State({"other": torch.zeros(3)}).save(tmp_path / "other")
    path.unlink()
    if damage != "missing":
        other = {"state.json": b"[]", "state.safetensors": b"text"}[name]
        foreign = (tmp_path / "other" / name).read_bytes()
        path.write_bytes(
            {
                "empty": b"",
                "truncated": content[:-1],
                "half": content[: len(content) // 2],
                "other content": other,
                "another state's": foreign if name == "state.safetensors" else content.replace(b'"masks"', b'"msks"'),
            }[damage]
        )
    with pytest.raises(ValueError, match=r"state holds a damaged step .*delete that folder"):
        State.load(tmp_path / "state")
