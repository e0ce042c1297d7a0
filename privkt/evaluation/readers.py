"""Public language models that say how likely a word is where other words stand: an attacker's sense of context."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from privkt.evaluation.law import Floats, Ids
from privkt.privacy import RefusedInput
from privkt.synthesis.vocabulary import Vocabulary

if TYPE_CHECKING:
    import torch

_WINDOW = 96  # tokens of context on either side


class Reader(ABC):
    """Scores words in context. `both_sides`: whether what stands behind a word counts too.

    A word of several of the model's tokens is scored by all of them. Padding and unknown words have no tokens: they are
    left out of the context. `prime` puts public texts of the same kind before everything.
    """

    both_sides: bool = False

    def __init__(self, model: Any, tokenizer: Any, vocabulary: Vocabulary) -> None:
        self.model, self.tokenizer, self.vocabulary = model.eval(), tokenizer, vocabulary
        ids_for = getattr(vocabulary, "ids_for", None)
        self._ids: list[int] | None = None if ids_for is None else ids_for(tokenizer)
        self._spaced = ids_for is None  # words of a list have no space of their own
        self._known: dict[int, tuple[int, ...]] = {}
        self._opening: list[int] = []

    @abstractmethod
    def scores(self, before: Sequence[int], after: Sequence[int], candidates: Ids) -> Floats:
        """ln p of each candidate between these rows; nan for those the model has no word for. Shapes: [n]."""

    def prime(self, rows: Sequence[int]) -> None:
        """Reads these rows before every context from now on: texts like those to come, the last of them kept."""
        self._opening = self._context(rows)[-_WINDOW:]

    def pieces(self, row: int) -> tuple[int, ...]:
        """The model's tokens of a row; none for padding and unknown words."""
        if row not in self._known:
            self._known[row] = self._pieces(row)
        return self._known[row]

    def _pieces(self, row: int) -> tuple[int, ...]:
        if row in (self.vocabulary.padding, self.vocabulary.unknown):
            return ()
        if self._ids is not None:
            return (self._ids[row],)
        text = self.vocabulary.decode([row])
        return tuple(self.tokenizer(f" {text}" if self._spaced else text, add_special_tokens=False)["input_ids"])

    def _left(self, before: Sequence[int]) -> list[int]:
        return [*self._opening, *self._context(before)[-_WINDOW:]]

    def _context(self, rows: Sequence[int]) -> list[int]:
        return [piece for row in rows for piece in self.pieces(int(row))]

    def _log_softmax(self, ids: Sequence[Sequence[int]]) -> torch.Tensor:
        """[n, length, tokens], of sequences of one length."""
        import torch

        with torch.no_grad():
            logits = self.model(input_ids=torch.tensor(ids, device=self.model.device)).logits
        return logits.double().log_softmax(-1).cpu()

    def _by_length(self, candidates: Ids) -> list[tuple[int, list[int]]]:
        """(number of pieces, places among the candidates), without those that have none."""
        lengths = [len(self.pieces(int(row))) for row in candidates]
        places = sorted((i for i, length in enumerate(lengths) if length), key=lambda i: lengths[i])
        return [(length, list(run)) for length, run in groupby(places, key=lambda i: lengths[i])]


