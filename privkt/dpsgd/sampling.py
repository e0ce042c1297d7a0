"""Poisson sampling from secure randomness, with or without a cap, and the keys of one training.

Bernoulli(q) is an integer comparison: a record is in if its 64-bit word lies below floor(2^64 batch / N). Words are
SHAKE-256 (FIPS 202) of key, domain and step, so the realised rate is q rounded *down* by less than 2^-64, every word is
used once, and the epsilon computed at q is an upper bound.

Membership and realised batch sizes are private: nothing here logs or returns them but to the training loop.
"""

from __future__ import annotations

import hashlib
import os
import random
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NoReturn

import numpy as np
import torch

from privkt.dpsgd.errors import RefusedTraining, TrainingError

KEY_BYTES = 32
_TWISTER_AT, _TWISTER_WORDS = 24, 624  # in the bytes of torch's CPU generator: 64 bits a word of 32


@dataclass(frozen=True)
class Keys:
    """Two independent keys: which records are drawn, and which noise is added. They never touch a disk.

    `public` marks keys that somebody else knows (tests): the result is then of kind none.
    """

    sampler: bytes = field(repr=False)
    noise: bytes = field(repr=False)
    public: bool = False

    def __post_init__(self) -> None:
        if {len(self.sampler), len(self.noise)} != {KEY_BYTES}:
            raise RefusedTraining(f"Keys: sampler and noise must have {KEY_BYTES} bytes each; use Keys.fresh()")

    @classmethod
    def fresh(cls) -> Keys:
        """New keys from the operating system's generator."""
        from privkt import kernels

        return cls(sampler=os.urandom(KEY_BYTES), noise=kernels.new_key())

    @classmethod
    def for_tests(cls, seed: int) -> Keys:
        """Keys that a test can repeat; whoever trains with them gets no guarantee."""
        sampler, noise = (hashlib.sha256(f"{part} {seed}".encode()).digest() for part in ("sampler", "noise"))
        return cls(sampler, noise, public=True)


@contextmanager
def layer_randomness(seed: int) -> Iterator[None]:
    """Inside, random layers (dropout) draw from a seed that nobody knows; the caller's random state is as before after.

    The same for numpy's and Python's generators, which some models and collators mask tokens by.

    A mask belongs to a place in the batch. With a known state, leaving out a record, or a shorter padding, gives other
    records other masks that everybody can compute, and the sum moves by many times max_grad_norm; with an unknown one
    every record's mask is as likely as any other, whoever else is in the batch (docs/proofs/dpsgd.md, "Rows").
    """
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    before = random.getstate(), np.random.get_state()
    words = hashlib.shake_256(b"privkt states\0" + seed.to_bytes(KEY_BYTES, "little")).digest(8 * _TWISTER_WORDS)
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed >> 192)
        torch.set_rng_state(_twisted(torch.get_rng_state(), words[: 4 * _TWISTER_WORDS]))
        random.seed(seed)
        np.random.seed(np.frombuffer(words[4 * _TWISTER_WORDS :], dtype="<u4"))
        try:
            yield
        finally:
            random.setstate(before[0])
            np.random.set_state(before[1])


def _twisted(state: torch.Tensor, words: bytes) -> torch.Tensor:
    """A state of torch's CPU generator with `words` for its 624: a seed alone would leave 2^32 to try.

    Raises: TrainingError, where torch keeps its generator in another form.
    """
    end = _TWISTER_AT + 8 * _TWISTER_WORDS
    known = len(state) >= end
    twister = state[_TWISTER_AT:end].clone().view(torch.int64) if known else torch.empty(0)
    known = known and int(twister[0]) == int(state[:8].clone().view(torch.int64)) % 2**32 and int(twister.max()) < 2**32
    if not known:
        raise TrainingError(
            "PrivateTraining: dropout must draw from a state that nobody can guess, got a generator of torch whose "
            "form is not known here; use the version of torch that privkt names"
        )
    twister[:] = torch.from_numpy(np.frombuffer(words, dtype="<u4").astype(np.int64))
    return torch.cat([state[:_TWISTER_AT], twister.view(torch.uint8), state[end:]])


