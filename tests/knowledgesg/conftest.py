"""Sites made of small stand-ins for models, so that the protocol can be followed step by step without one."""

import json
import sys
from pathlib import Path

import pytest

from privkt.contracts import ClientSite, PrivateData, PublicFacts, ServerSite
from privkt.privacy import Budget
from privkt.testing.sites import MemoryState

sys.path.insert(0, str(Path(__file__).parent))  # the stand-ins are imported by name

from ksg_fakes import Base, Professional, rows


@pytest.fixture(scope="session")
def seeds_file(tmp_path_factory):
    """Public questions with answers, as JSON lines."""
    found, path = rows(90_000, 6), tmp_path_factory.mktemp("seeds") / "seeds.jsonl"
    lines = [{"text": q, "response": r} for q, r in zip(found.text, found.columns["response"], strict=True)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture
def block(seeds_file):
    """Makes a `knowledgesg:` block; keyword arguments replace keys, blocks are merged."""

    def make(**changes):
        made = {
            "seeds": {"path": str(seeds_file), "columns": ["response"], "response": "response", "public": True},
            "tuning": {"batch_size": 8, "epochs": 2, "loss": "pair"},
            "writing": {"count": 12, "portion": 5},
            "filters": {"tfidf": None},
            "professional": {"licence": "made up"},
        }
        for key, value in changes.items():
            both = isinstance(value, dict) and isinstance(made.get(key), dict)
            made[key] = {**made[key], **value} if both else value
        return made

    return make


@pytest.fixture
def make_client(tmp_path):
    """Makes a client's site."""

    def make(seed=0, name="a", size=24, state=None, base=None, models=None, private=None, held=None, place=""):
        private = private or rows(0, size)
        return ClientSite(
            models={"base": base or Base(), **(models or {})},
            state=MemoryState() if state is None else state,
            folder=tmp_path / f"{name}-{seed}{place}",
            seed=seed,
            id=name,
            data=PrivateData(name, len(private), None, lambda: private),
            budget=Budget(8.0, 1e-5),
            run_id="run",
            data_set_id="id",
            evaluation=lambda: held or rows(10_000, 6),
        )

    return make


@pytest.fixture
def make_server(tmp_path):
    """Makes the server's site for clients by name."""

    def make(*names, seed=0, base=None, professional=None, state=None, place=""):
        return ServerSite(
            models={"base": base or Base(), "professional": professional or Professional()},
            state=MemoryState() if state is None else state,
            folder=tmp_path / f"server-{seed}{place}",
            seed=seed,
            clients={name: PublicFacts(name, 24, None) for name in names},
        )

    return make
