"""Steps: functions State -> State that a recipe strings together."""

from espalier.steps.check import alternation
from espalier.steps.check_patterns import index_storage, library_energy, pattern_energy
from espalier.steps.context import Context, DesignerContext
from espalier.steps.distill import distill
from espalier.steps.rewrite import rewrite
from espalier.steps.state import State
from espalier.steps.synthetic import prune_synthetic, receive
from espalier.steps.training import constrain, retrain, train

__all__ = [
    "Context",
    "DesignerContext",
    "State",
    "alternation",
    "constrain",
    "distill",
    "index_storage",
    "library_energy",
    "pattern_energy",
    "prune_synthetic",
    "receive",
    "retrain",
    "rewrite",
    "train",
]
