"""How far two sets of texts are apart, from their embeddings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from privkt.privacy import RefusedInput

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_SCALE = 5.0
_POINTS = 25


def divergence_frontier(
    one: NDArray[np.floating], other: NDArray[np.floating], clusters: int = 16, seed: int = 0
) -> float:
    """The area under the divergence frontier of two quantised sets, in the manner of MAUVE: 1 alike, 0 apart.

    Shapes: one: [n, d]; other: [m, d].
    Guarantee: in (0, 1], 1 for equal histograms, symmetric but for the clustering's random start. Comparable only at
        one number of clusters and with one embedder.
    Raises: RefusedInput, for fewer rows than clusters, or rows of other widths.
    References: Pillutla et al. 2021, MAUVE, section 2; scale 5 as there.
    """
    import numpy as np
    from sklearn.cluster import KMeans

    if one.ndim != 2 or other.ndim != 2 or one.shape[1] != other.shape[1] or min(len(one), len(other)) < 1:
        raise RefusedInput("divergence_frontier: both sets must be rows of one width, and at least one row each")
    if len(one) + len(other) < clusters:
        raise RefusedInput(
            f"divergence_frontier: there must be at least {clusters} rows together, got {len(one) + len(other)}; lower "
            "`clusters`"
        )
    rows = np.concatenate([one, other])
    found = KMeans(clusters, n_init=4, random_state=seed).fit_predict(rows)
    p = np.bincount(found[: len(one)], minlength=clusters) / len(one)
    q = np.bincount(found[len(one) :], minlength=clusters) / len(other)
    x, y = [0.0], [1.0]
    for share in np.linspace(1e-6, 1 - 1e-6, _POINTS):
        mixed = share * p + (1 - share) * q
        x.append(float(np.exp(-_SCALE * _divergence(q, mixed))))
        y.append(float(np.exp(-_SCALE * _divergence(p, mixed))))
    x.append(1.0)
    y.append(0.0)
    order = np.lexsort((-np.array(y), np.array(x)))
    return float(min(1.0, np.trapezoid(np.array(y)[order], np.array(x)[order])))


def _divergence(p: NDArray[np.floating], q: NDArray[np.floating]) -> float:
    import numpy as np

    inside = p > 0
    return float(np.sum(p[inside] * np.log(p[inside] / q[inside])))
