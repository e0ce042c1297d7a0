"""The checks that every method passes, with tiny real models behind every role."""

import json

import pytest
from post_models import LABELS, sentences

from privkt.contracts import BackendContext, Rows
from privkt.plugins import get_manager
from privkt.testing import MethodSuite


class _Suite(MethodSuite):
    name = "post"
    labels = tuple(LABELS)
    changes = {}  # noqa: RUF012

    @pytest.fixture(autouse=True)
    def _made(self, llama, block):
        self._llama, self._block = llama, block(**self.changes)

    def config(self):
        return json.loads(json.dumps(self._block))

    def rows(self, variant):
        found = sentences(24, seed=100 + variant)
        return Rows(
            tuple(f"{row['text']} {self.canary}" for row in found),
            tuple(row["mood"] for row in found),
            tuple(map(str, range(24))),
        )

    def models(self, site):
        options = {"model": str(self._llama), "device": "cpu", "dtype": "float32"}
        role = "target" if site == "server" else "local_target"
        return {role: get_manager().create("backend", "transformers", options, BackendContext(role))}

    def evaluation(self):
        found = sentences(10, seed=7)
        return Rows(tuple(r["text"] for r in found), tuple(r["mood"] for r in found), tuple(map(str, range(10))))


class TestPOST(_Suite):
    """Alpha by number, one public set."""


class TestPOSTWithCounts(_Suite):
    """The heuristic: noisy counts cross beside the prompt, and pay for themselves."""

    changes = {"transfer": {"alpha": "heuristic"}, "statistic": {"epsilon": 1.0}}  # noqa: RUF012
