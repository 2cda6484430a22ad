"""Every figure that espalier records or logs: its name, unit, kind and better direction.

A name is ``slash/separated``; names that carry a layer or an epoch's part end in ``/*`` here. A table's column, a record's metric and a key
sent to W&B all come from this list, and a test holds everything logged against it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

Kind = Literal["accuracy", "counted", "modelled", "measured", "training"]
Better = Literal["higher", "lower", "neither"]


@dataclass(frozen=True)
class Metric:
    """What one figure means.

    Args:
        name: Key in records, tables and W&B; a trailing ``/*`` stands for a layer's name.
        unit: Unit as printed; ``""`` for a plain ratio.
        kind: Where the figure comes from; figures of different kinds never share a column.
        better: Direction of improvement.
        meaning: One line for the reader.
        label: What an axis calls it, without its unit; empty takes the name.
    """

    name: str
    unit: str
    kind: Kind
    better: Better
    meaning: str
    label: str = ""


METRICS: tuple[Metric, ...] = (
    Metric("top1_pct", "%", "accuracy", "higher", "test accuracy of the final model, at the epoch that validation chose", "top-1 accuracy"),
    Metric(
        "top1_pct_best_test",
        "%",
        "accuracy",
        "higher",
        "best test accuracy over the last step's epochs: the papers' protocol",
    ),
    Metric(
        "val/top1_pct", "%", "accuracy", "higher", "accuracy on the held-out split, of the model that was kept", "validation top-1 accuracy"
    ),
    Metric("val/loss", "nat", "accuracy", "lower", "cross entropy on the held-out split"),
    Metric(
        "test/top1_pct",
        "%",
        "accuracy",
        "higher",
        "test accuracy after an epoch (recorded where the paper selects on test)",
    ),
    Metric("train/loss", "nat", "training", "lower", "mean training loss over an epoch, penalties and named terms excluded"),
    Metric("train/loss_distill", "nat", "training", "lower", "mean of the distillation term over an epoch, weighted as it joins the loss"),
    Metric("retrain/train_loss_mean", "nat", "training", "lower", "mean of train/loss over the epochs of the last retraining"),
    Metric("train/lr", "", "training", "neither", "learning rate at the end of an epoch"),
    Metric("progress/epoch", "epoch", "training", "neither", "epochs trained so far, over all steps of the row"),
    Metric("progress/step", "", "training", "neither", "place in the recipe of the step that an epoch belongs to, from 0"),
    Metric("train/epochs", "epoch", "counted", "lower", "epochs that led to the final model, shared steps included", "epochs trained"),
    Metric("train/samples_per_sec", "1/s", "measured", "higher", "training images a second, over an epoch"),
    Metric(
        "hard/top1_pct",
        "%",
        "accuracy",
        "higher",
        "validation accuracy after projecting the weights, without retraining",
    ),
    Metric("hard/top1_pct_before", "%", "accuracy", "higher", "validation accuracy at the end of the constrain step, before projecting"),
    Metric("hard/top1_pct_bn_recalibrated", "%", "accuracy", "higher", "the same after recalibrating BN statistics"),
    Metric("admm/rho", "", "training", "neither", "penalty of the augmented Lagrangian"),
    Metric("admm/residual_max", "", "training", "lower", "largest ||W-Z|| / ||W|| over the constrained layers"),
    Metric("admm/residual/*", "", "training", "lower", "||W-Z|| / ||W|| of one layer"),
    Metric("admm/change/*", "", "training", "lower", "||Z-Z_previous|| of one layer"),
    Metric("groups/tau", "", "training", "neither", "threshold on the norms of groups: the soft one while training, then the hard prune's"),
    Metric("groups/zero_pct", "%", "training", "neither", "share of what the method has set to zero by then: groups, or weights"),
    Metric("groups/live_pct", "%", "training", "neither", "mean of ||w||^2 / (||w||^2 + eps) over the groups, by their RMS"),
    Metric(
        "groups/between_pct",
        "%",
        "training",
        "lower",
        "share of the groups with norm between 0.05 and 0.3 of their layer's median surviving norm, before the hard prune",
    ),
    Metric("groups/collapsed_pct", "%", "training", "higher", "share of the pruned groups with a norm under 0.2 tau before the hard prune"),
    Metric(
        "groups/survivor_norm_ratio", "", "training", "neither", "mean norm of the kept groups before the hard prune / in the dense network"
    ),
    Metric("layer/rate_first", "x", "counted", "neither", "weights / non-zero weights of the first convolution"),
    Metric(
        "layer/rate_middle", "x", "counted", "neither", "the same of all layers between the first convolution and the last layer, pooled"
    ),
    Metric("layer/rate_last", "x", "counted", "neither", "the same of the last layer"),
    Metric("layer/rate_first_half", "x", "counted", "neither", "the same of the constrained layers' first half by depth, pooled"),
    Metric("layer/rate_second_half", "x", "counted", "neither", "the same of their second half, pooled"),
    Metric("layer/rows_zero_pct_min", "%", "counted", "neither", "smallest share of zero rows over the layers whose rows are penalised"),
    Metric(
        "layer/columns_zero_pct_min",
        "%",
        "counted",
        "neither",
        "smallest share of zero columns over the layers whose columns are penalised",
    ),
    Metric("map/snapped_pct", "%", "training", "neither", "share of the weights that a partial map has fixed to a level"),
    Metric(
        "synthetic/loss",
        "",
        "training",
        "lower",
        "mean squared gap to the trained network's outputs on random images",
    ),
    Metric("synthetic/epochs", "epoch", "counted", "lower", "epochs on random images, over all layers; train/epochs counts them too"),
    Metric("synthetic/error/*", "", "training", "lower", "||output - wanted|| / ||wanted|| of a pruned layer, or of the logits"),
    Metric(
        "patterns/energy_vs_best4_pct",
        "%",
        "training",
        "higher",
        "energy that the library keeps of the dense network's kernels / energy of each one's best choice of as many weights",
    ),
    Metric("patterns/shared_with_std8", "", "counted", "neither", "patterns of the library that are in std8 too"),
    Metric("mutation/nonzero", "", "training", "neither", "weights held by the masks of the sparse layers after an epoch and its mutation"),
    Metric("mutation/excess_max", "", "counted", "lower", "most weights held above the bound of the phase, over epochs and layers"),
    Metric("mutation/excess_last", "", "counted", "lower", "weights held at the end off the asked number, of the layer farthest from it"),
    Metric("overlap/settled_first", "", "training", "lower", "share of the step until the large weights of the first sparse layer settle"),
    Metric("overlap/settled_last", "", "training", "lower", "the same of the last sparse layer"),
    Metric("forget/never_pct", "%", "training", "higher", "training examples learnt and never forgotten"),
    Metric(
        "train_macs",
        "MAC",
        "counted",
        "lower",
        "multiply-adds of the training, backward twice the forward, dead weights left out",
        "multiply-adds of the training",
    ),
    Metric(
        "train_bytes",
        "B",
        "counted",
        "lower",
        "weights, gradients, momentum, indices and activations of training, at their peak",
        "memory of the training",
    ),
    Metric("weights", "", "counted", "lower", "weights without biases and normalisation"),
    Metric("weights_nonzero", "", "counted", "lower", "non-zero weights without biases and normalisation", "non-zero weights"),
    Metric("parameters", "", "counted", "lower", "all parameters"),
    Metric("rate", "x", "counted", "higher", "weights / non-zero weights", "rate: all weights / kept weights"),
    Metric("conv_rate", "x", "counted", "higher", "weights of the convolutions / their non-zero weights", "rate of the convolutions"),
    Metric("sparsity_pct", "%", "counted", "higher", "zeros among the weights that the final frozen sets hold", "zeros among the weights"),
    Metric("layer/rate/*", "x", "counted", "neither", "weights / non-zero weights of one layer that the final frozen sets hold"),
    Metric("layer/rate_min", "x", "counted", "neither", "smallest of layer/rate"),
    Metric("layer/rate_max", "x", "counted", "neither", "largest of layer/rate"),
    Metric("weights_outside_set", "", "counted", "lower", "weights that lie outside the set frozen for them"),
    Metric("bits_per_weight", "bit", "counted", "lower", "mean bits of a kept weight's value, indices excluded"),
    Metric("macs", "MAC", "counted", "lower", "multiply-adds of one sample, zeros included", "multiply-adds, zeros included"),
    Metric("macs_effective", "MAC", "counted", "lower", "multiply-adds of one sample whose weight is not zero", "multiply-adds left"),
    Metric(
        "stored_bytes", "B", "counted", "lower", "size of the packed checkpoint on disk, indices included", "size of the packed checkpoint"
    ),
    Metric("stored_bytes/*", "B", "counted", "lower", "bytes of one part of one tensor of the packed checkpoint"),
    Metric("dense_bytes", "B", "counted", "lower", "size of the same model's dense fp32 checkpoint"),
    Metric("size_ratio", "x", "counted", "higher", "dense fp32 file / packed file, indices included", "dense file / packed file"),
    Metric("storage/rate", "x", "counted", "higher", "weights / kept weights of the layers whose storage is counted"),
    Metric("storage/bits/*", "bit", "counted", "lower", "size of those layers, places included, if a weight had so many bits"),
    Metric("storage/index_share", "", "counted", "lower", "share of their size that indices, fillers and bitmaps take, exact, at 4 bits"),
    Metric("storage/index_share_formula", "", "modelled", "lower", "the same by the storage formula"),
    Metric("storage/overhead", "x", "counted", "lower", "size with places over size without, exact, at 4 bits"),
    Metric("storage/overhead_rows", "x", "counted", "lower", "the same with relative indices that restart at every row"),
    Metric("storage/overhead_bitmap", "x", "counted", "lower", "the same with one bit a weight"),
    Metric("storage/overhead_csr", "x", "counted", "lower", "the same as compressed sparse rows"),
    Metric("storage/overhead_formula", "x", "modelled", "lower", "the same by the storage formula"),
    Metric("storage/formula_error_min", "", "counted", "neither", "(formula - encoder) / encoder, the lowest over widths of a weight"),
    Metric("storage/formula_error_max", "", "counted", "lower", "|formula - encoder| / encoder, the largest over widths of a weight"),
    Metric("storage/gap_steps_min", "x", "modelled", "higher", "smallest step of the break-even gap along falling bits and growing rates"),
    Metric("storage/gap_min", "x", "modelled", "neither", "smallest break-even gap over rates and widths of a weight"),
    Metric("storage/gap_max", "x", "modelled", "neither", "largest break-even gap over rates and widths of a weight"),
    Metric("totals/error_max", "x", "counted", "lower", "largest |computed - printed| speed-up of a whole network"),
    Metric("totals/weight_bits", "bit", "counted", "neither", "bits of all kept weights, from a layer table"),
    Metric("ppr/structured/*", "x", "measured", "lower", "pruning rate over speed-up, rows and columns removed, at one rate"),
    Metric("ppr/nonstructured/*", "x", "measured", "lower", "pruning rate over speed-up of the sparse product, at one rate"),
    Metric("ppr/breakeven_rate", "x", "measured", "lower", "rate at which the sparse product first takes no longer than the dense one"),
    Metric("ppr/restored_speedup", "x", "measured", "higher", "gain from leaving the first layer dense that is pruned below break-even"),
    Metric("ablation/dense_ms", "ms", "measured", "lower", "a convolution, dense, in our kernel, one thread's CPU time"),
    Metric("ablation/none_ms/*", "ms", "measured", "lower", "the same pruned at one rate, row by row as compressed sparse rows"),
    Metric("ablation/reorder_ms/*", "ms", "measured", "lower", "rows of equal columns grouped, with one list a group, still row by row"),
    Metric("ablation/lre_ms/*", "ms", "measured", "lower", "an input loaded once for all rows of a group (template F)"),
    Metric("ablation/tuned_ms/*", "ms", "measured", "lower", "the same with searched blocks and tiles"),
    Metric("ablation/reorder_gain/*", "x", "measured", "higher", "time row by row / with rows grouped"),
    Metric("ablation/lre_gain/*", "x", "measured", "higher", "time with rows grouped / with loads shared"),
    Metric("ablation/tuning_gain/*", "x", "measured", "higher", "time with loads shared / with searched knobs too"),
    Metric("ablation/load_cut/*", "x", "counted", "higher", "loads of inputs row by row / with loads shared in BCRC, from the mask"),
    Metric("ablation/share/*", "", "measured", "higher", "(dense time / pruned time) / rate, our kernels, both with the knobs of the rule"),
    Metric("blocks/whole_ms/*", "ms", "measured", "lower", "a convolution with columns of the whole matrix pruned, best of our kernels"),
    Metric("blocks/large_ms/*", "ms", "measured", "lower", "the same with columns of large blocks pruned"),
    Metric("blocks/small_ms/*", "ms", "measured", "lower", "the same with columns of small blocks pruned"),
    Metric("blocks/csr_ms/*", "ms", "measured", "lower", "the same unstructured, as compressed sparse rows"),
    Metric("blocks/csr_over_small/*", "x", "measured", "higher", "time as compressed sparse rows / in small blocks, at one rate"),
    Metric("search/gain_median", "x", "measured", "higher", "time with the knobs of the rule / with searched ones, median over layers"),
    Metric("search/gain_min", "x", "measured", "higher", "the smallest of the same"),
    Metric("search/gain_max", "x", "measured", "higher", "the largest of the same"),
    Metric("masks/time_gap_pct/*", "%", "measured", "neither", "what a layer takes longer with its trained mask than with a random one"),
    Metric("masks/time_gap_max_pct", "%", "measured", "lower", "the largest distance between the two times of a layer"),
    Metric("bcrc/index_bytes/*", "B", "counted", "lower", "bytes of indices in BCRC, by rows of a block and rate"),
    Metric("bcrc/share_of_csr/*", "", "counted", "lower", "the same over those of compressed sparse rows"),
    Metric("bcrc/share_equal_width/*", "", "counted", "lower", "the same with column numbers of 4 bytes in both"),
    Metric(
        "bcrc/share_of_csr_max",
        "",
        "counted",
        "lower",
        "the largest share of compressed sparse rows where groups have two rows or more on average",
    ),
    Metric("bcrc/excess_per_row_max", "B", "counted", "lower", "bytes a row above compressed sparse rows where every row has its own list"),
    Metric("check/kernels", "", "counted", "neither", "kernels that a check ran"),
    Metric("fork_join_ns", "ns", "measured", "lower", "time in which all threads begin and end together, the longer of before and after"),
    Metric("max_rel_error", "", "measured", "lower", "largest difference of an output from the wanted one / largest wanted one"),
    Metric("latency_ms_p10", "ms", "measured", "lower", "10th percentile of one forward pass", "latency, 10th percentile"),
    Metric("latency_ms_p50", "ms", "measured", "lower", "median of one forward pass", "latency, median"),
    Metric("latency_ms_p90", "ms", "measured", "lower", "90th percentile of one forward pass", "latency, 90th percentile"),
    Metric(
        "check/largest_rise",
        "",
        "counted",
        "lower",
        "largest relative rise of the squared error over the rounds of an alternation",
    ),
    Metric("check/energy_gaussian_total", "", "counted", "higher", "share of all energy of Gaussian kernels that the library keeps"),
    Metric("check/energy_gaussian_relative", "", "counted", "higher", "share of the energy of their best 4 of 9 that the library keeps"),
    Metric("check/energy_centre_total", "", "counted", "higher", "share of all energy of centre-heavy kernels that the library keeps"),
    Metric("check/energy_centre_relative", "", "counted", "higher", "share of the energy of their best 4 of 9 that the library keeps"),
    Metric("storage/kernels", "", "counted", "lower", "kernels of a layer with a weight that is kept"),
    Metric("storage/weights", "", "counted", "lower", "weights kept of a layer"),
    Metric("storage/total_kib", "KiB", "counted", "lower", "bits of a layer's weights and their places"),
    Metric("storage/index_kbit", "kbit", "counted", "lower", "bits of the places alone, fillers and their values included"),
    Metric("storage/index_ratio", "x", "counted", "lower", "bits of the places / those of the kernel format"),
    Metric("check/index_vs_csr_relative", "x", "counted", "higher", "bits of the places in relative CSR / in the kernel format, same mask"),
    Metric(
        "check/index_vs_csr_absolute",
        "x",
        "counted",
        "higher",
        "bits of the places in absolute CSR, 16-bit / in the kernel format",
    ),
    Metric("check/weights_difference_max", "", "counted", "lower", "largest difference of a weight between the two runs of a check"),
    Metric("paths/logits_change_max", "", "counted", "lower", "largest change of a logit by unused path removal, held-out images"),
    Metric("paths/sweeps", "", "counted", "lower", "sweeps of unused path removal until nothing changes, the most that any took"),
    Metric("paths/rounds", "", "counted", "lower", "rounds of purification and unused path removal until nothing changes"),
    Metric("paths/empty_groups", "", "counted", "neither", "empty filters and empty channels before unused path removal"),
    Metric("purified/channels", "", "counted", "neither", "channels that purification emptied"),
    Metric("purified/disputed", "", "counted", "neither", "channels on which one condition of purification decides otherwise than both"),
    Metric("shrunk/logits_change_max", "", "counted", "lower", "largest change of a logit by cutting to smaller tensors, held-out images"),
    Metric("shrunk/speedup", "x", "measured", "higher", "forward pass before cutting / after, medians of passes in turn on one thread"),
    Metric(
        "check/latency_macs_r2",
        "",
        "measured",
        "higher",
        "R^2 of a line through latency over multiply-adds, over products cut to several rates",
    ),
    Metric("check/structured_over_csr", "x", "measured", "higher", "smallest ratio of CSR to dense time at equal multiply-adds"),
    Metric("check/rounds", "", "counted", "lower", "rounds until the squared error changes by less than 1e-4 of itself"),
)


def metric(name: str) -> Metric:
    """Return the entry that describes ``name``.

    Raises:
        KeyError: No entry matches; the message names the file to add it to.
    """
    for entry in METRICS:
        if entry.name == name or (entry.name.endswith("/*") and fnmatchcase(name, entry.name)):
            return entry
    raise KeyError(f"'{name}' is no metric of espalier; add it to espalier/metrics.py with its unit and better direction.")


def unknown(names: Iterable[str]) -> list[str]:
    """Return those of ``names`` that no entry describes, in order."""
    known = {entry.name for entry in METRICS}
    patterns = [name for name in known if name.endswith("/*")]
    return [name for name in names if name not in known and not any(fnmatchcase(name, pattern) for pattern in patterns)]
