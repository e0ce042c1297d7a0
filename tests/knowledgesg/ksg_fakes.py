"""Small stand-ins for models, so that the protocol can be followed step by step without one."""

import hashlib
import json
import random
import re

import numpy as np
from safetensors.numpy import save

from privkt.contracts import Adapter, Backend, BackendContext, Capability, Generation, Rows, Score
from privkt.privacy import Guarantee, Provenance, Release, poisson_gaussian_event

LORA = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 2, "lora_alpha": 4, "target_modules": ["q"]}
COMPLAINTS = ["headache", "cough", "rash", "fever", "nausea", "dizziness", "cramp", "swelling", "itching", "fatigue"]
PLACES = ["arm", "leg", "chest", "back", "neck", "knee", "foot", "hand", "shoulder", "hip"]


def adapter(value):
    """A LoRA adapter whose weights say who made it."""
    tensors = {"q.lora_A.weight": np.ones((2, 3)), "q.lora_B.weight": np.full((3, 2), float(value))}
    weights = save({name: tensor.astype(np.float32) for name, tensor in tensors.items()})
    return Adapter({"adapter_config.json": json.dumps(LORA).encode(), "adapter_model.safetensors": weights})


def value_of(weights):
    """What `adapter` was given."""
    from safetensors.numpy import load

    return float(load(weights.files["adapter_model.safetensors"])["q.lora_B.weight"][0, 0])


def question(draw):
    return (
        f"I have had {draw.choice(COMPLAINTS)} in my {draw.choice(PLACES)} for {draw.randrange(2, 400)} days with "
        f"{draw.choice(COMPLAINTS)} near the {draw.choice(PLACES)}, what should I do?"
    )


def rows(start, count, extra=""):
    """Made-up patients' questions with answers."""
    draws = [random.Random(f"row {start + i}") for i in range(count)]
    return Rows(
        tuple(f"{question(draw)}{extra}" for draw in draws),
        None,
        tuple(map(str, range(count))),
        {"response": tuple(f"Rest and drink, patient {start + i}{extra}." for i in range(count))},
    )


class Base(Backend):
    """Writes questions; trains in name only: an adapter's number depends on its examples, or is `fixed`."""

    declared = frozenset({Capability.GENERATE, Capability.SCORE, Capability.TRAIN, Capability.ADAPTERS})

    def __init__(self, fixed=None, weights=None, log=None):
        super().__init__({}, BackendContext())
        self.fixed, self.weights = fixed, weights
        self.log = {"prompts": [], "trained": []} if log is None else log

    @property
    def name(self):
        return "fake-base"

    def probe(self):
        return self.declared

    def with_weights(self, weights):
        return type(self)(self.fixed, weights, self.log)

    def train(self, examples, recipe, *, folder, privacy=None, progress=None):
        self.log["trained"].append((list(examples), recipe, privacy, self.weights))
        text = json.dumps([[e.prompt, e.completion] for e in examples])
        found = int.from_bytes(hashlib.sha256(text.encode()).digest()[:2], "big") + 1
        if privacy is None:
            return adapter(found)
        return Release(
            adapter(found if self.fixed is None else self.fixed),
            Guarantee("approximate", privacy.budget.epsilon, privacy.budget.delta),
            poisson_gaussian_event(1.0, 0.1, 10),
            Provenance("dp-sgd", "1", privacy.data_set_id),
            charge="charge-1",
        )

    def generate(self, prompts, sampling, progress=None):
        self.log["prompts"] += prompts
        mine = 0 if self.weights is None else value_of(self.weights)
        draws = [random.Random(f"{mine} {sampling.seed} {i}") for i in range(len(prompts))]
        said = f"Take a rest, says {mine}."
        return [
            Generation(said if prompt.endswith("Response:\n") else f"{question(draw)}\n\n### Response:\n{said}")
            for prompt, draw in zip(prompts, draws, strict=True)
        ]

    def score(self, prompts, continuations):
        return [Score(-float(len(text)), max(1, len(text.split()))) for text in continuations]


class Professional(Base):
    """Answers what it is asked; says yes to every judgement but those about a knee; refuses about a hip."""

    def generate(self, prompts, sampling, progress=None):
        self.log["prompts"] += prompts
        return [Generation(self.said(prompt if isinstance(prompt, str) else prompt[-1].content)) for prompt in prompts]

    def said(self, prompt):
        if "Answer yes or no." in prompt:
            return " No" if "knee" in prompt else " Yes."
        if "hip" in prompt:
            return "I'm sorry, but I cannot help with that."
        return f"See a doctor about the {re.search('|'.join(PLACES), prompt)[0]}."
