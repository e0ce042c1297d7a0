"""The checks that every method passes."""

from fdkt_fakes import LABELS, TEMPLATE, Generator, Large, Small
from fdkt_fakes import rows as made_up

from privkt.contracts import Rows
from privkt.testing import MethodSuite


class TestFDKT(MethodSuite):
    name = "fdkt"
    labels = LABELS

    def config(self):
        return {
            "template": TEMPLATE, "samples_per_label": 6, "prompts": 6, "generator": {"batch_size": 10},
            "slm": {"weights": [1.0]},
        }  # fmt: skip

    def rows(self, variant):
        found = made_up(100 * variant, 20)
        return Rows(tuple(f"{text} {self.canary}" for text in found.text), found.label, found.ids)

    def models(self, site):
        return {"llm": Large()} if site == "server" else {"generator": Generator(), "slm": Small()}

    def evaluation(self):
        return made_up(5000, 10)
