"""Token mechanisms by name; what one says of itself must fit together before it draws, and so must what it draws."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from privkt.contracts.tokens import TokenMechanism
from privkt.plugins import get_manager
from privkt.privacy import Kind, Neighbouring, RefusedInput, Unit, accounting

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_UP = 1 + 1e-9  # two roundings of one number are no contradiction


def draws_tokens(name: str) -> bool:
    """Whether the mechanism of that name draws tokens of a vocabulary, as far as can be told before it is made."""
    factory = get_manager().load("mechanism", name)
    if isinstance(factory, type):
        return issubclass(factory, TokenMechanism)
    return str(getattr(get_manager().find("mechanism", name).spec, "unit", "")) == Unit.TOKEN


def need_draws_tokens(where: str, name: str) -> None:
    """Raises RefusedInput, naming `where` the mechanism was asked for, if it draws no tokens."""
    if not draws_tokens(name):
        raise _no_tokens(where, name)


def make_token_mechanism(
    where: str, name: str, vectors: Any, epsilon: float, options: Mapping[str, Any]
) -> TokenMechanism:
    """The mechanism of that name over a table of vectors, made by its plugin.

    Raises: RefusedInput, if it draws no tokens.
    """
    need_draws_tokens(where, name)
    made = get_manager().create("mechanism", name, vectors, epsilon, **options)
    if not isinstance(made, TokenMechanism):
        raise _no_tokens(where, name)
    return made


def _no_tokens(where: str, name: str) -> RefusedInput:
    return RefusedInput(
        f"{where}: mechanism {name!r} draws no tokens; name one that does: `privkt plugins --kind mechanism`"
    )


def check_claims(mechanism: TokenMechanism) -> None:
    """That the certificate, by which documents are charged, covers guarantee and event.

    Guarantee: a mechanism that passes is of kind pure or metric, between any two tokens, under no condition, and says
        nowhere that a draw costs more than its certificate, which is finite. Whether its law keeps that is shown by
        enumeration alone (privkt.testing.tokens).
    Edge cases: kind none claims nothing and passes; whoever charges documents makes them of kind none too. A metric
        epsilon is one of distance, and is not compared.
    Raises: RefusedInput, naming what does not fit.
    """
    claimed, certified = mechanism.guarantee, mechanism.certificate.epsilon
    if not claimed.is_private:
        return
    subject = f"token mechanism {mechanism.name}"
    kinds = (Kind.PURE, Kind.METRIC)
    if claimed.kind not in kinds or claimed.delta != 0:
        raise RefusedInput(
            f"{subject}: its guarantee must be of kind {' or '.join(kinds)} with delta = 0, got {claimed.kind} with "
            f"{claimed.delta:g}; documents of such draws are not accounted for here"
        )
    if claimed.unit is not Unit.TOKEN or claimed.neighbouring is not Neighbouring.LOCAL:
        raise RefusedInput(
            f"{subject}: its guarantee must hold between any two tokens (unit token, relation local), got "
            f"{claimed.unit} and {claimed.neighbouring}; state it so, or as none"
        )
    if claimed.conditional_on:
        raise RefusedInput(
            f"{subject}: its guarantee must hold for any text, got one conditional on "
            f"{', '.join(claimed.conditional_on)}; a document would be charged as if that were so"
        )
    if not math.isfinite(certified):
        raise RefusedInput(
            f"{subject}: a guarantee needs a finite certificate, by which documents are charged, got none; certify the "
            "law, or state none"
        )
    said = claimed.epsilon if claimed.kind is Kind.PURE else 0.0
    needed = max(said, accounting.epsilon(mechanism.event(), 0.0, Neighbouring.LOCAL))
    if not needed <= certified * _UP:
        raise RefusedInput(
            f"{subject}: its certificate must cover its guarantee and its event, epsilon = {needed:g}, got one of "
            f"{certified:g}; documents are charged by the certificate, so correct it"
        )


def drawn_by(mechanism: TokenMechanism, ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """One draw of the mechanism for each id, held to its word that draws are ids of its vocabulary.

    Shapes: any; the result has the same.
    Raises: RefusedInput, for draws of another shape or type or outside [0, size); the message repeats none of them.
    """
    import numpy as np

    drawn = mechanism.sample_ids(ids)
    if not isinstance(drawn, np.ndarray) or drawn.shape != ids.shape or drawn.dtype.kind not in "iu":
        raise RefusedInput(
            f"token mechanism {mechanism.name}: one whole number must be drawn for each token, got another shape or "
            "type; correct its sample_ids"
        )
    if drawn.size and (int(drawn.min()) < 0 or int(drawn.max()) >= mechanism.size):
        raise RefusedInput(
            f"token mechanism {mechanism.name}: draws must be rows in [0, {mechanism.size}), got others; correct its "
            "sample_ids"
        )
    return drawn.astype(np.int64, copy=False)
