"""The checks that every method passes, and that texts come from the released generator alone."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "fdkt"))  # its stand-ins write texts of a label, too

from fdkt_fakes import LABELS, TEMPLATE, Generator, Small
from fdkt_fakes import rows as made_up
from privkt_dp_synth.config import DPSynthConfig
from privkt_dp_synth.method import DPSynth

from privkt.contracts import Rows
from privkt.testing import MethodSuite
from privkt.testing.sites import client_site


class TestDPSynth(MethodSuite):
    name = "dp_synth"
    labels = LABELS

    def config(self):
        return {"template": TEMPLATE, "samples_per_label": 6, "generator": {"batch_size": 10}}

    def rows(self, variant):
        found = made_up(100 * variant, 20)
        return Rows(tuple(f"{text} {self.canary}" for text in found.text), found.label, found.ids)

    def models(self, site):
        return {} if site == "server" else {"generator": Generator(), "slm": Small()}

    def evaluation(self):
        return made_up(5000, 10)


def test_a_resumed_client_does_not_train_again(tmp_path):
    generator = Generator()
    site = client_site(made_up(0, 20), tmp_path, models={"generator": generator}, labels=LABELS)
    method = DPSynth(DPSynthConfig.model_validate({"template": TEMPLATE, "samples_per_label": 3}))
    method.tune(site)
    method.tune(site)
    assert len(generator.trained) == 1
    first, again = method.synthesize(site), method.synthesize(site)
    assert first == again
    assert first.charge == site.state.load_release("generator").charge


def test_a_repeated_private_record_is_told_and_not_dropped(tmp_path):
    """Overlap is counted for the owner, and the release does not depend on it."""
    plain = client_site(made_up(0, 20), tmp_path / "a", models={"generator": Generator()}, labels=LABELS)
    method = DPSynth(DPSynthConfig.model_validate({"template": TEMPLATE, "samples_per_label": 3}))
    method.tune(plain)
    texts = method.synthesize(plain).payload
    copied = Rows(texts.text, texts.label, tuple(map(str, range(len(texts)))))
    other = client_site(copied, tmp_path / "b", models={"generator": Generator()}, labels=LABELS, name="other")
    method.tune(other)
    assert method.synthesize(other).payload == texts
    notes = [method.evaluate(site, texts).notes["overlap"]["DP synthetic alone"] for site in (plain, other)]
    assert [note["exact_copies"] for note in notes] == [0, 6]
