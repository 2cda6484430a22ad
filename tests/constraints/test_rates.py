from pathlib import Path

import pytest

from espalier.constraints import read_rate_file


def test_rate_files(tmp_path: Path) -> None:
    path = tmp_path / "lenet5.yaml"
    path.write_text("source: Table 2\nprovenance: full text\nkept: {conv1: 100, conv2: 500}\n")
    content = read_rate_file(path)
    assert (content.source, content.provenance, content.kept, content.rates) == ("Table 2", "full text", {"conv1": 100, "conv2": 500}, {})
    with pytest.raises(ValueError, match=r"there is no rate file .*lenet.yaml; rate files there: lenet5"):
        read_rate_file(tmp_path / "lenet.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("source: x\nprovenance: full text\n", "give kept or rates, one of both"),
        ("source: x\nprovenance: full text\nkept: {a: 1}\nrates: {a: 2}\n", "give kept or rates, one of both"),
        ("source: x\nprovenance: hearsay\nkept: {a: 1}\n", "provenance: .*'full text'"),
        ("provenance: full text\nkept: {a: 1}\n", "source: Field required"),
        ("source: x\nprovenance: full text\nkept: {a: 1.5}\n", "kept.a: .*integer"),
        ("source: x\nprovenance: full text\nkeep: {a: 1}\n", "keep: Extra inputs are not permitted"),
        ("source: x\nprovenance: full text\nkept: {a: 1, a: 2}\n", ":3: key 'a' stands here a second time; remove one"),
        ("- 1\n", "is no rate file"),
        ("a: [\n", "is no YAML"),
    ],
    ids=["neither", "both", "provenance", "source", "fraction", "unknown-key", "twice", "list", "broken"],
)
def test_a_rate_file_of_another_form_names_the_key(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "rates.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=rf"rates\.yaml.*{message}"):
        read_rate_file(path)
