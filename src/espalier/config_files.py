"""The files of the configs: which there are, what each takes in by default, and which ``_target_`` reads which keys."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from espalier.composing import config_dir, own_config_dir
from espalier.yaml_keys import Key, KeyFile, read_keys

GLOSSARY = "keys.yaml"  # says what keys mean, and is no config


@dataclass(frozen=True)
class ConfigFile:
    """A config and its place: folders, group as a dotted key, name of the option."""

    roots: tuple[Path, ...]
    path: Path
    root: Path
    content: KeyFile

    @cached_property
    def place(self) -> Path:
        return self.path.relative_to(self.root)

    @property
    def group(self) -> str:
        return ".".join(self.place.parent.parts)

    @cached_property
    def where(self) -> str:
        if not self.group:
            return self.path.name
        if self.place.parts[0] == "experiment":
            return "/".join(self.place.with_suffix("").parts[1:])
        return f"{'/'.join(self.place.parent.parts)}={self.path.stem}"

    @property
    def sets(self) -> bool:
        """Whether it sets keys that others define."""
        return self.content.whole or self.place.parts[0] == "experiment"


def config_files() -> Iterator[ConfigFile]:
    """Yield every config, one's own folder last."""
    roots = _roots()
    for root in roots:
        for path in sorted(root.rglob("*.yaml"), key=lambda path: (len(path.relative_to(root).parts) > 1, path)):
            if path.relative_to(root).parts[0] not in ("experiments", GLOSSARY):  # papers of one's own are no configs
                yield ConfigFile(roots, path, root, read_keys(path))


def _roots() -> tuple[Path, ...]:
    own = own_config_dir()
    return (config_dir(), *([] if own is None else [Path(own)]))


def choices(file: ConfigFile) -> Iterator[tuple[str, str]]:
    """Yield the options of groups that a file's list of defaults takes, the group as a dotted key."""
    for entry, option in file.content.defaults:
        group = entry.removeprefix("override ").partition("@")[0]
        if group:
            yield (group.lstrip("/") if group.startswith("/") else f"{file.group}.{group}".lstrip(".")).replace("/", "."), option


def targets_of(file: ConfigFile) -> dict[str, str]:
    """Return the dotted key of each mapping with a ``_target_`` -> that name, those of the files it builds on included."""
    prefix = "" if file.sets else file.group
    found: dict[str, str] = {}
    if file.group or file.sets:
        for base, place in bases(file, prefix):
            found |= {_joined(place, key): target for key, target in _relative_targets(base).items()}
    return found | {_joined(prefix, key): target for key, target in _own_targets(file.content).items()}


def _relative_targets(file: ConfigFile) -> dict[str, str]:
    found: dict[str, str] = {}
    for base, place in bases(file, ""):
        found |= {_joined(place, key): target for key, target in _relative_targets(base).items()}
    return found | _own_targets(file.content)


def bases(file: ConfigFile, prefix: str) -> Iterator[tuple[ConfigFile, str]]:
    """Yield the files of a file's list of defaults that are composed into it, and the key below which each lands."""
    for entry, option in file.content.defaults:
        if entry.startswith("override ") or option == "_self_" or (not entry and option.startswith("/")):
            continue
        group, _, package = entry.partition("@")
        folder = group.lstrip("/") if group.startswith("/") else "/".join([*file.place.parent.parts, *filter(None, [group])])
        place = _joined(prefix, package or group.replace("/", "."))
        for root in file.roots:
            if (path := root / folder / f"{option}.yaml").is_file():
                yield ConfigFile(file.roots, path, root, read_keys(path)), place
                break


def _own_targets(content: KeyFile) -> dict[str, str]:
    found = {} if content.target is None else {"": content.target}

    def walk(keys: Iterable[Key], prefix: str) -> None:
        for key in keys:
            name = _joined(prefix, key.name)
            if key.target is not None:
                found[name] = key.target
            walk(key.keys, name)

    walk(content.keys, "")
    return found


def _joined(*parts: str) -> str:
    return ".".join(filter(None, parts))
