"""Tasks whose cue and label words are known, and the words of any other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from privkt.privacy import RefusedInput
from privkt_post.config import TaskConfig

_BAD = ("terrible", "negative", "bad", "poor", "awful")
_GOOD = ("positive", "good", "great", "awesome", "brilliant", "amazing")
_NEUTRAL = ("moderate", "neutral", "balanced")
_NO_YES: Mapping[str, tuple[str, ...]] = {"no": ("no",), "yes": ("yes",)}
_TOPIC, _MOOD = " It's about", ", it was"
_SENTIMENT: Mapping[str, tuple[str, ...]] = {"negative": _BAD, "positive": _GOOD}
_TWEET: Mapping[str, tuple[str, ...]] = {"negative": _BAD, "neutral": _NEUTRAL, "positive": _GOOD}
_PRESS: Mapping[str, tuple[str, ...]] = {
    "business": ("business",), "sports": ("sports",), "politics": ("politics",), "health": ("health",),
    "entertainment": ("entertainment",), "technology": ("technology", "science"),
}  # fmt: skip
_NEWS: Mapping[str, tuple[str, ...]] = {
    "world": ("world",), "sports": ("sports",), "business": ("business",), "technology": ("science", "technology"),
}  # fmt: skip
_QUESTIONS: Mapping[str, tuple[str, ...]] = {
    "abbreviation": ("abbreviation",), "entity": ("entity",), "description": ("description",), "human": ("human",),
    "location": ("location",), "number": ("number",),
}  # fmt: skip
KNOWN: Mapping[str, tuple[str, Mapping[str, tuple[str, ...]]]] = {
    "sst2": (_MOOD, _SENTIMENT),
    "imdb": (_MOOD, _SENTIMENT),
    "mpqa": (_MOOD, _SENTIMENT),
    "tweet": (_MOOD, _TWEET),
    "arisetv": (_TOPIC, _PRESS),
    "agnews": (_TOPIC, _NEWS),
    "trec": (_TOPIC, _QUESTIONS),
    "boolq": (" Is that so? The answer is", _NO_YES),
    "disaster": (" Is it about a real disaster? The answer is", _NO_YES),
}
# Other names under which data sets have these labels.
_ALIASES = {
    "sci/tech": "technology", "science and technology": "technology", "abbr": "abbreviation", "enty": "entity",
    "desc": "description", "hum": "human", "loc": "location", "num": "number", "numeric": "number",
    "sport": "sports", "false": "no", "true": "yes",
}  # fmt: skip


@dataclass(frozen=True)
class Task:
    """A classification by filling in: the cue, and each label's words in the order of the labels."""

    labels: tuple[str, ...]
    cue: str
    words: tuple[tuple[str, ...], ...]
    score: str = "probability"


def make_task(config: TaskConfig, labels: Sequence[str] | None) -> Task:
    """The task of a config with a client's declared labels.

    Edge cases: `words` and `cue` win over those of a known task.
    Raises: RefusedInput, for an unknown name, a cue that nobody gave, or a label without words.
    """
    if config.name != "custom" and config.name not in KNOWN:
        raise RefusedInput(
            f"post.task.name: must be custom or one of {', '.join(KNOWN)}, got {config.name!r}; give cue and words of "
            "your own"
        )
    known_cue, known_words = KNOWN.get(config.name, (None, {}))
    cue = config.cue if config.cue is not None else known_cue
    if not cue:
        raise RefusedInput("post.task.cue: must be the words after which the answer is read, got none; add it")
    if config.kind == "generation":
        return Task((), cue, ())
    if not labels or len(labels) < 2:
        raise RefusedInput("data.labels must list at least two labels, since there is nothing to tell apart otherwise")
    if strange := sorted(set(config.words) - set(labels)):
        raise RefusedInput(
            f"post.task.words: may name the declared labels, {', '.join(labels)}, got {strange[0]!r}; correct it"
        )
    found = []
    for label in labels:
        plain = label.strip().lower()
        words = config.words.get(label) or known_words.get(_ALIASES.get(plain, plain))
        if not words:
            raise RefusedInput(
                f"post.task.words: every label must have words, and {label!r} has none in the task {config.name}; add "
                f"`words: {{{label}: [...]}}`"
            )
        found.append(tuple(words))
    every = [word.strip() for words in found for word in words]
    if twice := [word for word in every if every.count(word) > 1]:
        raise RefusedInput(
            f"post.task.words: every word must stand for one label, once, and {twice[0]!r} stands there again; choose "
            "another"
        )
    return Task(tuple(labels), cue, tuple(found), config.score)
