"""Backends over tiny random models, and a progress that can be read."""

import pytest
from privkt_transformers.backend import TransformersBackend

from privkt.contracts import BackendContext


@pytest.fixture
def llama(tiny_llama):
    """Makes backends over the tiny Llama in float32; keywords are further options."""

    def make(**options):
        return TransformersBackend({"model": str(tiny_llama), "dtype": "float32", **options}, BackendContext())

    return make


@pytest.fixture
def bert(tiny_bert):
    """Makes backends over the tiny encoder in float32; keywords are further options."""

    def make(**options):
        return TransformersBackend({"model": str(tiny_bert), "dtype": "float32", **options}, BackendContext())

    return make


class Recorded:
    """A progress that remembers its tasks: title, total, unit, what was advanced."""

    def __init__(self):
        self.tasks = []

    def task(self, title, total, unit=""):
        entry = {"title": title, "total": total, "unit": unit, "done": 0}
        self.tasks.append(entry)

        class Task:
            def advance(self, amount=1, note=""):
                entry["done"] += amount

        return Task()


@pytest.fixture
def progress():
    return Recorded()
