"""Small stand-ins for models and a made-up world of coloured animals, so that the protocol can be followed by hand."""

import json
import random
import re
from collections import Counter

from privkt.contracts import Backend, BackendContext, Capability, Generation, Model, Rows, Score

LABELS = ("A", "B", "C")
COLOURS = {"fox": "red", "frog": "green", "whale": "blue", "crab": "red", "newt": "green", "tit": "blue"}
PLACES = ("house", "garden", "harbour", "market", "valley", "tower")


def write_vectors(path):
    """A word list with vectors: animals, colours and places lie apart, each near its own kind."""
    draw = random.Random(0)
    kinds = [tuple(COLOURS), ("red", "green", "blue"), PLACES, ("which", "colour", "has", "the", "of", "?")]
    lines = []
    for k, words in enumerate(kinds):
        for word in words:
            vector = [draw.gauss(0, 0.3) + (2.0 if i == k else 0.0) for i in range(8)]
            lines.append(" ".join([word, *(f"{v:.4f}" for v in vector)]))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def rows(start, count, extra=""):
    """Questions about animals; the label is the place of the animal's colour."""
    texts, choices, labels = [], [], []
    for i in range(start, start + count):
        draw = random.Random(i)
        animal, place = draw.choice(list(COLOURS)), draw.choice(PLACES)
        listed = draw.sample(["red", "green", "blue"], 3)
        texts.append(f"which colour has the {animal} of the {place}{extra}")
        choices.append(json.dumps(listed))
        labels.append(LABELS[listed.index(COLOURS[animal])])
    return Rows(tuple(texts), tuple(labels), tuple(map(str, range(count))), {"choices": tuple(choices)})


class Fake(Backend):
    """Notes what it is asked."""

    def __init__(self, **options):
        super().__init__(options, BackendContext())
        self.prompts, self.trained, self.recipes = [], [], []

    @property
    def name(self):
        return "fake"

    def probe(self):
        return self.declared


class Large(Fake):
    """Knows every animal's colour, and says the first choice where there is no animal."""

    declared = frozenset({Capability.GENERATE, Capability.SCORE})

    def generate(self, prompts, sampling, progress=None):
        self.prompts += prompts
        return [Generation(f" {self.reason(p)}\n\nQuestion: more") for p in prompts]

    def reason(self, prompt):
        question = prompt.split("Question: ")[-1]
        animal = next((a for a in COLOURS if a in question), "thing")
        choices = dict(re.findall(r"^([A-C])\. ?(.*)$", question, re.MULTILINE))
        colour = COLOURS.get(animal, "")
        place = next((label for label, choice in choices.items() if choice == colour), "A")
        return f"Everybody knows the {animal}. So the answer is {place}. {choices.get(place, '')}"

    def score(self, prompts, continuations):
        return [Score(0.0 if c.strip() in self.reason(p.removesuffix("So the answer is")) else -5.0, 1)
                for p, c in zip(prompts, continuations, strict=True)]  # fmt: skip


class Small(Fake):
    """Counts which colours it saw with an animal, in answers and in rationales; copies the rationale it is shown."""

    declared = frozenset({Capability.GENERATE, Capability.TRAIN, Capability.SCORE})

    def train(self, examples, recipe, *, folder, privacy=None, progress=None):
        assert privacy is None
        self.trained.append(list(examples))
        self.recipes.append(recipe)
        seen = Counter()
        for example in examples:
            animal = next((a for a in COLOURS if a in example.prompt), "none")
            for colour in ("red", "green", "blue"):
                seen[f"{animal} {colour}"] += example.weight * (colour in example.completion)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "seen.json").write_text(json.dumps(seen))
        return Model(folder)

    def with_weights(self, weights):
        self.seen = json.loads((weights.folder / "seen.json").read_text())
        return self

    def score(self, prompts, continuations):
        found = []
        for prompt, continuation in zip(prompts, continuations, strict=True):
            animal = next((a for a in COLOURS if a in prompt), "none")
            found.append(Score(self.seen.get(f"{animal} {continuation.strip()}", 0.0), 1))
        return found

    def generate(self, prompts, sampling, progress=None):
        self.prompts += prompts
        written = [re.findall(r"^Reason: (.+)$", prompt, re.MULTILINE) for prompt in prompts]
        return [Generation(f" {reasons[-1]}") for reasons in written]
