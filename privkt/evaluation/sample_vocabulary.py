"""A small public vocabulary made up in code, for audits and examples that bring no vectors of their own."""

from __future__ import annotations

import hashlib

from privkt.synthesis.word_vocabulary import WordVocabulary

NAME = "made-up table of 256 words in clusters"
_SOUNDS = "bdfghjklmnprstvz"
_DIMENSIONS = 16
_SPREAD = 0.35


def sample_vocabulary() -> WordVocabulary:
    """16 clusters of 16 words in 16 dimensions: words that begin alike are near one another.

    Guarantee: the same table in every run and with every version of numpy: its numbers are bytes of SHAKE-256.
    """
    import numpy as np

    words = [f"{first}a{second}o" for first in _SOUNDS for second in _SOUNDS]
    number = (len(_SOUNDS) + len(words)) * _DIMENSIONS
    drawn = np.frombuffer(hashlib.shake_256(NAME.encode()).digest(4 * number), dtype=np.uint8)
    # the sum of four uniform bytes is normal enough
    normal = (drawn.reshape(number, 4).astype(np.float64) / 255 - 0.5).sum(axis=1) * np.sqrt(3)
    centres, around = np.split(normal.reshape(-1, _DIMENSIONS), [len(_SOUNDS)])
    return WordVocabulary(words, (np.repeat(centres, len(_SOUNDS), axis=0) + _SPREAD * around).astype(np.float32))
