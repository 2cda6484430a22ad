"""Steps: functions State -> State that a recipe strings together."""

from espalier.steps.check import alternation
from espalier.steps.context import Context
from espalier.steps.distill import distill
from espalier.steps.formulas import harmonic_totals, storage_gap
from espalier.steps.kernels import pruning_to_performance
from espalier.steps.rewrite import rewrite
from espalier.steps.state import State
from espalier.steps.storage import random_masks, stored
from espalier.steps.training import constrain, retrain, train

__all__ = [
    "Context",
    "State",
    "alternation",
    "constrain",
    "distill",
    "harmonic_totals",
    "pruning_to_performance",
    "random_masks",
    "retrain",
    "rewrite",
    "storage_gap",
    "stored",
    "train",
]
