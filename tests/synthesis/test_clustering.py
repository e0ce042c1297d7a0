import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privkt.synthesis.clustering import capped_kmeans


@settings(max_examples=30)
@given(st.integers(0, 40), st.integers(1, 7), st.integers(0, 3), st.booleans())
def test_every_row_once_and_no_cluster_over_the_cap(n, size, seed, equal):
    vectors = np.zeros((n, 3)) if equal else np.random.default_rng(seed).normal(size=(n, 3))
    clusters = capped_kmeans(vectors, size, seed)
    assert sorted(i for c in clusters for i in c) == list(range(n))
    assert all(1 <= len(c) <= size for c in clusters)
    assert len(clusters) <= math.ceil(n / size)
    assert clusters == capped_kmeans(vectors, size, seed)


def test_a_crowd_is_cut_to_the_cap():
    crowd = np.concatenate([np.zeros((9, 2)), np.full((1, 2), 50.0), np.full((2, 2), 90.0)])
    assert max(map(len, capped_kmeans(crowd + np.arange(24).reshape(12, 2) * 1e-3, 4))) == 4


def test_far_groups_are_found():
    groups = np.repeat(np.array([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]]), 4, axis=0)
    assert capped_kmeans(groups, 4) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="cluster_size must be at least 1"):
        capped_kmeans(np.zeros((3, 2)), 0)
    with pytest.raises(ValueError, match="vectors must be finite"):
        capped_kmeans(np.full((3, 2), np.nan), 2)
