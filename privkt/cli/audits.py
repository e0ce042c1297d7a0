"""`privkt audit`: what mechanisms lose, beside what they claim."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from privkt.cli.errors import FAILED, Interrupted
from privkt.cli.output import err, print_json
from privkt.cli.vocabularies import options_of, value_of, vocabulary_of

if TYPE_CHECKING:
    from privkt.contracts import Mechanism
    from privkt.evaluation.law import Floats
    from privkt.synthesis.vocabulary import Vocabulary

# What a mechanism over single values is made with, where it asks for it and nobody said.
_USUAL: dict[str, Any] = {"labels": ["yes", "no"], "size": 1, "delta": 1e-5}


@dataclass(frozen=True)
class AuditAsked:
    """What the command was told."""

    name: str
    epsilon: float
    options: Sequence[str]
    model: str | None
    vectors: Path | None
    prior: Path | None
    text: str
    values: str | None
    samples: int
    confidence: float
    pairs: int


def audit_mechanism(asked: AuditAsked, *, as_json: bool) -> None:
    """Makes the mechanism, attacks and audits it, prints what was found; exit 1 for a broken promise."""
    import typer

    from privkt.evaluation.confidence import need_confidence
    from privkt.evaluation.mechanism_report import report_on

    def tell(what: str) -> None:
        if not as_json:
            err.print(f"{what} ...", markup=False)

    need_confidence(asked.confidence)
    try:
        mechanism, vocabulary, table = _made(asked, tell)
        priors, texts = _priors(asked, vocabulary)
        report = report_on(
            mechanism,
            nominal=asked.epsilon,
            vectors=None if vocabulary is None else vocabulary.vectors,
            priors=priors,
            pairs=asked.pairs if asked.values is None else [_pair(asked.values)],
            samples=asked.samples,
            confidence=asked.confidence,
            tell=tell,
        )
    except KeyboardInterrupt:
        raise Interrupted("nothing was spent or written") from None
    if as_json:
        words = None if vocabulary is None else {"name": table, "words": vocabulary.size}
        print_json({"vocabulary": words, "prior_texts": texts, **report.to_json()})
    else:
        from privkt.cli.audit_tables import print_mechanism

        print_mechanism(report, table, texts, vocabulary)
    if report.violation:
        raise typer.Exit(FAILED)


def _made(asked: AuditAsked, tell: Any) -> tuple[Mechanism[Any, Any], Vocabulary | None, str]:
    """(mechanism, its vocabulary, what to call that)."""
    from privkt.contracts.tokens import TokenMechanism
    from privkt.plugins import get_manager
    from privkt.privacy import RefusedInput

    manager = get_manager()
    provision = manager.find("mechanism", asked.name)
    factory = manager.load("mechanism", asked.name)
    options = options_of("audit", asked.options)
    draws_words = (
        issubclass(factory, TokenMechanism)
        if isinstance(factory, type)
        else getattr(provision.spec, "unit", "") == "token"
    )
    if not draws_words:
        if asked.model is not None or asked.vectors is not None or asked.prior is not None:
            raise RefusedInput(
                f"audit: mechanism {asked.name!r} draws no words, so --model, --vectors and --prior have no use; leave "
                "them out"
            )
        takes = inspect.signature(factory).parameters
        usual = {
            name: value
            for name, value in _USUAL.items()
            if name in takes and takes[name].default is inspect.Parameter.empty
        }
        if "epsilon" in takes:
            usual["epsilon"] = asked.epsilon
        return manager.create("mechanism", asked.name, **{**usual, **options}), None, ""
    vocabulary, table = _vocabulary(asked)
    tell(f"making {asked.name} over {vocabulary.size} words")
    made = manager.create("mechanism", asked.name, vocabulary.vectors, asked.epsilon, **options)
    return made, vocabulary, table


def _vocabulary(asked: AuditAsked) -> tuple[Vocabulary, str]:
    if asked.model is None and asked.vectors is None:
        from privkt.evaluation.sample_vocabulary import NAME, sample_vocabulary

        return sample_vocabulary(), NAME
    found = vocabulary_of("audit", asked.model, asked.vectors)
    return found, asked.model if asked.vectors is None else asked.vectors.name  # type: ignore[return-value]


def _priors(asked: AuditAsked, vocabulary: Vocabulary | None) -> tuple[dict[str, Floats] | None, int]:
    """(named priors, how many texts one of them was counted in)."""
    if vocabulary is None or asked.prior is None:
        return None, 0
    import numpy as np

    from privkt.evaluation.inversion import counted_prior
    from privkt.runtime.prediction import read_texts

    texts = read_texts(asked.prior, asked.text, subject="audit: --prior")
    counted = counted_prior([vocabulary.encode(text) for text in texts], vocabulary.size)
    return {"uniform": np.full(vocabulary.size, 1 / vocabulary.size), "texts": counted}, len(texts)


def _pair(said: str) -> tuple[Any, Any]:
    from privkt.privacy import RefusedInput

    found = value_of("audit", "--values", said)
    if not isinstance(found, list) or len(found) != 2:
        raise RefusedInput(
            "audit: --values takes a list of two neighbouring inputs, got something else; write '[0, 1]'"
        )
    return found[0], found[1]
