"""What commands over words share: where the vocabulary comes from, and a mechanism's options."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from privkt.synthesis.vocabulary import Vocabulary


def vocabulary_of(command: str, model: str | None, vectors: Path | None) -> Vocabulary:
    """That of a model's folder, or of a file of vectors. Raises: RefusedInput, unless one of them is given."""
    from privkt.privacy import RefusedInput

    if (model is None) == (vectors is None):
        raise RefusedInput(
            f"{command}: the vocabulary comes from --model FOLDER or from --vectors FILE; give one of them"
        )
    if vectors is not None:
        from privkt.synthesis.word_vocabulary import WordVocabulary

        return WordVocabulary.from_file(vectors)
    from privkt.runtime.models import KNOWN_MODELS, find_model
    from privkt.synthesis.tokenizer_vocabulary import TokenizerVocabulary

    assert model is not None
    known = model.lower() in KNOWN_MODELS and not Path(model).is_dir()
    folder = find_model(model.lower()) if known else Path(model)
    return TokenizerVocabulary.from_pretrained(folder)


def options_of(command: str, words: Sequence[str]) -> dict[str, Any]:
    """KEY=VALUE words as keyword arguments, values read as YAML. Raises: RefusedInput, for other words."""
    from privkt.privacy import RefusedInput

    options: dict[str, Any] = {}
    for word in words:
        key, sign, value = word.partition("=")
        if not sign or not key.isidentifier():
            raise RefusedInput(
                f"{command}: --option takes KEY=VALUE, got something else; write --option utility=cosine"
            )
        options[key] = value_of(command, "--option", value)
    return options


def value_of(command: str, option: str, text: str) -> Any:
    """A word of the command line as YAML reads it. Raises: RefusedInput, where it does not."""
    from privkt.privacy import RefusedInput

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise RefusedInput(f"{command}: {option} takes YAML (8, true, [a, b]), got something else; quote it") from None
