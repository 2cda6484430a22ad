"""How training gets into a constraint: plain objects that any loop can call."""

from espalier.methods.admm import ADMM, RhoSchedule
from espalier.methods.distillation import Distillation
from espalier.methods.iterative_magnitude import IterativeMagnitude
from espalier.methods.magnitude import Magnitude
from espalier.methods.masked import MaskedRetraining
from espalier.methods.method import LossTerm, Method
from espalier.methods.mutation import MutationSchedule
from espalier.methods.partial_map import PartialMap
from espalier.methods.primal_proximal import PrimalProximal
from espalier.methods.purification import Purification
from espalier.methods.regrowth import GradientGrowth, MomentumGrowth, RandomGrowth
from espalier.methods.reweighted import Reweighted
from espalier.methods.sparse_training import SparseTraining

__all__ = [
    "ADMM",
    "Distillation",
    "GradientGrowth",
    "IterativeMagnitude",
    "LossTerm",
    "Magnitude",
    "MaskedRetraining",
    "Method",
    "MomentumGrowth",
    "MutationSchedule",
    "PartialMap",
    "PrimalProximal",
    "Purification",
    "RandomGrowth",
    "Reweighted",
    "RhoSchedule",
    "SparseTraining",
]
