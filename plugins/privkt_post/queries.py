"""Privacy at inference: a text is perturbed token by token before whoever runs the large model sees it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from privkt.privacy import Guarantee, RefusedInput, Unit, document_cost, none_event
from privkt.privacy.certificate import DocumentCost
from privkt.synthesis.privatiser import TextPrivatiser
from privkt.synthesis.token_claims import make_token_mechanism
from privkt.synthesis.tokenizer_vocabulary import TokenizerVocabulary
from privkt_post.config import InferenceConfig

WHERE = "post.inference.mechanism"


class PrivateQueries:
    """Perturbs texts over the vocabulary of a public model, which the client has: the small one.

    Guarantee: `of_query` for each text, whatever its length; `of_person` for one who sends up to `config.queries`.
        Every call draws anew: a text that is sent twice is two queries.
    Raises: RefusedInput, without a mechanism in the config.
    """

    def __init__(self, vocabulary_folder: Path, config: InferenceConfig, *, delta: float = 0.0) -> None:
        if config.mechanism is None:
            raise RefusedInput(
                "post.inference.mechanism: must name a token mechanism for texts to be sent perturbed; add it"
            )
        vocabulary = TokenizerVocabulary.from_pretrained(vocabulary_folder)
        made = make_token_mechanism(WHERE, config.mechanism, vocabulary.vectors, config.epsilon, config.options)
        self.config, self.delta = config, delta
        self.privatiser = TextPrivatiser(vocabulary, made, k_max=config.tokens)

    def perturbed(self, texts: Sequence[str]) -> list[str]:
        """The texts as they may be sent."""
        return [noisy.text for noisy in self.privatiser.draw(texts)]

    @property
    def of_query(self) -> Guarantee:
        """What one text costs."""
        return self._cost(1, Unit.DOCUMENT).guarantee

    @property
    def of_person(self) -> Guarantee:
        """What all texts of a person cost together: every token of every one of them."""
        return self._cost(self.config.queries, Unit.USER).guarantee

    def _cost(self, queries: int, unit: Unit) -> DocumentCost:
        mechanism = self.privatiser.mechanisms[0]
        if not mechanism.guarantee.is_private:
            return DocumentCost(Guarantee.none(mechanism.guarantee.proof, unit=unit), none_event())
        tokens = queries * self.config.tokens
        return document_cost([mechanism.certificate] * tokens, tokens, delta=self.delta, unit=unit)
