"""Rewrites: functions model -> model that change what is computed; listed in a checkpoint and replayed on load."""

from espalier.rewrites.fold_batch_norm import fold_batch_norm
from espalier.rewrites.replay import Rewrite, rewritten, untrusted

__all__ = ["Rewrite", "fold_batch_norm", "rewritten", "untrusted"]
