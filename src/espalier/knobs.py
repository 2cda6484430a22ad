"""Every key of the configs: what it means, where it has which value, and which papers change it.

A key that a class or function takes is described by the ``Args:`` of that docstring, any other by the comment beside it, or, where many
files share it, by a line of ``conf/keys.yaml`` (and ``keys.yaml`` of one's own folder). Nothing is imported for it, so no torch either.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase

import yaml

from espalier.config_files import GLOSSARY, ConfigFile, bases, choices, config_files, targets_of
from espalier.docstrings import Described, described
from espalier.tables.published import experiment_roots
from espalier.tables.reading import YamlLoader
from espalier.yaml_keys import Key

OPEN = ("recipe.steps", "budgets", "optimizers", "schedules")  # below these any name may stand: a step's, a scale's
NAMED = re.compile(rf"^({'|'.join(map(re.escape, OPEN))})\.[^.]+")
SETS = "espalier.constraints.assign"  # reads a constraint's keys, which name no target


@dataclass(frozen=True)
class Setting:
    """A value that a key has somewhere.

    Args:
        where: What gives it: ``method=admm``, ``config.yaml``, ``mest/cifar``, ``mest/cifar row=em-90``.
        value: As written.
        note: The comment beside it: whose value it is, and why.
        file: Its file, from the folder of the configs or papers on, and line.
        key: The key in full, with the step's or the scale's name.
    """

    where: str
    value: str
    note: str
    file: str
    key: str


@dataclass(frozen=True)
class Knob:
    """One key, as one class or function reads it.

    Args:
        key: Dotted; ``*`` stands for the name of a step or a scale.
        reader: The class or function that takes it; None for keys that configs pass on to each other.
        meaning: What it sets, in which unit, in which range; empty where nobody says.
        type: Annotation of the argument.
        refused: What its reader refuses.
        source: Paper and section that it comes from.
        defaults: The values that it has where it is defined.
        changed: The values that papers and their rows give it.
        options: Of a group: option -> what it is.
    """

    key: str
    reader: str | None
    meaning: str = ""
    type: str = ""
    refused: str = ""
    source: str = ""
    defaults: tuple[Setting, ...] = ()
    changed: tuple[Setting, ...] = ()
    options: Mapping[str, str] = field(default_factory=dict)


def knobs() -> list[Knob]:
    """Return every key of the configs, one's own folder included, in the order of the files, groups first."""
    files = list(config_files())
    book = _Book(_glossary(files))
    for file in (file for file in files if not file.sets):
        book.define(file)
    for file in (file for file in files if file.sets):
        book.change(file)
    for setting in _rows():
        book.changed(setting)
    return book.knobs()


def option_places(option: str) -> list[str]:
    """Return where the keys of an option such as ``method=admm`` get their values: it, and what its list of defaults takes in."""
    waiting = [file for file in config_files() if file.where == option and not file.sets]
    places: list[str] = []
    while waiting:
        file = waiting.pop(0)
        places.append(file.where)
        waiting += [base for base, _ in bases(file, "")]
    return places


def canonical(key: str) -> str:
    """Return a key with ``*`` for the name of a step or a scale; ``budget.`` is the budget of any scale."""
    return NAMED.sub(r"\1.*", re.sub(r"^budget\.", "budgets.*.", key))


def _glossary(files: Iterable[ConfigFile]) -> dict[str, str]:
    roots = dict.fromkeys(root for file in files for root in file.roots)
    paths = [path for root in roots if (path := root / GLOSSARY).is_file()]
    return {str(key): str(text) for path in paths for key, text in yaml.safe_load(path.read_text(encoding="utf-8")).items()}


