"""K-means with a cap on a cluster's size, so that a cluster always fits one prompt."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


def capped_kmeans(vectors: np.ndarray, cluster_size: int, seed: int = 0) -> list[list[int]]:
    """Rows grouped by k-means into ceil(n / cluster_size) clusters of at most `cluster_size` rows.

    Shapes: vectors: [n, d] float. Result: indices 0..n-1, each in exactly one cluster, ascending inside it; clusters in
        order of their first row; clusters that lost all rows are left out.
    Guarantee: the same vectors and seed give the same clusters. Rows nearest to their centre stay; the others go, in
        order of distance, to the nearest centre with room.
    Edge cases: no rows give no clusters; cluster_size >= n gives one.
    Raises: ValueError for a cluster_size below 1 or vectors that are not finite.
    """
    import numpy as np
    from sklearn.cluster import KMeans

    vectors = np.asarray(vectors, dtype=np.float64)
    if cluster_size < 1:
        raise ValueError(f"capped_kmeans: cluster_size must be at least 1, got {cluster_size}")
    if vectors.size and not np.isfinite(vectors).all():
        raise ValueError("capped_kmeans: vectors must be finite, got NaN or infinity; check the embedder")
    n = len(vectors)
    if n == 0:
        return []
    k = math.ceil(n / cluster_size)
    if k == 1:
        return [list(range(n))]
    # Fewer distinct rows than clusters is legal here (equal texts): k-means is given what it can separate.
    separable = min(k, len(np.unique(vectors, axis=0)))
    found = KMeans(n_clusters=separable, n_init=1, random_state=seed).fit(vectors)
    centres = found.cluster_centers_
    centres = centres[np.arange(k) % separable]
    own = found.labels_.astype(int)
    members: list[list[int]] = [[] for _ in range(k)]
    for row in np.lexsort((np.arange(n), _distance(vectors, centres[own]))):
        target = own[row]
        if len(members[target]) >= cluster_size:
            open_ = np.array([c for c in range(k) if len(members[c]) < cluster_size])
            target = int(open_[np.argmin(_distance(vectors[row], centres[open_]))])
        members[target].append(int(row))
    return sorted((sorted(rows) for rows in members if rows), key=lambda rows: rows[0])


def _distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return ((a - b) ** 2).sum(axis=-1)
