"""The nearest word to a noisy vector: multivariate Laplace and Mahalanobis noise, in floating point."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from privkt.privacy import RefusedInput
from privkt_mechanisms.byte_table import byte_table
from privkt_mechanisms.calibration import asked
from privkt_mechanisms.unproven import Unproven

_ROWS = 256
_UNIT = 2.0**-53


class NoisyNeighbour(Unproven):
    """The word nearest to the vector of x plus noise of density proportional to exp(-epsilon |z|).

    `mahalanobis`: 0 for the same noise in every direction; up to 1, the share of the public table's covariance (scaled
    to the trace of the identity) in the shape of the noise.
    Units: `epsilon` is nats a unit of distance of the table.
    Guarantee: none: in real numbers epsilon d(x, x') (of the shaped metric); in floating point nothing is certified,
        and the law has no closed form. For comparison.
    References: Feyisetan, Balle, Drake, Diethe 2020, "Privacy- and Utility-Preserving Textual Analysis via Calibrated
        Multivariate Perturbations"; Xu, Aggarwal, Feyisetan, Teissier 2020 (Mahalanobis).
    """

    name = "noisy_neighbour"
    reason = "floating-point noise is not certified; epsilon a unit of distance in real numbers only"

    def __init__(self, table: ArrayLike, epsilon: Fraction | float | str, *, mahalanobis: float = 0.0) -> None:
        self.epsilon, self.calibrate = asked(self.name, epsilon, "range"), "metric"
        self.sharpness = self.epsilon
        if not 0 <= mahalanobis <= 1:
            raise RefusedInput(f"{self.name}: mahalanobis must lie in [0, 1], got {mahalanobis!r}; 0 is plain noise")
        self.mahalanobis = float(mahalanobis)
        self.table = byte_table(self.name, table)
        self.size = self.table.size
        self._vectors = np.asarray(table, dtype=np.float64)
        self._shape = self._root() if self.mahalanobis else None

    @property
    def has_law(self) -> bool:
        return False

    def probabilities(self, ids: NDArray[np.int64]) -> NDArray[np.float64]:
        raise RefusedInput(f"{self.name}: its law must be sampled, for it has no closed form; count draws instead")

    def sample_ids(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        self.need_ids(ids)
        flat = ids.astype(np.int64).ravel()
        parts = [self._drawn(flat[start : start + _ROWS]) for start in range(0, len(flat), _ROWS)]
        return np.concatenate([*parts, np.zeros(0, dtype=np.int64)]).reshape(ids.shape)

    def _drawn(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        noisy = self._vectors[ids] + self._noise(len(ids))
        squares = (self._vectors**2).sum(axis=1)[None] - 2 * noisy @ self._vectors.T
        return squares.argmin(axis=1)

    def _noise(self, number: int) -> NDArray[np.floating]:
        """Length by a gamma law of the table's width, direction uniform, then shaped."""
        width = self._vectors.shape[1]
        directions = _normals(number, width)
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        lengths = -np.log(_uniforms(number * width)).reshape(number, width).sum(axis=1) / self.epsilon
        noise = directions * lengths[:, None]
        return noise if self._shape is None else noise @ self._shape

    def _root(self) -> NDArray[np.floating]:
        width = self._vectors.shape[1]
        covariance = np.atleast_2d(np.cov(self._vectors, rowvar=False, bias=True))
        trace = float(np.trace(covariance))
        scaled = covariance * (width / trace) if trace > 0 else np.eye(width)
        values, axes = np.linalg.eigh(self.mahalanobis * scaled + (1 - self.mahalanobis) * np.eye(width))
        return (axes * np.sqrt(np.maximum(values, 0))) @ axes.T

    def parameters(self) -> Mapping[str, Any]:
        return {**super().parameters(), "mahalanobis": self.mahalanobis}


def _uniforms(number: int) -> NDArray[np.floating]:
    """In (0, 1), 53 bits, from the system's secure source."""
    words = np.frombuffer(secrets.token_bytes(8 * number), dtype=np.uint64) >> np.uint64(11)
    return (words + 0.5) * _UNIT


def _normals(number: int, width: int) -> NDArray[np.floating]:
    radius = np.sqrt(-2 * np.log(_uniforms(number * width)))
    return (radius * np.cos(2 * np.pi * _uniforms(number * width))).reshape(number, width)
