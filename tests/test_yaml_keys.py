"""Comments of a YAML file land at the keys they stand beside."""

from pathlib import Path

import pytest

from espalier.yaml_keys import Key, read_keys

TEXT = """\
# @package _global_
# What the file is for. Source: a paper, section 2.
# espalier run a/table
defaults:
  - _self_
  - override /method: admm
  - rho: const
_target_: some.Thing
plain: 1   # beside
hash: "a # b"   # not the one inside quotes
above:     # of the mapping
         # and more of it
  # the line above
  inner: [1, 2]
flow: {first: 1, second: {_target_: other.Thing, third: 2}}   # of all in the line
listed: [{_target_: a.Rewrite, skip: []}]
rates: {"layer1.*": 2, method.rho.start: 3}
bare:
"""


@pytest.fixture
def keys(tmp_path: Path) -> dict[str, Key]:
    (tmp_path / "file.yaml").write_text(TEXT, encoding="utf-8")
    return {key.name: key for key in read_keys(tmp_path / "file.yaml").keys}


def test_a_file_says_what_it_is_and_takes(tmp_path: Path) -> None:
    (tmp_path / "file.yaml").write_text(TEXT, encoding="utf-8")
    found = read_keys(tmp_path / "file.yaml")
    assert found.head == "What the file is for. Source: a paper, section 2."
    assert found.defaults == (("", "_self_"), ("override /method", "admm"), ("rho", "const"))
    assert found.whole
    assert found.target == "some.Thing"


def test_comments_belong_to_the_key_they_stand_at(keys: dict[str, Key]) -> None:
    assert {name: key.comment for name, key in keys.items()} == {
        "plain": "beside",
        "hash": "not the one inside quotes",
        "above": "of the mapping and more of it the line above",
        "flow": "of all in the line",
        "listed": "",
        "rates": "",
        "bare": "",
    }
    assert keys["above"].keys[0].comment == "and more of it the line above"
    assert [(key.name, key.comment) for key in keys["flow"].keys] == [("first", ""), ("second", "")]


def test_values_stand_as_written(keys: dict[str, Key]) -> None:
    assert (keys["plain"].value, keys["plain"].line) == ("1", 9)
    assert keys["hash"].value == "a # b"
    assert keys["above"].keys[0].value == "[1, 2]"
    second = keys["flow"].keys[1]
    assert (second.target, second.value, [key.name for key in second.keys]) == ("other.Thing", "other.Thing", ["third"])
    assert [key.name for key in keys["listed"].keys] == ["skip"]
    assert (keys["rates"].value, keys["rates"].keys) == ('{"layer1.*": 2, method.rho.start: 3}', ())


def test_what_is_no_mapping_is_named(tmp_path: Path) -> None:
    for text, message in (("[1, 2]", "holds no mapping"), ("a: [", "is not YAML")):
        (tmp_path / "file.yaml").write_text(text, encoding="utf-8")
        with pytest.raises(ValueError, match=rf"file\.yaml {message}"):
            read_keys(tmp_path / "file.yaml")
