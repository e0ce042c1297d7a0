"""Schemas and shapes of the token ops, which `_schema` registers with all others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

_TABLE = "Tensor queries, Tensor query_bias, Tensor? ids, Tensor rows, Tensor bias"
_LEVELS = "int shift, bool root, int last, Tensor weights"
_COUNTER = "Tensor key, int step, int offset"
SCHEMAS = {
    "weight_totals": f"({_TABLE}, {_LEVELS}) -> Tensor",
    "exponential_draws": f"({_TABLE}, {_LEVELS}, {_COUNTER}) -> Tensor",
    "flip_draws": f"(Tensor ids, Tensor rows, Tensor bias, {_LEVELS}, {_COUNTER}) -> Tensor",
    "nearest_words": f"({_TABLE}, int k) -> (Tensor, Tensor)",
    "row_extremes": (
        f"({_TABLE}, int shift, bool root, int last, Tensor values, Tensor word_values) -> (Tensor, Tensor)"
    ),
    "table_nearest": "(Tensor rows, Tensor bias, int k) -> (Tensor, Tensor, Tensor)",
    "table_totals": f"(Tensor rows, Tensor bias, {_LEVELS}) -> Tensor",
    "rejection_draws": (
        f"(Tensor ids, Tensor rows, Tensor bias, Tensor near_ids, Tensor near_distances, {_LEVELS}, "
        f"int rounds, int most_listed, int most_tail, {_COUNTER}) -> Tensor"
    ),
}


def _one_each(queries: Any, query_bias: Any, ids: Any, rows: Any, *rest: Any) -> Any:
    return rows.new_empty((queries if ids is None else ids).shape[0], dtype=torch.int64)


def _two_each(queries: Any, query_bias: Any, ids: Any, rows: Any, *rest: Any) -> Any:
    n = (queries if ids is None else ids).shape[0]
    return rows.new_empty(n, dtype=torch.int32), rows.new_empty(n, dtype=torch.int32)


def _nearest(queries: Any, query_bias: Any, ids: Any, rows: Any, bias: Any, k: int) -> Any:
    n = (queries if ids is None else ids).shape[0]
    return rows.new_empty(n, k, dtype=torch.int32), rows.new_empty(n, k, dtype=torch.int32)


def _table_nearest(rows: Any, bias: Any, k: int) -> Any:
    n = rows.shape[0]
    near = (rows.new_empty(n, k, dtype=torch.int32) for _ in range(2))
    return *near, rows.new_empty(n, dtype=torch.int32)


FAKES: dict[str, Callable[..., Any]] = {
    "weight_totals": _one_each,
    "exponential_draws": _one_each,
    "flip_draws": lambda ids, *rest: torch.empty_like(ids),
    "nearest_words": _nearest,
    "row_extremes": _two_each,
    "table_nearest": _table_nearest,
    "table_totals": lambda rows, *rest: rows.new_empty(rows.shape[0], dtype=torch.int64),
    "rejection_draws": lambda ids, *rest: torch.empty_like(ids),
}
