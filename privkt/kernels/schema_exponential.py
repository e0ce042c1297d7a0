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
}


def _one_each(queries: Any, query_bias: Any, ids: Any, rows: Any, *rest: Any) -> Any:
    return rows.new_empty((queries if ids is None else ids).shape[0], dtype=torch.int64)


FAKES: dict[str, Callable[..., Any]] = {"weight_totals": _one_each, "exponential_draws": _one_each}
