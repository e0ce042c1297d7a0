"""The checks that every method passes."""

import pytest
from fedcot_fakes import LABELS, Large, Small
from fedcot_fakes import rows as made_up

from privkt.privacy import Budget
from privkt.testing import MethodSuite


class TestFedCoT(MethodSuite):
    name = "fedcot"
    labels = LABELS

    @pytest.fixture(autouse=True)
    def _block(self, block):
        self.block = block

    def config(self):
        return self.block()

    def rows(self, variant):
        return made_up(100 * variant, 16, extra=f" {self.canary}")

    def budget(self):
        return Budget(500.0, 1e-5, neighbouring="local")

    def models(self, site):
        return {"llm": Large()} if site == "server" else {"slm": Small()}

    def evaluation(self):
        return made_up(5000, 10)