class _Book:
    """What is known of each key so far, by key and reader."""

    def __init__(self, glossary: Mapping[str, str]) -> None:
        self.glossary = glossary
        self.found: dict[tuple[str, str | None], Knob] = {}
        self.readers: dict[str, list[str | None]] = defaultdict(list)
        self.says: dict[str, Described | None] = {}

    def define(self, file: ConfigFile) -> None:
        """Note what a file defines: an option of a group, the keys below it, the options it takes by default."""
        if file.group:
            self._add(Knob(file.group, None, self._said(file.group), options={file.path.stem: file.content.head}))
        for group, option in choices(file):
            self._add(Knob(group, None, self._said(group), defaults=(Setting(file.where, option, "", str(file.place), group),)))
        self._walk(file, file.content.keys, file.group, targets_of(file), inherited="")

    def change(self, file: ConfigFile) -> None:
        """Note what an experiment changes; keys that no group has, such as epochs, are defined by it."""
        for group, option in choices(file):
            self.changed(Setting(file.where, option, "", str(file.place), group))
        self._walk(file, file.content.keys, "", targets_of(file), inherited="")

    def changed(self, setting: Setting, by: str | None = None) -> None:
        """Note a value that an experiment or a row gives a key, for the reader ``by`` or all; a key that nobody defines is passed over."""
        key = canonical(setting.key)
        for reader in self.readers.get(key, []):
            if by in (None, reader):
                self._add(Knob(key, reader, changed=(setting,)))

    def knobs(self) -> list[Knob]:
        return list(self.found.values())

    def _walk(self, file: ConfigFile, keys: Iterable[Key], prefix: str, targets: Mapping[str, str], inherited: str) -> None:
        reader = targets.get(prefix) or (SETS if prefix.rpartition(".")[2] == "constraint" and not file.sets else None)
        says = self._described(reader)
        for key in keys:
            full = f"{prefix}.{key.name}".lstrip(".")
            name, target = canonical(full), targets.get(full)
            setting = Setting(file.where, key.value, key.comment, f"{file.place}:{key.line}", full)
            text = says.arguments.get(key.name, "") if says else ""
            known = self.readers.get(name, []) if file.sets else []
            taken = bool(known) and (reader is None or reader in known)
            below = not (text or taken) or target is not None or name.removesuffix(".*") in OPEN
            below |= taken and any(other.startswith(f"{name}.") for other in self.readers)
            if taken and (target is not None or not (key.keys and below)):
                self.changed(setting, reader)
            if not taken:
                beside = "" if file.sets and NAMED.match(full) else key.comment or inherited  # such a comment speaks of the value
                meaning = text or self._said(name) or beside or self._summary(target)
                self._add(_knob(name, reader, says, key.name, meaning, setting, changes=file.sets, head=file.content.head))
            if key.keys and below:
                self._walk(file, key.keys, full, targets, inherited="" if target else key.comment or inherited)

    def _described(self, name: str | None) -> Described | None:
        if name is None:
            return None
        if name not in self.says:
            self.says[name] = described(name)
        return self.says[name]

    def _summary(self, target: str | None) -> str:
        says = self._described(target)
        return says.summary if says else ""

    def _said(self, key: str) -> str:
        return next((text for pattern, text in self.glossary.items() if _fits(key, pattern)), "")

    def _add(self, new: Knob) -> None:
        old = self.found.get((new.key, new.reader))
        if old is None:
            self.readers[new.key].append(new.reader)
            self.found[new.key, new.reader] = new
            return
        sources = dict.fromkeys(filter(None, [*old.source.split("; "), *new.source.split("; ")]))
        self.found[new.key, new.reader] = replace(
            old,
            meaning=old.meaning or new.meaning,
            source="; ".join(sources),
            defaults=old.defaults + new.defaults,
            changed=old.changed + new.changed,
            options={**old.options, **new.options},
        )


def _fits(key: str, pattern: str) -> bool:
    """Return whether a key fits a pattern part by part; ``**.`` stands for any keys above, or none."""
    if pattern.startswith("**."):
        return f".{key}".endswith(pattern.removeprefix("**"))
    parts, wanted = key.split("."), pattern.split(".")
    return len(parts) == len(wanted) and all(map(fnmatchcase, parts, wanted))


def _knob(
    key: str, reader: str | None, says: Described | None, argument: str, meaning: str, setting: Setting, *, changes: bool, head: str
) -> Knob:
    stated = re.findall(r"\bSource: (.*?)(?:\. |\.?$)", f"{setting.note}\n{head}", flags=re.MULTILINE)
    return Knob(
        key,
        reader,
        meaning,
        type=says.types.get(argument, "") if says else "",
        refused=says.raises if says else "",
        source="; ".join(dict.fromkeys(stated)),
        defaults=() if changes else (setting,),
        changed=(setting,) if changes else (),
    )


def _rows() -> Iterator[Setting]:
    """Yield what the rows of the papers' tables override."""
    for root in experiment_roots():
        for path in sorted(root.glob("*/tables/*.yaml")):
            text = path.read_text(encoding="utf-8")
            if "overrides:" not in text:
                continue  # quoted only
            place = str(path.relative_to(root))
            for row, entry in (yaml.load(text, Loader=YamlLoader).get("rows") or {}).items():  # noqa: S506  a safe loader
                for override in entry.get("overrides") or []:
                    key, _, value = str(override).partition("=")
                    name = key.lstrip("+~").replace("/", ".")
                    yield Setting(f"{path.parents[1].name}/{path.stem} row={row}", value, "", place, name)
