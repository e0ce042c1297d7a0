"""A backend that implements nothing names what it lacks."""

import pytest

from privkt.contracts import Backend, BackendContext, Capability, CapabilityMissing, Model, Recipe, Sampling


class Empty(Backend):
    declared = frozenset({Capability.CHAT})

    @property
    def name(self):
        return "empty"

    def probe(self):
        return frozenset()


@pytest.mark.parametrize(
    ("call", "what"),
    [
        (lambda b: b.generate(["a"], Sampling()), "generate"),
        (lambda b: b.score(["a"], ["b"]), "score"),
        (lambda b: b.embed(["a"]), "embed"),
        (lambda b: b.train([], Recipe(), folder=None), "train"),
        (lambda b: b.classify(["a"], ["x"]), "classify"),
        (lambda b: b.with_weights(Model(None)), "adapters"),
    ],
)
def test_what_is_not_there_is_named_with_the_role(call, what):
    backend = Empty({}, BackendContext(role="llm"))
    with pytest.raises(CapabilityMissing, match=rf"^backend 'empty' \(role 'llm'\) cannot {what}: it declares chat; "):
        call(backend)


def test_a_backend_without_weights_here_says_so():
    with pytest.raises(CapabilityMissing, match=r"'empty' \(role 'llm'\): this method works on a model's own weights"):
        Empty({}, BackendContext(role="llm")).weights_folder()
