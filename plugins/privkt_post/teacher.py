"""What the large model says of a corpus, computed once and kept on disk: its likeliest tokens, the rest, its states."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor

from privkt.contracts import Progress
from privkt_post.corpus import Corpus
from privkt_post.losses import kept_top
from privkt_post.networks import Net

_TOKENS_AT_ONCE = {"cpu": 2048}
_TOKENS_ELSEWHERE = 16_384


class TeacherCache:
    """Arrays over all places of a corpus: ids, log-probabilities, the rest's, and last hidden states.

    Guarantee: computed once for the same model, corpus, k and temperature, whoever asks; a crash loses at most one
        portion. Log-probabilities are kept in float32, so that the kept target is the model's own; states as
        directions in float16.
    """

    def __init__(self, folder: Path, corpus: Corpus, width: int, k: int) -> None:
        self.folder = folder
        n, t = corpus.ids.shape
        folder.mkdir(parents=True, exist_ok=True)
        self._ids = _array(folder / "ids.npy", (n, t, k), np.int32)
        self._logs = _array(folder / "logs.npy", (n, t, k), np.float32)
        self._rest = _array(folder / "rest.npy", (n, t), np.float32)
        self._states = _array(folder / "states.npy", (n, t, width), np.float16)
        self._progress = folder / "done.json"

    def fill(self, net: Net, corpus: Corpus, temperature: float, progress: Progress) -> None:
        """Computes what is missing."""
        with FileLock(self.folder / ".lock"):
            done = json.loads(self._progress.read_text()) if self._progress.is_file() else 0
            task = progress.task("asking the large model about the corpus", len(corpus), "sequences")
            task.advance(done)
            tokens = _TOKENS_AT_ONCE.get(net.device.type, _TOKENS_ELSEWHERE)
            portion = max(1, tokens // corpus.ids.shape[1])
            while done < len(corpus):
                part = list(range(done, min(done + portion, len(corpus))))
                with torch.no_grad():
                    ids, _, mask = corpus.batch(part, net.device)
                    hidden = net.hidden(net.embed(ids), mask)
                    for row, states in zip(part, hidden, strict=True):
                        top, logs, rest = kept_top(net.scores(states), self._ids.shape[-1], temperature)
                        self._ids[row], self._logs[row] = top.cpu().numpy(), logs.cpu().numpy()
                        self._rest[row] = rest.cpu().numpy()
                        # Of norm 1: float16 has no room for the outliers that some families have.
                        self._states[row] = torch.nn.functional.normalize(states.float(), dim=-1).cpu().numpy()
                done = part[-1] + 1
                for array in (self._ids, self._logs, self._rest, self._states):
                    array.flush()
                waiting = self._progress.with_suffix(".waiting")
                waiting.write_text(json.dumps(done))
                os.replace(waiting, self._progress)
                task.advance(len(part))

    def batch(self, indices: list[int], device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(ids, logs, rest, states) of some sequences. Shapes: [b, t, k], [b, t, k], [b, t], [b, t, d]."""
        ids = torch.from_numpy(np.array(self._ids[indices])).long()
        logs, rest, states = (
            torch.from_numpy(np.array(x[indices])).to(device) for x in (self._logs, self._rest, self._states)
        )
        return ids.to(device), logs, rest, states


def _array(file: Path, shape: tuple[int, ...], kind: type) -> np.memmap:
    if file.is_file():
        return np.lib.format.open_memmap(file, mode="r+")
    return np.lib.format.open_memmap(file, mode="w+", dtype=kind, shape=shape)
