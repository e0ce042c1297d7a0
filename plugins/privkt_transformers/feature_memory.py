"""Features that were computed before in this process: the arms of a comparison embed the same texts again and again.

Kept in memory only, under keyed digests whose key dies with the process.
"""

from __future__ import annotations

import hashlib
import secrets
import threading
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np

from privkt.contracts import ProgressTask
from privkt_transformers.embedding import Pooling, features
from privkt_transformers.loading import Loaded

_MOST_BYTES = 256 * 2**20
_key = secrets.token_bytes(32)
_rows: OrderedDict[bytes, np.ndarray] = OrderedDict()
_bytes = 0
_lock = threading.Lock()


def remembered_features(
    loaded: Loaded,
    texts: Sequence[str],
    pooling: Pooling,
    *,
    batch_tokens: int,
    task: ProgressTask | None = None,
) -> np.ndarray:
    """As `features`, asking the model only for texts it has not seen.

    Edge cases: weights without an identity (an adapter in place) are computed every time.
    """
    if loaded.weights_id is None or not texts:
        return features(loaded, texts, pooling, batch_tokens=batch_tokens, task=task)
    about = f"{loaded.weights_id}|{loaded.dtype}|{loaded.device}|{pooling}".encode()
    keys = [_digest(about, text) for text in texts]
    with _lock:
        known = {key: _rows[key] for key in keys if key in _rows}
    fresh = {key: text for key, text in zip(keys, texts, strict=True) if key not in known}
    if task is not None:
        task.advance(len(texts) - len(fresh))
    made = features(loaded, list(fresh.values()), pooling, batch_tokens=batch_tokens, task=task)
    known.update(zip(fresh, made, strict=True))
    _remember({key: known[key] for key in fresh})
    return np.stack([known[key] for key in keys])


def forget_features() -> None:
    """Drops everything that is remembered."""
    global _bytes
    with _lock:
        _rows.clear()
        _bytes = 0


def _digest(about: bytes, text: str) -> bytes:
    digest = hashlib.blake2b(about, key=_key, digest_size=16)
    digest.update(text.encode("utf-8", "surrogatepass"))
    return digest.digest()


def _remember(rows: dict[bytes, np.ndarray]) -> None:
    global _bytes
    with _lock:
        for key, row in rows.items():
            if key not in _rows:
                _bytes += row.nbytes
            _rows[key] = row
        while _bytes > _MOST_BYTES:
            _, oldest = _rows.popitem(last=False)
            _bytes -= oldest.nbytes
