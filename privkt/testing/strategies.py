"""hypothesis strategies for what privkt handles: texts that break parsers, rows, guarantees, budgets, vocabularies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

from privkt.contracts import Rows, Texts
from privkt.privacy import Budget, Guarantee, Kind, Neighbouring, Unit
from privkt.testing.vocabularies import (
    bad_epsilons,
    bad_id_arrays,
    broken_tables,
    clustered_tables,
    documents,
    epsilons,
    id_arrays,
    tables,
    token_epsilons,
    vector_tables,
)

__all__ = [
    "NASTY_TEXTS",
    "bad_epsilons",
    "bad_id_arrays",
    "broken_tables",
    "budgets",
    "clustered_tables",
    "documents",
    "epsilons",
    "guarantees",
    "id_arrays",
    "label_sets",
    "labelled_rows",
    "tables",
    "text_messages",
    "texts",
    "token_epsilons",
    "vector_tables",
]

NASTY_TEXTS = (
    "",
    " ",
    "\t lead and trail \n",
    'quote " comma, semicolon; tab\t',
    "two\nlines\r\nand\rmore",
    "e\u0301 is not \u00e9",  # combining and composed
    "\u202eright to left\u202c \u200bzero width\ufeff",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467 family",
    "\u2028line separator\u2029paragraph",
    "nul\x00 and bell\x07",
    "{'json': [1, 2]} {\"a\": null}",
    "NaN",
    "null",
    "-0",
    "=1+1",
    "Label: positive\nText:",
    "<|endoftext|></s>[INST]",
    "\uffff\U0010ffff",
    "a" * 5000,
)


def texts(max_size: int = 80) -> st.SearchStrategy[str]:
    """Any text that UTF-8 can hold, the nasty ones often."""
    valid = st.characters(codec="utf-8")
    return st.one_of(
        st.sampled_from(NASTY_TEXTS), st.text(valid, max_size=max_size), st.text("ab \n", max_size=max_size)
    )


def label_sets(max_size: int = 6) -> st.SearchStrategy[tuple[str, ...]]:
    """Two or more different label names, with spaces, dots and digits among them."""
    words = st.text("abcxyz019 ._-é", min_size=1, max_size=8).map(str.strip).filter(bool)
    return st.lists(words, min_size=2, max_size=max_size, unique=True).map(tuple)


@st.composite
def labelled_rows(draw: st.DrawFn, labels: Sequence[str] | None = None, max_size: int = 12) -> Rows:
    """Rows with at least two classes, so that no rule of labelled data refuses them."""
    names = tuple(labels) if labels is not None else draw(label_sets())
    rest = draw(st.lists(st.tuples(texts(), st.sampled_from(names)), max_size=max_size - 2))
    rows = [(draw(texts()), names[0]), (draw(texts()), names[1]), *rest]
    order = draw(st.permutations(rows))
    ids = tuple(str(i) for i in range(1, len(order) + 1))
    return Rows(tuple(text for text, _ in order), tuple(label for _, label in order), ids)


@st.composite
def text_messages(draw: st.DrawFn, max_size: int = 8) -> Texts:
    """`Texts` of any number of rows, labelled or not, with further columns or none."""
    n = draw(st.integers(0, max_size))
    column = st.lists(texts(), min_size=n, max_size=n).map(tuple)
    return Texts(
        draw(column),
        draw(st.none() | column),
        draw(st.dictionaries(st.sampled_from(("rationale", "source", "prompt")), column, max_size=2)),
    )


@st.composite
def guarantees(draw: st.DrawFn) -> Guarantee:
    """Guarantees of every kind whose numbers agree with it."""
    kind = draw(st.sampled_from(list(Kind)))
    common: dict[str, Any] = {
        "unit": draw(st.sampled_from(list(Unit))),
        "neighbouring": draw(st.sampled_from(list(Neighbouring))),
        "conditional_on": draw(st.sampled_from(((), ("length", "N")))),
    }
    if kind is Kind.NONE:
        return Guarantee.none("not proven", unit=common["unit"], neighbouring=common["neighbouring"])
    epsilon = draw(st.floats(1e-6, 100, allow_nan=False))
    if kind is Kind.APPROXIMATE:
        common["delta"] = draw(st.floats(1e-12, 1e-2))
    if kind is Kind.ZCDP:
        common["rho"], common["delta"] = draw(st.floats(1e-9, 50)), draw(st.floats(1e-12, 1e-2))
    if kind is Kind.METRIC:
        common["metric"], common["metric_scale"] = "euclidean", draw(st.floats(1e-3, 1e3))
    return Guarantee(kind, epsilon, **common)


def budgets() -> st.SearchStrategy[Budget]:
    """Budgets without a ledger, for any unit and relation."""
    return st.builds(
        Budget,
        epsilon=st.floats(1e-3, 64),
        delta=st.floats(1e-12, 1e-3),
        unit=st.sampled_from(list(Unit)),
        neighbouring=st.sampled_from(list(Neighbouring)),
    )
