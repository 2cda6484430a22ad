"""What a weight may be: sets of admissible weights with their Euclidean projections."""

from espalier.constraints.assigning import assign
from espalier.constraints.assignment import Assignment, prunable
from espalier.constraints.bcr import BlockRowsColumns
from espalier.constraints.budget import Budget
from espalier.constraints.choosing import largest
from espalier.constraints.clusters import Clusters
from espalier.constraints.constraint import Constraint, Target, Weights
from espalier.constraints.filter_column import FilterColumn
from espalier.constraints.frozen import Frozen, Pinned, Support, as_frozen, frozen_from_state
from espalier.constraints.global_sparse import GlobalSparse
from espalier.constraints.greedy_patterns import GreedyPatterns, greedy_library
from espalier.constraints.inside import Inside
from espalier.constraints.kernels import BalancedKernels
from espalier.constraints.levels import Binary, Codebook, LevelSet, PowerOfTwo, UniformLevels, alternate, nearest_level
from espalier.constraints.nm import NM
from espalier.constraints.patterns import Library, PatternKernels, Patterns, library
from espalier.constraints.rates import RateFile, read_rate_file
from espalier.constraints.sparse import Sparse
from espalier.constraints.structures import (
    BLOCK_COLUMN,
    BLOCK_PUNCHED,
    BLOCK_ROW,
    CHANNEL,
    COLUMN,
    FILTER,
    KERNEL,
    KGS,
    STRUCTURES,
    UNSTRUCTURED,
    VANILLA,
    Structure,
    structure,
)
from espalier.constraints.support_set import Grouped, Rated, Regrown, Steered, SupportSet
from espalier.constraints.threshold import CommonThreshold, Threshold

__all__ = [
    "BLOCK_COLUMN",
    "BLOCK_PUNCHED",
    "BLOCK_ROW",
    "CHANNEL",
    "COLUMN",
    "FILTER",
    "KERNEL",
    "KGS",
    "NM",
    "STRUCTURES",
    "UNSTRUCTURED",
    "VANILLA",
    "Assignment",
    "BalancedKernels",
    "Binary",
    "BlockRowsColumns",
    "Budget",
    "Clusters",
    "Codebook",
    "CommonThreshold",
    "Constraint",
    "FilterColumn",
    "Frozen",
    "GlobalSparse",
    "GreedyPatterns",
    "Grouped",
    "Inside",
    "LevelSet",
    "Library",
    "PatternKernels",
    "Patterns",
    "Pinned",
    "PowerOfTwo",
    "RateFile",
    "Rated",
    "Regrown",
    "Sparse",
    "Steered",
    "Structure",
    "Support",
    "SupportSet",
    "Target",
    "Threshold",
    "UniformLevels",
    "Weights",
    "alternate",
    "as_frozen",
    "assign",
    "frozen_from_state",
    "greedy_library",
    "largest",
    "library",
    "nearest_level",
    "prunable",
    "read_rate_file",
    "structure",
]
