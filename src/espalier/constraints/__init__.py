"""What a weight may be: sets of admissible weights with their Euclidean projections."""

from espalier.constraints.assignment import Assignment, prunable
from espalier.constraints.constraint import Constraint, Target, Weights
from espalier.constraints.frozen import Frozen, Pinned, Support, as_frozen, frozen_from_state
from espalier.constraints.inside import Inside
from espalier.constraints.levels import Binary, Codebook, LevelSet, PowerOfTwo, UniformLevels, alternate, nearest_level
from espalier.constraints.rates import RateFile, assign, read_rate_file
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
    "LevelSet",
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
    "as_frozen",
    "assign",
    "frozen_from_state",
    "largest",
    "nearest_level",
    "prunable",
    "read_rate_file",
    "structure",
]
