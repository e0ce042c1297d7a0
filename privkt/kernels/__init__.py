"""Kernels of private training and of private text: clip factors, clipped sums, noise, draws of words.

Each is a torch.library op in the namespace `privkt`, on CPU and CUDA, with a Python reference that says what it must
compute. `PRIVKT_KERNELS=reference` is the only way to run the reference, and what it makes is not private; a missing
native module is an error at the first call, never a silent fallback.
"""

from privkt.kernels.discrete import (
    accounted_sigma,
    add_discrete_gaussian_,
    covering_sigma,
    discrete_gaussian_,
    discrete_grid,
    discrete_tv_per_coordinate,
    representable_sigma,
)
from privkt.kernels.embeddings import clipped_embedding_sum, embedding_sqnorms
from privkt.kernels.exponential import (
    ByteTable,
    Levels,
    byte_table,
    draw_flipped,
    draw_words,
    quantised,
    table_totals,
    weight_totals,
)
from privkt.kernels.factors import ClipFactors, clip_factors, row_sqnorms
from privkt.kernels.grid import grid_scale
from privkt.kernels.head import HeadGradient, head_gradient, linear_cross_entropy
from privkt.kernels.native import KernelsUnavailable, build_info, is_private, runs_on
from privkt.kernels.noise import (
    add_gaussian_noise_,
    chacha20_block,
    gaussian_noise,
    gaussian_tv_per_coordinate,
    new_key,
    noisy_sum,
)
from privkt.kernels.optimizers import noisy_step_
from privkt.kernels.products import clipped_product_sum, product_norm_method, product_sqnorms
from privkt.kernels.rejection import (
    FixedTime,
    Neighbours,
    draw_words_near,
    fixed_time,
    log_extremes,
    nearest_words,
    neighbours,
    row_extremes,
)
from privkt.kernels.sums import clip_and_sum, clipped_sum, sum_slack
from privkt.kernels.tables import TableIndex, largest_spread, table_index
from privkt.kernels.tied import tied_cross, tied_grid_norm, tied_sqnorms
from privkt.kernels.updates import adamw_update_, sgd_update_

__all__ = [
    "ByteTable",
    "ClipFactors",
    "FixedTime",
    "HeadGradient",
    "KernelsUnavailable",
    "Levels",
    "Neighbours",
    "TableIndex",
    "accounted_sigma",
    "adamw_update_",
    "add_discrete_gaussian_",
    "add_gaussian_noise_",
    "build_info",
    "byte_table",
    "chacha20_block",
    "clip_and_sum",
    "clip_factors",
    "clipped_embedding_sum",
    "clipped_product_sum",
    "clipped_sum",
    "covering_sigma",
    "discrete_gaussian_",
    "discrete_grid",
    "discrete_tv_per_coordinate",
    "draw_flipped",
    "draw_words",
    "draw_words_near",
    "embedding_sqnorms",
    "fixed_time",
    "gaussian_noise",
    "gaussian_tv_per_coordinate",
    "grid_scale",
    "head_gradient",
    "is_private",
    "largest_spread",
    "linear_cross_entropy",
    "log_extremes",
    "nearest_words",
    "neighbours",
    "new_key",
    "noisy_step_",
    "noisy_sum",
    "product_norm_method",
    "product_sqnorms",
    "quantised",
    "representable_sigma",
    "row_extremes",
    "row_sqnorms",
    "runs_on",
    "sgd_update_",
    "sum_slack",
    "table_index",
    "table_totals",
    "tied_cross",
    "tied_grid_norm",
    "tied_sqnorms",
    "weight_totals",
]
