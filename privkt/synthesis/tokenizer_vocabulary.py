"""The vocabulary of a language model: its tokenizer, and its input embeddings as vectors."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from privkt.privacy import RefusedInput
from privkt.synthesis.vocabulary import UNKNOWN_TEXT, Vocabulary

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class TokenizerVocabulary(Vocabulary):
    """Every ordinary token of a transformers tokenizer has a row; its special tokens have none.

    A special token's literal spelling in a text is read as plain text, and what the tokenizer calls unknown is the
    vocabulary's own unknown row. The model must be public: never one that was tuned on the private data, which nothing
    here can check.
    Raises: RefusedInput, for embeddings with fewer rows than the tokenizer has ids, or a tokenizer of special tokens
        alone.
    """

    def __init__(self, tokenizer: Any, embeddings: NDArray[np.float32]) -> None:
        import numpy as np

        special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
        special |= set(tokenizer.all_special_ids)
        ids = sorted(set(tokenizer.get_vocab().values()) - special)
        if not ids:
            raise RefusedInput("vocabulary: the tokenizer must have ordinary tokens, got none; take the model's own")
        if len(embeddings) <= ids[-1]:
            raise RefusedInput(
                f"vocabulary: embeddings must have a row for each id of the tokenizer, got {len(embeddings)} rows for "
                f"ids up to {ids[-1]}; take tokenizer and embeddings of one model"
            )
        super().__init__(np.asarray(embeddings)[ids], "vocabulary")
        self._tokenizer = tokenizer
        self._ids = ids
        self._row_of = {token: row for row, token in enumerate(ids)}

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> TokenizerVocabulary:
        """From the folder of a model in Hugging Face format.

        Raises: RefusedInput, where transformers finds no tokenizer or no model there.
        """
        import torch
        from transformers import AutoModel, AutoTokenizer

        from privkt.synthesis.quiet import quiet_transformers

        try:
            with quiet_transformers():
                tokenizer = AutoTokenizer.from_pretrained(str(folder))
                model = AutoModel.from_pretrained(str(folder), dtype="auto")
        except (OSError, ValueError, KeyError) as error:
            raise RefusedInput(
                f"vocabulary: {folder} must be a model folder that transformers reads, and it raised "
                f"{type(error).__name__}; give a folder with config.json, weights and a tokenizer"
            ) from None
        with torch.no_grad():
            table = model.get_input_embeddings().weight.detach().to(torch.float32).cpu().numpy()
        return cls(tokenizer, table)

    def ids_for(self, tokenizer: Any) -> list[int] | None:
        """The token of each ordinary row, where `tokenizer` has the very tokens that this vocabulary is made of."""
        return list(self._ids) if tokenizer.get_vocab() == self._tokenizer.get_vocab() else None

    def _rows(self, text: str) -> Sequence[int]:
        found = self._tokenizer(
            text,
            add_special_tokens=False,
            split_special_tokens=True,
            truncation=False,
            padding=False,
            return_attention_mask=False,
            verbose=False,
        )["input_ids"]
        return [self._row_of.get(token, self.unknown) for token in found]

    def _text(self, rows: list[int]) -> str:
        # Runs between unknown tokens are decoded whole, since the pieces of a word or of a character belong together.
        said = []
        for unknown, run in groupby(rows, lambda row: row == self.unknown):
            if unknown:
                said += [UNKNOWN_TEXT for _ in run]
            else:
                tokens = [self._ids[row] for row in run]
                said.append(str(self._tokenizer.decode(tokens, clean_up_tokenization_spaces=False)))
        return " ".join(said) if len(said) > 1 else "".join(said)

    def _mapping(self) -> Iterable[bytes]:
        backend = getattr(self._tokenizer, "backend_tokenizer", None)
        yield type(self._tokenizer).__name__.encode()
        if backend is not None:
            known = json.loads(backend.to_str())
            known.pop("truncation", None)  # states of use, which `encode` overrides
            known.pop("padding", None)
            yield json.dumps(known, sort_keys=True).encode()
        else:
            yield json.dumps(sorted(self._tokenizer.get_vocab().items())).encode()
        yield json.dumps(self._ids).encode()