class Sampler(ABC):
    """Who takes part in each step, from a key that nobody else knows; made by a `Scheme`, which names its price."""

    _key: bytes

    @abstractmethod
    def draw(self, step: int) -> np.ndarray:
        """Indices of the units drawn at `step`, ascending; the same step always gives the same draw."""

    def state(self, step: int) -> bytes:
        """What a resume at `step` needs beside fresh keys; private, kept with the checkpoint of that step alone.

        Edge cases: nothing, where steps are drawn one by one or follow a public order.
        """
        return b""

    def __reduce__(self) -> NoReturn:
        raise RefusedTraining(
            f"{type(self).__name__}: its key must be in one place, got a copy of the training or a pickle of it, which "
            "would draw the same records under the same noise; make another training"
        )

    def layer_seed(self, step: int, rank: int = 0) -> int:
        """The seed of dropout from `step` on in process `rank`: 256 bits of the key that tell nothing of it."""
        place = step.to_bytes(8, "little") + rank.to_bytes(8, "little")
        return int.from_bytes(hashlib.sha256(b"privkt layers\0" + self._key + place).digest(), "little")


class PoissonSampler(Sampler):
    """Independent draws: at each step every one of `size` records is in with probability `batch_size` / `size`."""

    def __init__(self, size: int, batch_size: int, key: bytes) -> None:
        if not 1 <= batch_size <= size:
            raise RefusedTraining(
                f"PoissonSampler: the expected batch must lie between 1 and N = {size}, got {batch_size}; lower it"
            )
        self.size = size
        self.threshold = (batch_size << 64) // size
        self._key = key

    def draw(self, step: int) -> np.ndarray:
        """Indices of the records drawn at `step`, ascending; the same step always gives the same draw."""
        if self.threshold == 1 << 64:
            return np.arange(self.size)
        stream = hashlib.shake_256(b"privkt poisson\0" + self._key + step.to_bytes(8, "little"))
        words = np.frombuffer(stream.digest(8 * self.size), dtype="<u8")
        return np.flatnonzero(words < np.uint64(self.threshold))


class TruncatedPoissonSampler(PoissonSampler):
    """Poisson draws of which at most `cap` stay: those with the smallest of fresh random words.

    Guarantee: each unit of a draw that is cut is as likely to stay, whatever records hold.
    """

    def __init__(self, size: int, batch_size: int, cap: int, key: bytes) -> None:
        super().__init__(size, batch_size, key)
        if cap < 1:
            raise RefusedTraining(f"TruncatedPoissonSampler: the cap must be at least 1, got {cap}; raise it")
        self.cap = cap

    def draw(self, step: int) -> np.ndarray:
        drawn = super().draw(step)
        if len(drawn) <= self.cap:
            return drawn
        turn = 0
        while True:  # with equal words, all are drawn again: then every order is equally likely, exactly
            place = step.to_bytes(8, "little") + turn.to_bytes(8, "little")
            stream = hashlib.shake_256(b"privkt priorities\0" + self._key + place)
            words = np.frombuffer(stream.digest(8 * len(drawn)), dtype="<u8")
            order = np.argsort(words)
            if np.diff(words[order]).all():
                return np.sort(drawn[order[: self.cap]])
            turn += 1


def microbatches(indices: np.ndarray, size: int) -> Iterator[tuple[list[int], list[bool]]]:
    """`indices` in pieces of exactly `size`, each with a mask that is False where a record fills up the piece.

    Edge cases: no index gives one piece of fillers, so that an empty draw takes the same path; a filler is the first
    record of the piece (record 0 of an empty draw), whose second gradient is never computed.
    """
    for start in range(0, max(len(indices), 1), size):
        real = [int(i) for i in indices[start : start + size]]
        missing = size - len(real)
        yield real + (real[:1] or [0]) * missing, [True] * len(real) + [False] * missing
