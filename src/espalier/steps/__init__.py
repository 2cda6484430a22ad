"""Steps: functions State -> State that a recipe strings together."""

from espalier.steps.block_checks import index_bytes, kernel_errors, trained_masks
from espalier.steps.block_kernels import ablation, block_sizes, search_gain
from espalier.steps.check import alternation
from espalier.steps.check_patterns import index_storage, library_energy, pattern_energy
from espalier.steps.context import Context, DesignerContext
from espalier.steps.distill import distill
from espalier.steps.formulas import harmonic_totals, storage_gap
from espalier.steps.grouped import decide, matched, penalise
from espalier.steps.kernels import pruning_to_performance
from espalier.steps.masked_gradient import masked_gradient
from espalier.steps.measuring import measures
from espalier.steps.paths import purify, shrink, silence, unused_paths
from espalier.steps.product_latency import product_latency
from espalier.steps.rewrite import rewrite
from espalier.steps.sparse_train import sparse_train
from espalier.steps.state import State
from espalier.steps.storage import random_masks, stored
from espalier.steps.synthetic import prune_synthetic, receive
from espalier.steps.training import constrain, retrain, train
from espalier.steps.training_cost import dense_cost, sparse_cost

__all__ = [
    "Context",
    "DesignerContext",
    "State",
    "ablation",
    "alternation",
    "block_sizes",
    "constrain",
    "decide",
    "dense_cost",
    "distill",
    "harmonic_totals",
    "index_bytes",
    "index_storage",
    "kernel_errors",
    "library_energy",
    "masked_gradient",
    "matched",
    "measures",
    "pattern_energy",
    "penalise",
    "product_latency",
    "prune_synthetic",
    "pruning_to_performance",
    "purify",
    "random_masks",
    "receive",
    "retrain",
    "rewrite",
    "search_gain",
    "shrink",
    "silence",
    "sparse_cost",
    "sparse_train",
    "storage_gap",
    "stored",
    "train",
    "trained_masks",
    "unused_paths",
]
