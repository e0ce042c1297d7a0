"""Private texts into noisy ones, token by token, with the cost of a whole document on the ledger."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from privkt.contracts import NoProgress, Privacy, Progress, Texts
from privkt.contracts.dataset import public_digest
from privkt.contracts.tokens import TokenMechanism
from privkt.privacy import (
    BudgetExceeded,
    Certificate,
    ChargeConflict,
    DocumentCost,
    Guarantee,
    Neighbouring,
    Provenance,
    RefusedInput,
    Release,
    Unit,
    assert_private_access,
    document_cost,
    none_event,
)
from privkt.privacy.guarantee import rounded_up
from privkt.synthesis.noisy_texts import NoisyText, NoisyTexts, payload_digest
from privkt.synthesis.token_claims import check_claims, drawn_by
from privkt.synthesis.vocabulary import Vocabulary

if TYPE_CHECKING:
    import os

    import numpy as np
    from numpy.typing import NDArray

#: The name of a charge's one payload, whatever file its texts are written to.
PAYLOAD = "texts"
LENGTH = "the length of each text in tokens is public"
#: What one text can stand for.
UNITS = (Unit.RECORD, Unit.DOCUMENT)
_RESTATED = (Neighbouring.LOCAL, Neighbouring.ZERO_OUT, Neighbouring.REPLACE_ONE)


@dataclass(frozen=True)
class Record:
    """A private text under the id that its draw is remembered by."""

    id: str
    text: str


class TextPrivatiser:
    """Encodes a text, cuts it to `k_max` tokens, pads it, draws every token anew, and decodes what came.

    `mechanism`: one for all positions, or one for each, fixed before any text is seen (a budget by position).
    `padded`: fill up to `k_max` with the padding row, which is an input of the mechanism like any other; without it
    the guarantee is conditional on the lengths, at the same price. `keep`: words that stay verbatim, for comparison:
    nothing at all is promised then.
    Guarantee: between any two texts, the sum of the positions' certificates (privkt.privacy.document_cost). Equal texts
        of two records draw independently; the same record, by id, keeps its first draw.
    Raises: RefusedInput, for a mechanism over another table than the vocabulary's, or whose claims its certificate does
        not cover (`check_claims`), or not one mechanism a position; in a draw, for what is no row of the vocabulary.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        mechanism: TokenMechanism | Sequence[TokenMechanism],
        *,
        k_max: int,
        padded: bool = True,
        keep: Collection[str] = (),
    ) -> None:
        if isinstance(k_max, bool) or not isinstance(k_max, int) or k_max < 1:
            raise RefusedInput(f"privatiser: k_max must be a whole number >= 1, got {k_max!r}; it is public")
        self.vocabulary, self.k_max, self.padded = vocabulary, k_max, padded
        self.by_position = not isinstance(mechanism, TokenMechanism)
        self.mechanisms = tuple([mechanism] * k_max if isinstance(mechanism, TokenMechanism) else mechanism)
        if len(self.mechanisms) != k_max:
            raise RefusedInput(
                f"privatiser: a budget by position has one mechanism a position, got {len(self.mechanisms)} for k_max "
                f"= {k_max}; give one for each, or one for all"
            )
        for one in self.mechanisms:
            if one.size != vocabulary.size:
                raise RefusedInput(
                    f"privatiser: {one.name} must be made over the vocabulary's own table of {vocabulary.size} rows, "
                    f"got one of {one.size}; make it from vocabulary.vectors"
                )
        for one in dict.fromkeys(self.mechanisms):
            check_claims(one)
        self.keep = tuple(sorted(set(keep)))
        self._kept = self._kept_rows()

    @property
    def certificates(self) -> tuple[Certificate, ...]:
        """What a draw costs at each position."""
        return tuple(one.certificate for one in self.mechanisms)

    def cost(
        self, delta: float = 0.0, *, unit: Unit = Unit.RECORD, neighbouring: Neighbouring = Neighbouring.LOCAL
    ) -> DocumentCost:
        """What one document costs, whatever its length; the price of every record.

        `neighbouring`: a promise for any two texts is also one for emptying or replacing a record, at the same epsilon;
        not for adding one, since the number of records stays visible.
        Raises: RefusedInput, for add-remove, and for units of which a document's price is not the price: a token, and a
            user, who may have written many.
        """
        unit, neighbouring = Unit(unit), Neighbouring(neighbouring)
        if unit not in UNITS:
            raise RefusedInput(
                f"privatiser: what is priced is one text, got unit {unit}; state it for {' or '.join(UNITS)}: a user "
                "pays for each text of his own"
            )
        if neighbouring not in _RESTATED:
            raise RefusedInput(
                f"privatiser: a guarantee between any two texts does not hide how many there are, got {neighbouring}; "
                f"state it for {', '.join(_RESTATED)}"
            )
        unproven = next((one for one in self.mechanisms if not one.guarantee.is_private), None)
        if unproven is not None or self.keep:
            reason = "words are kept verbatim" if unproven is None else f"{unproven.name}: {unproven.guarantee.proof}"
            return DocumentCost(Guarantee.none(reason, unit=unit, neighbouring=neighbouring), none_event())
        found = document_cost(
            self.certificates,
            self.k_max,
            delta=delta,
            unit=unit,
            conditional_on=() if self.padded else (LENGTH,),
            proof=self.mechanisms[0].guarantee.proof,
        )
        guarantee = found.guarantee
        if neighbouring is not Neighbouring.LOCAL and guarantee.is_private:
            guarantee = replace(guarantee, neighbouring=neighbouring, replace_one_epsilon=guarantee.epsilon)
        return DocumentCost(guarantee, found.event)

    def inputs(self, text: str) -> NDArray[np.int64]:
        """The rows that the mechanism is given for a text. Shapes: [k_max], or [min(n, k_max)] without padding."""
        import numpy as np

        rows = self.vocabulary.encode(text)[: self.k_max]
        if not self.padded:
            return rows
        return np.concatenate([rows, np.full(self.k_max - len(rows), self.vocabulary.padding, dtype=np.int64)])

    def draw(self, texts: Sequence[str]) -> list[NoisyText]:
        """Fresh draws for texts, with no accounting and no memory: the caller has charged them and stores them."""
        import numpy as np

        if not texts:
            return []
        rows = [self.inputs(text) for text in texts]
        flat = np.concatenate(rows)
        positions = np.concatenate([np.arange(len(row)) for row in rows])
        drawn = np.empty_like(flat)
        for mechanism in dict.fromkeys(self.mechanisms):
            mine = np.asarray([one is mechanism for one in self.mechanisms])[positions]
            drawn[mine] = drawn_by(mechanism, flat[mine])
        if self._kept:
            kept = np.isin(flat, self._kept)
            drawn[kept] = flat[kept]
        ends = np.cumsum([len(row) for row in rows])[:-1]
        return [NoisyText(tuple(ids.tolist()), self.vocabulary.decode(ids)) for ids in np.split(drawn, ends)]

    def release(
        self,
        records: Sequence[Record],
        store: str | os.PathLike[str],
        privacy: Privacy,
        *,
        batch_size: int = 256,
        progress: Progress | None = None,
        force: bool = False,
    ) -> Release[Texts]:
        """The noisy texts of all records in their order: those in `store` as they lie there, the others drawn.

        The whole data set is charged once for this store, before the first draw; `privacy.run_id` is not used, since a
        store has an id of its own, which a resumed call finds again.
        Guarantee: `cost` for each record. Every draw is on the disk before this returns; a process killed at any
            moment has paid, and the next call draws only what is not stored. One charge pays for one set of draws,
            whose hash is on the ledger before they are returned: a copy of the store gives no others.
        Edge cases: kind none is charged (as an infinite spend) only with `force`; without it the release carries no
            charge, and no gate lets it out.
        Raises: RefusedInput, for ids that repeat; DataChanged, for a record whose text is another than was drawn for;
            BudgetExceeded, if a document costs more than `privacy.budget`, or the ledger has less left;
            ChargeConflict, for a store that holds other draws than its charge was finished with, or lacks some.
        """
        assert_private_access("records to be privatised")
        if len({record.id for record in records}) < len(records):
            raise RefusedInput(
                "privatiser: a record's draw is remembered by its id, and an id repeats; give each its own"
            )
        budget = privacy.budget
        cost = self.cost(budget.delta, unit=budget.unit, neighbouring=budget.neighbouring)
        guarantee = cost.guarantee
        if guarantee.is_private and guarantee.epsilon > budget.epsilon:
            raise BudgetExceeded(
                f"privatiser: a document must cost no more than the budget of epsilon = {rounded_up(budget.epsilon)}, "
                f"got {rounded_up(guarantee.epsilon)} for {self.k_max} tokens; ask for less a token, or fewer tokens",
                left=(budget.epsilon, budget.delta),
                asked=(guarantee.epsilon, guarantee.delta),
            )
        if budget.ledger is not None and guarantee.is_private and not NoisyTexts.exists(store):
            # So that a refused charge leaves no store behind.
            budget.ledger.check_data(privacy.fingerprint, data_changed=privacy.data_changed)
            if (refusal := budget.ledger.would_refuse(cost.event, guarantee)) is not None:
                raise refusal
        kept = NoisyTexts(store, self._settings(privacy))
        charge = None
        with kept.locked():
            if budget.ledger is not None and (guarantee.is_private or force):
                charge = budget.ledger.charge(
                    cost.event,
                    guarantee,
                    run_id=kept.run_id,
                    purpose=privacy.purpose,
                    fingerprint=privacy.fingerprint,
                    declared={**self.parameters(), "size": privacy.size},
                    data_changed=privacy.data_changed,
                    resume=True,
                    force=not guarantee.is_private,
                ).id
            kept.bind([(record.id, record.text) for record in records])
            found = [kept.get(record.id, record.text) for record in records]
            missing = [i for i, one in enumerate(found) if one is None]
            if budget.ledger is not None and charge is not None:
                finished = budget.ledger.status(charge).stored.get(PAYLOAD)
                if finished is not None and finished != _digest(records, found):
                    raise ChargeConflict(
                        f"data set {budget.ledger.name}: one charge pays for one set of draws, and this store holds "
                        "others than its charge was finished with, or lacks some; use the store that was finished, or "
                        "draw into a new one, which is a new spend"
                    )
            task = (progress or NoProgress()).task("privatising", len(records), "texts")
            if done := len(records) - len(missing):
                task.advance(done, "kept")
            for start in range(0, len(missing), batch_size):
                batch = missing[start : start + batch_size]
                drawn = self.draw([records[i].text for i in batch])
                kept.append([(records[i].id, records[i].text) for i in batch], drawn)
                for i, one in zip(batch, drawn, strict=True):
                    found[i] = one
                task.advance(len(batch))
            if budget.ledger is not None and charge is not None:
                # Refused, too, if a copy of this store was finished meanwhile.
                budget.ledger.stored(charge, _digest(records, found), name=PAYLOAD)
        first = self.mechanisms[0]
        return Release(
            Texts(tuple(one.text for one in found if one is not None)),
            guarantee,
            cost.event,
            Provenance(first.name, first.version, privacy.data_set_id, self.parameters()),
            charge,
        )

    def stored(self, records: Sequence[Record], store: str | os.PathLike[str], privacy: Privacy) -> list[NoisyText]:
        """What `release` drew for records, rows and text; for reports that stay where the private texts are.

        Raises: RefusedInput, for a record without a draw.
        """
        kept = NoisyTexts(store, self._settings(privacy))
        with kept.locked():
            found = [kept.get(record.id, record.text) for record in records]
        drawn = [one for one in found if one is not None]
        if len(drawn) < len(found):
            raise RefusedInput("privatiser: a record has no draw yet; finish the release first")
        return drawn

    def _settings(self, privacy: Privacy) -> dict[str, Any]:
        about = {"size": privacy.size, "delta": privacy.budget.delta, "data_set": privacy.data_set_id}
        return {**self.parameters(), **about}

    def parameters(self) -> Mapping[str, Any]:
        """Public settings as JSON values, for cards, and for telling whether a store goes on."""
        each = [{"mechanism": one.name, "version": one.version, **one.parameters()} for one in self.mechanisms]
        return {
            "vocabulary": self.vocabulary.identity,
            "k_max": self.k_max,
            "padded": self.padded,
            "kept_words": public_digest(*self.keep) if self.keep else None,
            "mechanism": each if self.by_position else each[0],
        }

    def _kept_rows(self) -> tuple[int, ...]:
        rows = set()
        for word in self.keep:
            found = {int(row) for spelling in (word, f" {word}") for row in self.vocabulary.encode(spelling)}
            rows |= found - {self.vocabulary.unknown, self.vocabulary.padding}
        return tuple(sorted(rows))


def _digest(records: Sequence[Record], drawn: Sequence[NoisyText | None]) -> str:
    """That of the draws that are there."""
    pairs = zip(records, drawn, strict=True)
    return payload_digest((record.id, one.text) for record, one in pairs if one is not None)
