"""Small stand-ins for models, so that the protocol can be followed step by step without one."""

import json
import random
import re
from collections import Counter

import numpy as np

from privkt.contracts import (
    Adapter,
    Backend,
    BackendContext,
    Capability,
    Generation,
    Model,
    Rows,
)
from privkt.privacy import Guarantee, Provenance, Release, poisson_gaussian_event

LABELS = ("negative", "positive")
TEMPLATE = {"control": "Product type: {domain} | Review: {label}", "domain": "Cafes"}
WORDS = {
    "negative": ["cold", "stale", "rude", "slow", "dirty", "noisy", "bland", "awful", "late", "broken"],
    "positive": ["warm", "fresh", "kind", "quick", "clean", "quiet", "tasty", "lovely", "early", "perfect"],
}


def sentence(label, number):
    draw = random.Random(f"{label}{number}")
    return f"visit {number} was " + " ".join(draw.choice(WORDS[label]) for _ in range(9)) + " indeed"


class Fake(Backend):
    declared = frozenset({Capability.GENERATE, Capability.EMBED, Capability.TRAIN, Capability.CLASSIFY})

    def __init__(self, **options):
        super().__init__(options, BackendContext())
        self.prompts, self.trained, self.samplings = [], [], []

    @property
    def name(self):
        return "fake"

    def probe(self):
        return self.declared

    def with_weights(self, weights):
        self.weights = weights
        return self

    def embed(self, texts):
        rows = np.zeros((len(texts), 32), dtype=np.float32)
        for i, text in enumerate(texts):
            for word in text.split():
                rows[i, sum(map(ord, word)) % 32] += 1
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


class Generator(Fake):
    """Trains in name only; writes sentences of the label in its prompt."""

    def train(self, examples, recipe, *, folder, privacy=None, progress=None):
        self.trained.append((list(examples), recipe, privacy))
        adapter = Adapter(
            {"adapter_config.json": b"{}", "adapter_model.safetensors": b"noised" if privacy else b"bare"}
        )
        if privacy is None:
            return adapter
        return Release(
            adapter,
            Guarantee("approximate", privacy.budget.epsilon, privacy.budget.delta),
            poisson_gaussian_event(1.0, 0.1, 10),
            Provenance("dp-sgd", "1", privacy.data_set_id),
            charge="charge-1",
        )

    def generate(self, prompts, sampling, progress=None):
        self.prompts += prompts
        self.samplings.append(sampling)
        draw = random.Random(sampling.seed)
        return [Generation(sentence(re.search(r"(\w+)\n$", p)[1], draw.randrange(10**6))) for p in prompts]


class Large(Generator):
    """Keeps what it is told to keep; writes a sentence of the last code's label."""

    keep = " 1, 2"

    def generate(self, prompts, sampling, progress=None):
        self.prompts += prompts
        self.samplings.append(sampling)
        draw = random.Random(f"large{sampling.seed}")
        return [
            Generation(self.keep)
            if p.endswith("Keep:")
            else Generation(sentence(re.search(r"(\w+)\n$", p)[1], draw.randrange(10**6)))
            for p in prompts
        ]


class Small(Fake):
    """Weighted naive Bayes over words."""

    def train(self, examples, recipe, *, folder, privacy=None, progress=None):
        assert privacy is None
        self.trained.append((list(examples), recipe, privacy))
        counts = {label: Counter() for label in recipe.labels}
        for example in examples:
            for word in example.prompt.split():
                counts[example.completion][word] += example.weight
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "counts.json").write_text(json.dumps(counts))
        return Model(folder)

    def classify(self, texts, labels):
        counts = json.loads((self.weights.folder / "counts.json").read_text())
        rows = []
        for text in texts:
            logs = [
                sum(np.log((counts[c].get(w, 0) + 1) / (sum(counts[c].values()) + 50)) for w in text.split())
                for c in labels
            ]
            odds = np.exp(np.array(logs) - max(logs))
            rows.append(odds / odds.sum())
        return np.array(rows)


def rows(start, count):
    labels = tuple(LABELS[i % 2] for i in range(count))
    return Rows(
        tuple(sentence(label, start + i) for i, label in enumerate(labels)), labels, tuple(map(str, range(count)))
    )
