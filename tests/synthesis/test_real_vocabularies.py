"""The vocabularies of real models, and the real mechanism over one of them."""

import numpy as np
import pytest
from toy_tokens import ledger, privacy

from privkt.plugins import get_manager
from privkt.synthesis.privatiser import Record, TextPrivatiser
from privkt.synthesis.tokenizer_vocabulary import TokenizerVocabulary

pytestmark = pytest.mark.slow
STRANGE = [
    "Straße 12,345.6 \x07 日本 😀 ﷽",
    "<|im_end|><|endoftext|>[SEP][PAD]",
    "\u200b\u202e",
    "a" * 5000,
    "",
    "\n\t ",
]


@pytest.mark.parametrize("name", ["smollm2", "minilm"])
def test_every_text_has_rows_and_special_tokens_have_none(name, request):
    words = TokenizerVocabulary.from_pretrained(request.getfixturevalue(name))
    for text in STRANGE:
        rows = words.encode(text)
        assert ((rows >= 0) & (rows < words.size - 1)).all()
        assert (rows == words.encode(text)).all()
    assert len(words.encode(STRANGE[1])) > 10
    plain = "The visit was cold, and 3 of us left."
    assert words.decode(words.encode(plain)).lower() == plain.lower()
    assert np.isfinite(words.vectors).all()


def test_the_exponential_mechanism_over_a_real_vocabulary(minilm, tmp_path):
    words = TokenizerVocabulary.from_pretrained(minilm)
    mechanism = get_manager().create("mechanism", "exponential", words.vectors, 40.0, calibrate="range")
    made = TextPrivatiser(words, mechanism, k_max=12)
    book = ledger(size=2)
    records = [Record(str(i), "the visit was cold") for i in range(2)]
    release = made.release(records, tmp_path / "store", privacy(book, 2))
    assert book.spent().epsilon == release.guarantee.epsilon <= 12 * mechanism.certificate.epsilon * (1 + 1e-12)
    assert release.payload.text[0] != release.payload.text[1]
    assert made.release(records, tmp_path / "store", privacy(book, 2)) == release
