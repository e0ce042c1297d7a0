"""Did a planted name or number come out? A local report after the fact: it never filters what crosses."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence

_JOINERS = re.compile(r"[\W_]+")


def _plain(text: str) -> str:
    return _JOINERS.sub(" ", unicodedata.normalize("NFKC", text).casefold()).strip()


def planted_found(texts: Iterable[str], planted: Sequence[str]) -> list[str]:
    """Those of `planted` that occur in `texts`, whatever their case, spacing or punctuation.

    Finding none proves nothing about privacy (a lower bound of zero); the guarantee is the ledger's.
    """
    heap = [f" {_plain(text)} " for text in texts]
    return [canary for canary in planted if any(f" {_plain(canary)} " in text for text in heap)]
