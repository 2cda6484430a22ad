"""Templates that a layer may be lowered with, for whoever searches: what there is to try for a layer, and the kernel of each try.

A ``Way`` is a template and its knobs as plain values, so that it can be written to a file. A template joins by an entry of ``TEMPLATES``.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from espalier.compiler.lowering.filters_search import first_choices, lower_choice, near_choices, takes_choice
from espalier.compiler.lowering.kernel import Kernel
from espalier.compiler.lowering.site import Site
from espalier.compiler.lowering.spatial_search import first_bands, lower_bands, near_bands, takes_bands
from espalier.compiler.lowering.winograd_search import first_blocks, lower_blocks, near_blocks, takes_blocks


@dataclass(frozen=True)
class Way:
    """One way to compute a layer.

    Args:
        template: A key of ``TEMPLATES``.
        knobs: Its knobs, as JSON has them.
    """

    template: str
    knobs: Mapping[str, Any] = field(default_factory=dict)


Knobs = Mapping[str, Any]


@dataclass(frozen=True)
class Template:
    """What a search asks of a template.

    Args:
        takes: Whether it computes a layer.
        first: Site -> knobs to begin with.
        near: Site and the best knobs so far -> others to try beside them.
        lower: Site and knobs -> kernel. Raises ``ValueError``, ``KeyError`` or ``TypeError`` for knobs that are none of its own.
    """

    takes: Callable[[Site], bool]
    first: Callable[[Site], Sequence[Knobs]]
    near: Callable[[Site, Knobs], Sequence[Knobs]]
    lower: Callable[[Site, Knobs], Kernel]


TEMPLATES: dict[str, Template] = {
    "F": Template(takes_choice, first_choices, near_choices, lower_choice),
    "W": Template(takes_blocks, first_blocks, near_blocks, lower_blocks),
    "S": Template(takes_bands, first_bands, near_bands, lower_bands),
}


def templates_of(site: Site) -> list[str]:
    """Return the templates that compute a layer; none where there is nothing to choose."""
    return [name for name, template in TEMPLATES.items() if template.takes(site)]


def first_ways(site: Site) -> list[Way]:
    """Return what the templates that compute a layer begin with."""
    return [Way(name, knobs) for name in templates_of(site) for knobs in TEMPLATES[name].first(site)]


def near_ways(site: Site, best: Way) -> list[Way]:
    """Return what to try beside the best way so far."""
    return [Way(best.template, knobs) for knobs in TEMPLATES[best.template].near(site, best.knobs)]


def lowered_by(site: Site, way: Way) -> Kernel:
    """Return the kernel of a layer computed that way.

    Raises:
        ValueError: This espalier has no such template, or it has no such knobs for this layer.
    """
    if way.template not in TEMPLATES or not TEMPLATES[way.template].takes(site):
        raise ValueError(f"no template {way.template} computes {site.node.name}; there are {', '.join(TEMPLATES)}.")
    try:
        return TEMPLATES[way.template].lower(site, way.knobs)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{way.template} does not take {dict(way.knobs)} for {site.node.name}: {error}") from error
