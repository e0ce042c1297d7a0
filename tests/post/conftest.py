"""Tiny models over words, and little data whose labels the words give away."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # the makers are imported by name

from post_models import LABELS, make_model, public_texts, sentences, write


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """{family: folder} of tiny random models with six layers and one vocabulary of words."""
    folder = tmp_path_factory.mktemp("post-models")
    return {family: make_model(family, folder / family) for family in ("llama", "gpt2", "bert", "roberta")}


@pytest.fixture(scope="session")
def llama(models):
    return models["llama"]


@pytest.fixture(scope="session")
def store(tmp_path_factory):
    """A folder of published students, shared by all tests."""
    return tmp_path_factory.mktemp("students")


@pytest.fixture
def files(tmp_path):
    """Paths of small files: training and test rows of a client, a public set, a corpus."""
    train, test = sentences(48, seed=1), sentences(40, seed=2)
    return {
        "train": write(tmp_path / "train.jsonl", train),
        "test": write(tmp_path / "test.jsonl", test),
        "public": write(tmp_path / "public.jsonl", public_texts(40, seed=3)),
        "corpus": write(tmp_path / "corpus.jsonl", public_texts(120, seed=4)),
    }


@pytest.fixture
def block(files, store):
    """Makes a `post:` block of a quick run; keyword arguments are merged into its blocks."""

    def make(**changes):
        public = {"source": "json", "path": files["public"], "text": "text", "public": True}
        found = {
            "task": {"cue": " it was", "words": {"negative": ["bad"], "positive": ["good"]}, "max_length": 16},
            "prompt": {"tokens": 4, "text": "say what it was"},
            "distillation": {
                "first": 1, "last": 1, "corpus": {**public, "path": files["corpus"]},
                "length": 16, "batch_size": 8, "top_k": 8, "store": str(store),
            },
            "tuning": {"batch_size": 24, "epochs": 3, "learning_rate": 0.05},
            "transfer": {"public": [public], "samples": 16, "steps": 6, "batch_size": 8, "learning_rate": 0.02},
        }  # fmt: skip
        for name, values in changes.items():
            found[name] = {**found.get(name, {}), **values} if isinstance(values, dict) else values
        return found

    return make


@pytest.fixture
def raw(llama, files, block):
    """Makes the config of a whole run as plain values."""

    def make(clients=("a",), model=llama, **changes):
        model = {"backend": "transformers", "model": str(model), "device": "cpu", "dtype": "float32"}
        columns = {"source": "json", "text": "text", "label": "mood"}

        def client(i, name):
            path = files["train"]
            if i:
                path = write(Path(files["train"]).with_name(f"{name}.jsonl"), sentences(48, seed=10 + i))
            data = {"name": f"moods-{name}", "size": 48, "path": path, "labels": LABELS, **columns}
            return {"name": name, "data": data}

        return {
            "method": "post",
            "budget": {"epsilon": 8, "delta": 1e-3},
            "clients": [client(i, name) for i, name in enumerate(clients)],
            "models": {"target": dict(model), "local_target": dict(model)},
            "evaluation": {"data": {"path": files["test"], **columns}},
            "post": block(**changes),
            "seeds": [0],
        }

    return make
