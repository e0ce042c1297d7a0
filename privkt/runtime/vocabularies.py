"""The public vocabulary that a command or config names: a model's tokens, or a file of words with vectors."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from privkt.privacy import RefusedInput
from privkt.runtime.models import KNOWN_MODELS, find_model

if TYPE_CHECKING:
    from privkt.synthesis.vocabulary import Vocabulary


def read_vocabulary(subject: str, *, model: str | None, vectors: str | Path | None) -> Vocabulary:
    """`model`: a folder, a hub id, or a name that the quickstart knows. `vectors`: a word and its numbers a line.

    Raises: RefusedInput, unless exactly one source is named, or if it cannot be read.
    """
    if (model is None) == (vectors is None):
        raise RefusedInput(
            f"{subject}: exactly one of model and vectors must be given; name a public model, or a file of words with "
            "their vectors"
        )
    if vectors is not None:
        from privkt.synthesis.word_vocabulary import WordVocabulary

        return WordVocabulary.from_file(vectors)
    from privkt.synthesis.tokenizer_vocabulary import TokenizerVocabulary

    assert model is not None
    known = model.lower() in KNOWN_MODELS and not Path(model).is_dir()
    return TokenizerVocabulary.from_pretrained(find_model(model.lower()) if known else model)