class CausalReader(Reader):
    """A causal language model: a word by what stands before it, out of the words that the vocabulary has.

    The first token is scored among the first tokens of all words, so that what no word begins with takes nothing. A
    text begins on a line of its own: what a chat model expects after its first token is not a text.
    """

    def __init__(self, model: Any, tokenizer: Any, vocabulary: Vocabulary) -> None:
        super().__init__(model, tokenizer, vocabulary)
        starts = [one for one in (tokenizer.bos_token_id, tokenizer.eos_token_id) if one is not None]
        if not starts:
            raise RefusedInput("reader: a causal model needs a token that begins a text, and its tokenizer has none")
        self._start: list[int] = [starts[0], *tokenizer("\n", add_special_tokens=False)["input_ids"]]
        self._firsts = sorted({one[0] for one in map(self.pieces, range(vocabulary.size)) if one})
        self.prime(())

    def prime(self, rows: Sequence[int]) -> None:
        super().prime(rows)
        *head, self._last = [*self._start, *self._opening]
        # the model's memory of everything before the texts but the last token
        self._read = self._logits([head], None)[1] if head else None

    def scores(self, before: Sequence[int], after: Sequence[int], candidates: Ids) -> Floats:
        found = np.full(len(candidates), np.nan)
        logits, read = self._logits([[self._last, *self._context(before)[-_WINDOW:]]], self._read)
        last = logits[0, -1].double()
        first = last - last[self._firsts].logsumexp(0)
        for length, places in self._by_length(candidates):
            pieces = [self.pieces(int(candidates[i])) for i in places]
            found[places] = [float(first[one[0]]) for one in pieces]
            if length > 1:
                logits, _ = self._logits([one[:-1] for one in pieces], read)
                logs = logits.double().log_softmax(-1)
                for i, one, row in zip(places, pieces, logs, strict=True):
                    found[i] += sum(float(row[k - 1, one[k]]) for k in range(1, length))
        return found

    def _logits(self, ids: Sequence[Sequence[int]], read: Any) -> tuple[torch.Tensor, Any]:
        """[n, length, tokens] of sequences of one length that follow what was `read`, and the memory of all of it."""
        import torch

        memory = copy.deepcopy(read)  # the model adds to it in place
        if memory is not None and len(ids) > 1:
            memory.batch_repeat_interleave(len(ids))
        with torch.no_grad():
            said = self.model(
                input_ids=torch.tensor(ids, device=self.model.device), past_key_values=memory, use_cache=True
            )
        return said.logits.cpu(), said.past_key_values


class MaskedReader(Reader):
    """A masked language model: a word by what stands on both sides; a word of several tokens token by token."""

    both_sides = True

    def __init__(self, model: Any, tokenizer: Any, vocabulary: Vocabulary) -> None:
        super().__init__(model, tokenizer, vocabulary)
        if tokenizer.mask_token_id is None:
            raise RefusedInput("reader: a masked model needs a mask token, and its tokenizer has none; take another")
        self._begin = [] if tokenizer.cls_token_id is None else [tokenizer.cls_token_id]
        self._end = [] if tokenizer.sep_token_id is None else [tokenizer.sep_token_id]

    def scores(self, before: Sequence[int], after: Sequence[int], candidates: Ids) -> Floats:
        found = np.full(len(candidates), np.nan)
        left = [*self._begin, *self._left(before)]
        right = [*self._context(after)[:_WINDOW], *self._end]
        for length, places in self._by_length(candidates):
            masked = [*left, *[self.tokenizer.mask_token_id] * length, *right]
            logs = self._log_softmax([masked])[0, len(left) : len(left) + length]
            for i in places:
                found[i] = sum(float(logs[k, piece]) for k, piece in enumerate(self.pieces(int(candidates[i]))))
        return found


def reader_of(folder: str | Path, vocabulary: Vocabulary) -> Reader:
    """The reader of a public model's folder, masked or causal as its configuration says.

    Raises: RefusedInput, where transformers finds no such model there.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer

    from privkt.synthesis.quiet import quiet_transformers

    try:
        with quiet_transformers():
            kinds = AutoConfig.from_pretrained(str(folder)).architectures or []
            masked = any(kind.endswith("ForMaskedLM") for kind in kinds)
            causal = any(kind.endswith(("ForCausalLM", "LMHeadModel")) for kind in kinds)
            if not masked and not causal:
                raise RefusedInput(
                    f"reader: {folder} must be a masked or a causal language model, got "
                    f"{', '.join(kinds) or 'neither'}; give another"
                )
            tokenizer = AutoTokenizer.from_pretrained(str(folder))
            kind = AutoModelForMaskedLM if masked else AutoModelForCausalLM
            # half precision is slower than this on a CPU, and ranks near words less surely
            model = kind.from_pretrained(str(folder), dtype=torch.float32)
    except (OSError, ValueError, KeyError) as error:
        if isinstance(error, RefusedInput):
            raise
        raise RefusedInput(
            f"reader: {folder} must be a model folder that transformers reads, and it raised {type(error).__name__}; "
            "give a folder with config.json, weights and a tokenizer"
        ) from None
    return (MaskedReader if masked else CausalReader)(model, tokenizer, vocabulary)
