"""Samplers that give every unit one step of each epoch: drawn in secret (balls in bins), or fixed in public.

An epoch's bins must stay what they are while it lasts. A training that is resumed inside an epoch with a new key would
draw the rest of the epoch anew, and a unit could be in it twice: so `BallsInBinsSampler` hands out the key of the
running epoch as its state, which is kept with the checkpoint and forgotten at the epoch's end
(docs/proofs/dpsgd.md, "Resuming"). A public order needs no state.
"""

from __future__ import annotations

import hashlib

import numpy as np

from privkt.dpsgd.errors import RefusedTraining
from privkt.dpsgd.sampling import KEY_BYTES, Sampler


class BallsInBinsSampler(Sampler):
    """Each of `size` units is in one of `bins` steps of each epoch, independently and uniformly.

    `start` and `state` are those of the checkpoint that is resumed.
    """

    def __init__(self, size: int, bins: int, key: bytes, *, start: int = 0, state: bytes = b"") -> None:
        _need_bins("BallsInBinsSampler", size, bins)
        if len(state) != (KEY_BYTES if start % bins else 0):
            raise RefusedTraining(
                f"BallsInBinsSampler: a resume inside an epoch needs the {KEY_BYTES} bytes of its state, one between "
                f"epochs none, got {len(state)} at step {start}; resume from the checkpoint with its state"
            )
        self.size, self.bins = size, bins
        self._key = key
        self._running = (start // bins, state) if state else None
        self._filled: tuple[int, np.ndarray, np.ndarray] | None = None

    def draw(self, step: int) -> np.ndarray:
        epoch, bin_ = divmod(step, self.bins)
        if self._filled is None or self._filled[0] != epoch:
            bins = _uniform(b"privkt bins\0" + self._epoch_key(epoch), self.size, self.bins)
            self._filled = (epoch, np.argsort(bins, kind="stable"), np.bincount(bins, minlength=self.bins).cumsum())
        _, order, ends = self._filled
        return order[(ends[bin_ - 1] if bin_ else 0) : ends[bin_]]

    def state(self, step: int) -> bytes:
        return self._epoch_key(step // self.bins) if step % self.bins else b""

    def _epoch_key(self, epoch: int) -> bytes:
        """Tells nothing of the key, nor of other epochs."""
        if self._running is not None and self._running[0] == epoch:
            return self._running[1]
        return hashlib.sha256(b"privkt epoch\0" + self._key + epoch.to_bytes(8, "little")).digest()


class FixedOrderSampler(Sampler):
    """Each of `size` units is in the same one of `bins` steps of every epoch: a public permutation cut in pieces.

    Pieces differ by at most one in size. `key` is for dropout alone.
    """

    def __init__(self, size: int, bins: int, seed: int, key: bytes) -> None:
        _need_bins("FixedOrderSampler", size, bins)
        self.size, self.bins = size, bins
        self._key = key
        stream = hashlib.shake_256(b"privkt public order\0" + seed.to_bytes(8, "little"))
        self._order = np.argsort(np.frombuffer(stream.digest(8 * size), dtype="<u8"), kind="stable")

    def draw(self, step: int) -> np.ndarray:
        bin_ = step % self.bins
        return np.sort(self._order[bin_ * self.size // self.bins : (bin_ + 1) * self.size // self.bins])


def _uniform(seed: bytes, count: int, below: int) -> np.ndarray:
    """Exactly uniform whole numbers: words at or above the largest multiple of `below` are drawn again."""
    largest = (1 << 64) // below * below
    found, missing, turn = np.zeros(count, dtype=np.uint64), np.arange(count), 0
    while len(missing):
        stream = hashlib.shake_256(seed + turn.to_bytes(8, "little"))
        words = np.frombuffer(stream.digest(8 * len(missing)), dtype="<u8")
        taken = words <= np.uint64(largest - 1)
        found[missing[taken]] = words[taken] % np.uint64(below)
        missing, turn = missing[~taken], turn + 1
    return found.astype(np.int64)


def _need_bins(subject: str, size: int, bins: int) -> None:
    if not 1 <= bins <= size:
        raise RefusedTraining(
            f"{subject}: the bins of an epoch must lie between 1 and N = {size}, got {bins}; raise batch_size to at "
            "least 1, or lower it to N"
        )
