"""Steps: functions State -> State that a recipe strings together."""

from espalier.steps.check import alternation
from espalier.steps.context import Context
from espalier.steps.distill import distill
from espalier.steps.grouped import decide, matched, penalise
from espalier.steps.product_latency import product_latency
from espalier.steps.rewrite import rewrite
from espalier.steps.state import State
from espalier.steps.training import constrain, retrain, train

__all__ = [
    "Context",
    "State",
    "alternation",
    "constrain",
    "decide",
    "distill",
    "matched",
    "penalise",
    "product_latency",
    "retrain",
    "rewrite",
    "train",
]
