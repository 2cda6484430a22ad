"""Steps: functions State -> State that a recipe strings together."""

from espalier.steps.check import alternation
from espalier.steps.context import Context
from espalier.steps.distill import distill
from espalier.steps.masked_gradient import masked_gradient
from espalier.steps.rewrite import rewrite
from espalier.steps.sparse_train import sparse_train
from espalier.steps.state import State
from espalier.steps.training import constrain, retrain, train
from espalier.steps.training_cost import dense_cost, sparse_cost

__all__ = [
    "Context",
    "State",
    "alternation",
    "constrain",
    "dense_cost",
    "distill",
    "masked_gradient",
    "retrain",
    "rewrite",
    "sparse_cost",
    "sparse_train",
    "train",
]
