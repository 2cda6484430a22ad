"""Rewrites: functions model -> model that change what is computed; listed in a checkpoint and replayed on load."""

from espalier.rewrites.fold_batch_norm import fold_batch_norm
from espalier.rewrites.replay import Rewrite, rewritten, untrusted
from espalier.rewrites.shrink import Shrunk, shrink, shrunk
from espalier.rewrites.unused_paths import PathRemoval, remove_unused_paths, silence

__all__ = [
    "PathRemoval",
    "Rewrite",
    "Shrunk",
    "fold_batch_norm",
    "remove_unused_paths",
    "rewritten",
    "shrink",
    "shrunk",
    "silence",
    "untrusted",
]
