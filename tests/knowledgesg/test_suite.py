"""The checks that every method passes."""

import pytest
from ksg_fakes import Base, Professional
from ksg_fakes import rows as made_up

from privkt.testing import MethodSuite


class TestKnowledgeSG(MethodSuite):
    name = "knowledgesg"

    @pytest.fixture(autouse=True)
    def _block(self, block):
        self.block = block

    def config(self):
        return self.block(baselines=["base", "private", "dp-adapter", "self-instruct", "no-private-data"])

    def rows(self, variant):
        return made_up(100 * variant, 16, extra=f" {self.canary}")

    def models(self, site):
        return {"base": Base()} | ({"professional": Professional()} if site == "server" else {})

    def evaluation(self):
        return made_up(5000, 10)
