"""What a weight may be: sets of admissible weights with their Euclidean projections."""

from espalier.constraints.assignment import Assignment, RateFile, assign, prunable, read_rate_file
from espalier.constraints.constraint import Constraint, Target, Weights
from espalier.constraints.frozen import Frozen, Pinned, Support, frozen_from_state
from espalier.constraints.inside import Inside
from espalier.constraints.levels import Binary, Codebook, PowerOfTwo, UniformLevels, alternate, uniform_codes
from espalier.constraints.sparse import Sparse
from espalier.constraints.structures import CHANNEL, COLUMN, FILTER, STRUCTURES, UNSTRUCTURED, Structure, largest, structure

__all__ = [
    "CHANNEL",
    "COLUMN",
    "FILTER",
    "STRUCTURES",
    "UNSTRUCTURED",
    "Assignment",
    "Binary",
    "Codebook",
    "Constraint",
    "Frozen",
    "Inside",
    "Pinned",
    "PowerOfTwo",
    "RateFile",
    "Sparse",
    "Structure",
    "Support",
    "Target",
    "UniformLevels",
    "Weights",
    "alternate",
    "assign",
    "frozen_from_state",
    "largest",
    "prunable",
    "read_rate_file",
    "structure",
    "uniform_codes",
]
