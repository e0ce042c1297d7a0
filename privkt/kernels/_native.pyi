from typing import TypedDict

class BuildRecord(TypedDict):
    version: str
    compiler: str
    build_type: str
    processor: str
    cpu_isas: str
    cuda: bool
    cuda_asked: str
    cuda_version: str
    cuda_architectures: str
    cuda_reason: str

BUILD: BuildRecord
GAUSSIAN_TV: float
FAST_ERROR: tuple[float, float]
QUICK_ERROR: tuple[float, float]

def chacha20_block(key: bytes, counter: int, nonce: bytes) -> bytes: ...
def fast_normals(radius: int, angle: int) -> tuple[float, float, bool]: ...
def exact_normals(radius: int, angle: int, radius_low: int, angle_low: int) -> tuple[float, float, float, float]: ...
def cpu_isa() -> str: ...

TOKEN_ISAS: str

# words: data, bias, count, width, stride; queries: data, bias, rows, stride, ids, count
# how: shift, root, last, weights, wide; piece: from, to, other from, other to
_Four = tuple[int, int, int, int]
_Five = tuple[int, int, int, int, int]
_Six = tuple[int, int, int, int, int, int]

def token_isa(isa: str) -> str: ...
def amx_left_out() -> str: ...
def weight_totals_cpu(queries: _Six, words: _Five, how: _Five, totals: int, isa: str) -> None: ...
def exponential_draws_cpu(
    queries: _Six,
    words: _Five,
    how: _Five,
    starts: int,
    places: int,
    out: int,
    key: bytes,
    step: int,
    offset: int,
    isa: str,
) -> None: ...
def nearest_words_cpu(queries: _Six, words: _Five, k: int, ids: int, distances: int, isa: str) -> None: ...
def row_extremes_cpu(
    queries: _Six, words: _Five, how: _Five, word_values: int, most: int, least: int, isa: str
) -> None: ...
def table_totals_cpu(words: _Five, piece: _Four, how: _Five, totals: int, isa: str) -> None: ...
def table_nearest_cpu(words: _Five, piece: _Four, k: int, keys: int, bounds: int, farthest: int, isa: str) -> None: ...
def rejection_draws_cpu(
    words: _Five,
    near_ids: int,
    near_distances: int,
    k: int,
    how: _Five,
    fixed: tuple[int, int, int],
    ids: int,
    count: int,
    out: int,
    key: bytes,
    step: int,
    offset: int,
    isa: str,
) -> None: ...
def flip_draws_cpu(
    words: _Five,
    how: _Five,
    bits: int,
    ids: int,
    count: int,
    out: int,
    key: bytes,
    step: int,
    offset: int,
    isa: str,
) -> None: ...
def selected_words_cpu(queries: _Six, words: _Five, how: _Five, r: int, words_drawn: int, isa: str) -> None: ...
def discrete_gaussian_cpu(
    out: int, count: int, sigma: float, key: bytes, step: int, offset: int, accumulate: bool
) -> None: ...

# (total, element, cell, sigma, key, step, offset, divisor, negative)
_NoisyMean = tuple[int, int, float, float, bytes, int, int, float, bool]

def sgd_update_cpu(
    param: int,
    element: int,
    count: int,
    momentum_buffer: int,
    mean: _NoisyMean,
    rate: float,
    momentum: float,
    dampened: float,
    weight_decay: float,
    nesterov: bool,
    first: bool,
) -> bool: ...
def adam_update_cpu(
    param: int,
    element: int,
    count: int,
    exp_avg: int,
    exp_avg_sq: int,
    mean: _NoisyMean,
    rate: float,
    first_weight: float,
    second_decay: float,
    second_weight: float,
    correction: float,
    root_correction: float,
    eps: float,
    weight_decay: float,
    shrink: float,
    noise_variance: float,
    floor: float,
) -> bool: ...
def quick_normals_cpu(radius: int, angle: int, count: int, first: int, second: int) -> None: ...
def row_sqnorms_cpu(
    data: int, element: int, batch: int, width: int, stride: int, mask: int, sqnorms: int, accumulate: bool
) -> None: ...
def clip_factors_cpu(
    sqnorms: int, mask: int, batch: int, max_norm: float, width: float, slack: float, factors: int, finite: int
) -> None: ...
def clipped_sum_cpu(
    data: int,
    element: int,
    batch: int,
    width: int,
    stride: int,
    mask: int,
    factors: int,
    out: int,
    out_element: int,
    accumulate: bool,
    scale: float,
) -> bool: ...
def embedding_sqnorms_cpu(lookups: tuple[int, ...], sqnorms: int, accumulate: bool) -> None: ...
def clipped_embedding_sum_cpu(
    lookups: tuple[int, ...], factors: int, start: int, stop: int, out: int, out_element: int, scale: float
) -> bool: ...
def product_sqnorms_cpu(
    left: int,
    left_element: int,
    p: int,
    left_sample: int,
    left_step: int,
    right: int,
    right_element: int,
    d: int,
    right_sample: int,
    right_step: int,
    batch: int,
    steps: int,
    mask: int,
    gram: bool,
    sqnorms: int,
    accumulate: bool,
) -> None: ...
def clipped_product_sum_cpu(
    left: int,
    left_element: int,
    p: int,
    left_sample: int,
    left_step: int,
    right: int,
    right_element: int,
    d: int,
    right_sample: int,
    right_step: int,
    batch: int,
    steps: int,
    mask: int,
    factors: int,
    out: int,
    out_element: int,
    out_stride: int,
    scale: float,
) -> bool: ...
def tied_cross_cpu(
    lookups: tuple[int, ...],
    left: int,
    left_element: int,
    p: int,
    left_sample: int,
    left_step: int,
    right: int,
    right_element: int,
    d: int,
    right_sample: int,
    right_step: int,
    batch: int,
    steps: int,
    crosses: int,
) -> None: ...
def noise_cpu(
    out: int, base: int, base_element: int, count: int, sigma: float, key: bytes, step: int, offset: int
) -> None: ...
def head_losses_cpu(
    logits: int,
    rows: int,
    columns: int,
    stride: int,
    labels: int,
    scale: float,
    cap: float,
    losses: int,
    stats: int,
    want_gradient: bool,
) -> None: ...
def head_gradient_cpu(
    logits: int, rows: int, columns: int, stride: int, labels: int, scale: float, cap: float, stats: int, start: int
) -> None: ...

# Kernels in blocks of threads (X_cuda, and X_blocks played on the CPU) take the arguments of X_cpu, a workspace where
# one is needed, and a stream; they are found by name.
def product_workspace(batch: int, steps: int, d: int, gram: bool) -> int: ...
def embedding_workspace(batch: int, steps: int) -> int: ...
def play_backwards(backwards: bool) -> None: ...
def token_sums_workspace(queries: int, words: int) -> int: ...
def nearest_block_workspace(queries: int, words: int, k: int) -> int: ...
def extremes_block_workspace(queries: int, words: int) -> int: ...
def flip_block_workspace(queries: int, words: int) -> int: ...
def limit_token_space(integers: int) -> int: ...
