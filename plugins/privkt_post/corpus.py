"""Public texts as sequences of one length, with the masks that a masked model is asked to fill."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from privkt.privacy import RefusedInput
from privkt_post.inputs import frame
from privkt_post.networks import Net

IGNORED = -100


@dataclass(frozen=True)
class Corpus:
    """Sequences of one length. Shapes: ids, labels, mask: [n, t]; labels are -100 where the family's loss has none.

    `digest`: a hash of all of it, for names of what is made from it; the texts are public.
    """

    ids: np.ndarray
    labels: np.ndarray
    mask: np.ndarray
    digest: str

    def __len__(self) -> int:
        return len(self.ids)

    def batch(self, indices: Sequence[int], device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """(ids, labels, mask) of some sequences."""
        ids, labels, mask = (
            torch.from_numpy(x[list(indices)]).long().to(device) for x in (self.ids, self.labels, self.mask)
        )
        return ids, labels, mask


def make_corpus(net: Net, texts: Sequence[str], *, length: int, pack: bool, masked_share: float, seed: int) -> Corpus:
    """`pack`: texts one after the other, cut every `length` tokens; otherwise a sequence each, cut or padded.

    Edge cases: the tokens left over by packing are dropped; for a masked model the places to fill are drawn once, from
        the seed, so that the large model's answers can be kept.
    Raises: RefusedInput, for texts that fill no sequence.
    """
    left, right = frame(net.tokenizer)
    ends = right or tuple([int(net.tokenizer.eos_token_id)] if net.tokenizer.eos_token_id is not None else [])
    encoded = net.tokenizer(list(texts), add_special_tokens=False)["input_ids"] if texts else []
    rows = [list(ids)[: length - len(left) - len(ends)] if not pack else list(ids) for ids in encoded]
    rows = [[*left, *ids, *ends] for ids in rows if ids]
    if pack:
        flat = [token for row in rows for token in row]
        rows = [flat[i : i + length] for i in range(0, len(flat) - length + 1, length)]
    if not rows:
        raise RefusedInput(
            f"post.distillation.corpus: must fill at least one sequence of {length} tokens, and does not; give more "
            "text, or lower distillation.length"
        )
    ids = np.full((len(rows), length), net.pad, dtype=np.int32)
    mask = np.zeros((len(rows), length), dtype=np.int8)
    for i, row in enumerate(rows):
        ids[i, : len(row)], mask[i, : len(row)] = row, 1
    labels = np.where(mask == 1, ids, IGNORED).astype(np.int32)
    if net.masked:
        special = {*left, *ends, net.pad}
        ids, labels = _masked(ids, mask, special, net, masked_share, seed)
    state = hashlib.sha256()
    for array in (ids, labels, mask):
        state.update(repr(array.shape).encode() + array.tobytes())
    return Corpus(ids, labels, mask, state.hexdigest())


def _masked(
    ids: np.ndarray, mask: np.ndarray, special: set[int], net: Net, share: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Of the chosen places 80 % show the mask, 10 % another token, 10 % the token itself (Devlin et al. 2019)."""
    draw = np.random.default_rng(seed)
    chosen = (draw.random(ids.shape) < share) & (mask == 1) & ~np.isin(ids, sorted(special))
    how = draw.random(ids.shape)
    shown = np.where(chosen & (how < 0.8), net.tokenizer.mask_token_id, ids)
    strange = draw.integers(0, len(net.tokenizer), ids.shape)
    shown = np.where(chosen & (how >= 0.8) & (how < 0.9), strange, shown)
    return shown.astype(np.int32), np.where(chosen, ids, IGNORED).astype(np.int32)
