"""``explain``: what a key of the config means, from its name, the beginning of its name, a glob or an option."""

from collections.abc import Callable
from dataclasses import replace
from fnmatch import fnmatchcase

from espalier.knobs import Knob, Setting, canonical, knobs, option_places
from espalier.tables.names import did_you_mean


def explain(name: str) -> list[Knob]:
    """Return the keys that a name means, each once a class or function that reads it.

    Args:
        name: A key (``method.rho``), with the keys below it; a glob (``method.*``); an option of a group (``method=admm``), with the keys
            it has. A step or a scale may be named (``recipe.steps.retrain.epochs``, ``budgets.desk.train``) or not (``budget.train``).

    Raises:
        ValueError: There is no such key or option; the message has the nearest.
    """
    known = knobs()
    found = _of_option(name.lstrip("+"), known) if "=" in name else _of_key(name.strip("."), known)
    if not found:
        names = dict.fromkeys([*(knob.key for knob in known), *(f"{knob.key}={option}" for knob in known for option in knob.options)])
        raise ValueError(f"no config has the key '{name}'; {did_you_mean(name, names)}")
    return found


def explained_names() -> list[str]:
    """Return every key there is, for completion."""
    return list(dict.fromkeys(knob.key for knob in knobs()))


def _of_key(name: str, known: list[Knob]) -> list[Knob]:
    key = canonical(name)
    below = [knob for knob in known if knob.key == key or knob.key.startswith(f"{key}.")]
    found = below or [knob for knob in known if fnmatchcase(knob.key, name)]
    if key == name or name.startswith("budget."):
        return found
    return [narrowed for knob in found if (narrowed := _where(knob, lambda setting: f"{setting.key}.".startswith(f"{name}.")))]


def _of_option(name: str, known: list[Knob]) -> list[Knob]:
    group, _, option = name.partition("=")
    group = group.replace(".", "/")
    places = option_places(f"{group}={option}")
    head = [replace(knob, options={option: knob.options[option]}) for knob in known if _is(knob, group) and option in knob.options]
    return head + [nearest for knob in known if not knob.options and (nearest := _nearest(knob, places))]


def _nearest(knob: Knob, places: list[str]) -> Knob | None:
    """Return a key with the values that the first of ``places`` to set it gives; None where none does."""
    ranked = sorted((setting for setting in knob.defaults if setting.where in places), key=lambda setting: places.index(setting.where))
    values = {setting.key: setting for setting in reversed(ranked)}
    return replace(knob, defaults=tuple(reversed(values.values()))) if values else None


def _is(knob: Knob, group: str) -> bool:
    return knob.key.replace(".", "/") == group


def _where(knob: Knob, wanted: Callable[[Setting], bool]) -> Knob | None:
    """Return a key with those of its values that are wanted; None where there is none of them."""
    defaults = tuple(filter(wanted, knob.defaults))
    changed = tuple(filter(wanted, knob.changed))
    if not defaults and not changed:
        return None
    return replace(knob, defaults=defaults, changed=changed if changed and not knob.defaults else knob.changed)
