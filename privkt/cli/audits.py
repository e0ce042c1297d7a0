"""`privkt audit`: what mechanisms lose, beside what they claim."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from privkt.cli.errors import FAILED, Interrupted
from privkt.cli.option_words import options_of, value_of
from privkt.cli.output import err, print_json, progress

if TYPE_CHECKING:
    from privkt.contracts import Mechanism
    from privkt.evaluation.law import Floats, Ids
    from privkt.evaluation.reconstruction import Reconstruction
    from privkt.synthesis.vocabulary import Vocabulary

# What a mechanism over single values is made with, where it asks for it and nobody said.
_USUAL: dict[str, Any] = {"labels": ["yes", "no"], "size": 1, "delta": 1e-5}

READ_TEXTS, TUNED_TEXTS, READ_TOKENS = 32, 8, 32


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
    reader: str | None = None


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
        rows = _rows(asked, vocabulary)
        report = report_on(
            mechanism,
            nominal=asked.epsilon,
            vectors=None if vocabulary is None else vocabulary.vectors,
            priors=_priors(rows, vocabulary),
            pairs=asked.pairs if asked.values is None else [_pair(asked.values)],
            samples=asked.samples,
            confidence=asked.confidence,
            tell=tell,
        )
        again = None if asked.reader is None else _read_again(asked.reader, mechanism, vocabulary, rows, not as_json)
    except KeyboardInterrupt:
        raise Interrupted("nothing was spent or written") from None
    if as_json:
        words = None if vocabulary is None else {"name": table, "words": vocabulary.size}
        read = None if again is None else again.to_json()
        print_json({"vocabulary": words, "prior_texts": len(rows), **report.to_json(), "read_again": read})
    else:
        from privkt.cli.audit_tables import print_mechanism

        print_mechanism(report, table, len(rows), vocabulary, again)
    if report.violation:
        raise typer.Exit(FAILED)


def _made(asked: AuditAsked, tell: Any) -> tuple[Mechanism[Any, Any], Vocabulary | None, str]:
    """(mechanism, its vocabulary, what to call that)."""
    from privkt.plugins import get_manager
    from privkt.privacy import RefusedInput
    from privkt.synthesis.token_claims import draws_tokens

    manager = get_manager()
    factory = manager.load("mechanism", asked.name)
    options = options_of("audit", asked.options)
    if not draws_tokens(asked.name):
        if any(one is not None for one in (asked.model, asked.vectors, asked.prior, asked.reader)):
            raise RefusedInput(
                f"audit: mechanism {asked.name!r} draws no words, so --model, --vectors, --prior and --reader have no "
                "use; leave them out"
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
    from privkt.runtime.vocabularies import read_vocabulary

    found = read_vocabulary("audit: vocabulary", model=asked.model, vectors=asked.vectors)
    return found, str(asked.model) if asked.vectors is None else asked.vectors.name


def _rows(asked: AuditAsked, vocabulary: Vocabulary | None) -> list[Ids]:
    """The texts of --prior in the words of the vocabulary."""
    from privkt.privacy import RefusedInput

    if asked.prior is None or vocabulary is None:
        if asked.reader is not None:
            raise RefusedInput("audit: --reader reads the texts of --prior FILE again, and none was given; give some")
        return []
    from privkt.runtime.prediction import read_texts

    return [vocabulary.encode(text) for text in read_texts(asked.prior, asked.text, subject="audit: --prior")]


def _priors(rows: Sequence[Ids], vocabulary: Vocabulary | None) -> dict[str, Floats] | None:
    if vocabulary is None or not rows:
        return None
    import numpy as np

    from privkt.evaluation.inversion import counted_prior

    size = vocabulary.size
    return {"uniform": np.full(size, 1 / size), "texts": counted_prior(rows, size)}


def _read_again(folder: str, mechanism: Any, vocabulary: Any, rows: Sequence[Ids], show: bool) -> Reconstruction:
    """Half of the texts tell word frequencies, the other half are drawn and read."""
    import numpy as np

    from privkt.evaluation.inversion import counted_prior
    from privkt.evaluation.readers import reader_of
    from privkt.evaluation.reconstruction import read_again
    from privkt.privacy import RefusedInput

    if not mechanism.has_law:
        raise RefusedInput(f"audit: --reader needs the law of {mechanism.name}, which is not known; leave it out")
    if len(rows) < 2:
        raise RefusedInput("audit: --reader needs two texts at least, one of them for word frequencies; give more")
    half = len(rows) // 2
    counted = counted_prior(rows[:half], vocabulary.size)
    # words that these texts lack may come all the same
    prior = 0.9 * counted + 0.1 * np.full(vocabulary.size, 1 / vocabulary.size)
    reader = reader_of(folder, vocabulary)
    with progress(show=show) as shown:
        attacked = [row[:READ_TOKENS] for row in rows[half : half + READ_TEXTS]]
        known = [row[:READ_TOKENS] for row in rows[:half][:TUNED_TEXTS]]
        return read_again(mechanism, attacked, reader, prior=prior, known=known, progress=shown)


def _pair(said: str) -> tuple[Any, Any]:
    from privkt.privacy import RefusedInput

    found = value_of("audit", "--values", said)
    if not isinstance(found, list) or len(found) != 2:
        raise RefusedInput(
            "audit: --values takes a list of two neighbouring inputs, got something else; write '[0, 1]'"
        )
    return found[0], found[1]
