"""Each fault of the public implementation, held shut."""

import itertools
import json
import math
from pathlib import Path

import pytest
from ksg_fakes import COMPLAINTS, Base, Professional, adapter, rows, value_of
from privkt_knowledgesg.arms import Arm
from privkt_knowledgesg.config import KnowledgeSGConfig
from privkt_knowledgesg.method import KnowledgeSG
from privkt_knowledgesg.pairs import Pair
from privkt_knowledgesg.planning import training_plan
from privkt_knowledgesg.seeds import Origin, Seed, SeedPicker, own_seeds, public_seeds
from privkt_knowledgesg.tuning import need_moved

from privkt.contracts import BackendError, Generation, PublicFacts, Rows, Texts
from privkt.privacy import Budget, RefusedInput, compose, epsilon, poisson_gaussian_event

EVERY = [
    "base", "in-context", "private", "dp-adapter", "self-instruct", "dp-pairs", "dp-instructions", "teacher-on-seeds",
    "no-private-data",
]  # fmt: skip


class Play:
    """The protocol, step by step, for one client; `private` are its rows, `fixed` what its training gives."""

    def __init__(self, block, make_client, make_server, private, fixed=None, place=""):
        self.config = KnowledgeSGConfig.model_validate(block)
        self.base, self.server_base, self.professional = Base(fixed), Base(), Professional()
        self.client = make_client(base=self.base, private=private, place=place)
        self.server = make_server("a", base=self.server_base, professional=self.professional, place=place)
        self.release = self.method.tune(self.client)
        self.method.write(self.server, {"a": self.release.payload})
        self.parcel = self.method.distil(self.server)["a"]
        self.outcome = self.method.evaluate(self.client, self.parcel)

    @property
    def method(self):
        """A new object for every step, as a runtime makes them."""
        return KnowledgeSG(self.config)

    def seen_by_the_server(self):
        """Every prompt, every training example, and every answer that the server saw."""
        trained = [[[e.prompt, e.completion] for e in examples] for examples, *_ in self.server_base.log["trained"]]
        return json.dumps([self.server_base.log["prompts"], self.professional.log["prompts"], trained])


@pytest.fixture
def play(block, make_client, make_server):
    """Plays the protocol with private rows; `fixed` is the number of the released adapter."""

    numbers = itertools.count()

    def make(private, fixed=None, **changes):
        return Play(block(baselines=EVERY, **changes), make_client, make_server, private, fixed, f"-{next(numbers)}")

    return make


def test_1_no_private_example_is_in_any_prompt_of_the_server(play):
    played = play(rows(0, 24, extra=" canary-2946"))
    assert "canary-2946" in json.dumps([[e.prompt, e.completion] for e in played.base.log["trained"][0][0]])
    seen = played.seen_by_the_server()
    assert len(seen) > 1000
    assert "canary-2946" not in seen


def test_1_seeds_are_accepted_by_where_they_come_from_alone():
    private = rows(0, 3).text
    for impostor in (list(private), [Pair(text) for text in private], [Seed(Pair(private[0]), "public-ish")]):
        with pytest.raises(RefusedInput, match="each must say that it comes from") as refused:
            SeedPicker(impostor, [Origin.PUBLIC], 1, 0)
        assert private[0] not in str(refused.value)
    picker = SeedPicker(public_seeds(Rows(("Public?",)), None), [Origin.PUBLIC, Origin.HEADER, Origin.OWN], 2, 0)
    with pytest.raises(RefusedInput, match="each must say"):
        picker.pick([Pair(private[0])])
    picks = [picker.pick(own_seeds([Pair("Own?")])) for _ in range(6)]
    assert picks == [[Pair("Public?")], [], [Pair("Own?")]] * 2


def test_1_what_a_client_shows_its_own_model_stays_in_memory(play, tmp_path):
    """The in-context baseline puts private rows into prompts: neither they nor answers to them are written anywhere."""
    played = play(rows(0, 24, extra=" canary-2946"))
    shown = [prompt for prompt in played.base.log["prompts"] if "canary-2946" in prompt]
    assert shown, "the in-context baseline shows private rows to the client's own model"
    files = [path for path in Path(tmp_path).rglob("*") if path.is_file()]
    assert files
    assert not any(b"canary-2946" in path.read_bytes() for path in files)


def test_2_a_hundred_rounds_of_ten_steps_cost_a_thousand_steps():
    """sigma 0.29, N = 500, batch 5, delta 1/500: a nominal 8 is really 54."""
    # Renyi divergences of whole orders alone would say 2751.
    rounds = compose([poisson_gaussian_event(0.29, 5 / 500, 10)] * 100)
    assert 53.9 <= epsilon(rounds, 1 / 500) <= 55
    assert epsilon(rounds, 1 / 500) == pytest.approx(epsilon(poisson_gaussian_event(0.29, 0.01, 1000), 1 / 500))
    assert epsilon(poisson_gaussian_event(0.50, 0.01, 1000), 1 / 500) == pytest.approx(8.04, abs=0.02)


def test_2_the_plan_and_the_training_count_every_step(block, make_client):
    config = KnowledgeSGConfig.model_validate(block(tuning={"batch_size": 5, "epochs": 10, "lora": {"rank": 2}}))
    budget = Budget(8.0, 1 / 500, reproduce=True)
    with pytest.warns(UserWarning, match="not below 1/N"):
        planned = training_plan(config, PublicFacts("a", 500, None), budget)
    assert planned.steps == 1000
    assert planned.noise_multiplier == pytest.approx(0.50, abs=0.01)
    assert epsilon(planned.event(), 1 / 500) == pytest.approx(8, abs=0.05)
    base = Base()
    KnowledgeSG(config).tune(make_client(base=base, size=500))
    _, recipe, privacy, _ = base.log["trained"][0]
    assert recipe.epochs * privacy.size / recipe.batch_size == planned.steps


def test_4_filters_do_not_know_private_text(play, make_client, make_server, block):
    """An instruction that equals a private record is kept like any other: dropping it would tell that it is one."""
    first = play(rows(0, 24), fixed=7.0)
    written = first.parcel.items["texts"].text
    again = play(Rows(written[:12], None, (), {"response": ("yes",) * 12}), fixed=7.0)
    assert again.parcel.items["texts"] == first.parcel.items["texts"]
    assert again.outcome.notes["overlap"]["instructions"]["exact_copies"] > 0
    assert first.outcome.notes["overlap"]["instructions"]["exact_copies"] == 0


def test_a_changed_private_record_changes_the_servers_inputs_only_through_the_adapter(play):
    mine, others = rows(0, 24), rows(500, 24)
    one, two = play(mine, fixed=7.0), play(others, fixed=7.0)
    assert one.seen_by_the_server() == two.seen_by_the_server()
    third = play(others)
    assert value_of(third.release.payload) != 7.0
    assert third.seen_by_the_server() != one.seen_by_the_server()


def test_an_adapter_that_did_not_move_is_refused(make_client, block):
    need_moved(adapter(0.1))
    with pytest.raises(BackendError, match="must move the adapter"):
        need_moved(adapter(0.0))
    config = KnowledgeSGConfig.model_validate(block())
    with pytest.raises(BackendError, match="must move the adapter"):
        KnowledgeSG(config).tune(make_client(base=Base(fixed=0.0)))


def test_a_resumed_client_sends_the_same_adapter_and_pays_nothing(make_client, block):
    method = KnowledgeSG(KnowledgeSGConfig.model_validate(block()))
    client = make_client()
    first = method.tune(client)
    assert method.tune(client) == first
    assert len(client.models["base"].log["trained"]) == 1


def test_the_baselines_learn_from_what_they_say(play):
    played = play(rows(0, 24))
    texts = played.parcel.items["texts"]
    by_arm = {}
    for question, response, arm in zip(texts.text, texts.columns["response"], texts.columns["arm"], strict=True):
        by_arm.setdefault(arm, []).append((question, response))
    teachers = {"knowledgesg", "no-private-data", "teacher-on-seeds"}
    for arm, pairs in by_arm.items():
        assert all(response.startswith("See a doctor") == (arm in teachers) for _, response in pairs), arm
        assert all(any(word in question for word in COMPLAINTS) for question, _ in pairs)
    mine = value_of(played.release.payload)
    assert all(f"says {mine}" in response for _, response in by_arm["dp-pairs"] + by_arm["dp-instructions"])
    assert all("says 0" in response for _, response in by_arm["self-instruct"])
    assert set(by_arm) == set(played.parcel.items) - {"texts"}
    assert len(played.outcome.scores) == len(EVERY) + 1
    assert isinstance(texts, Texts)


@pytest.mark.parametrize(("start", "found"), [("base", None), ("adapter", 7.0)])
def test_the_student_starts_where_it_is_told_to(play, start, found):
    played = play(rows(0, 24), fixed=7.0, student={"start": start})
    begun = [None if w is None else value_of(w) for *_, w in played.server_base.log["trained"]]
    # in the order of arms: without private data, then what the adapter wrote, then without, then KnowledgeSG itself
    assert begun == [None, found, found, None, None, found]


def test_every_arm_is_trained_equally_long_and_the_private_one_as_long_as_the_adapter(play):
    played = play(rows(0, 24), student={"epochs": 2.5, "batch_size": 4}, tuning={"epochs": 5})
    trained = [(len(examples), recipe) for examples, recipe, *_ in played.server_base.log["trained"]]
    assert len({size for size, _ in trained}) > 1
    for size, recipe in trained:
        # as backends count examples and steps: of the twelve instructions that `writing.count` asks for
        assert (math.ceil(recipe.epochs * size), math.ceil(recipe.epochs * size / 4)) == (30, 8)
    (private,) = [recipe for _, recipe, privacy, _ in played.base.log["trained"] if privacy is None]
    assert (private.epochs, private.batch_size) == (5, 4)


def test_arms_without_private_data_do_not_depend_on_the_adapter_that_arrived(block, make_client, make_server):
    """Neither in their pairs nor in how long they are taught: what the adapter wrote may be all there is of it."""

    class Terse(Base):
        def generate(self, prompts, sampling, progress=None):
            found = super().generate(prompts, sampling, progress)
            one = Generation("I have had a cough in my chest for days, what should I do?\n\n### Response:\nRest.")
            return found if self.weights is None else [one] * len(found)

    free = ("self-instruct", "teacher-on-seeds", "no-private-data")
    method = KnowledgeSG(KnowledgeSGConfig.model_validate(block(baselines=list(free))))
    seen = []
    for base, place in ((Base(), "-many"), (Terse(), "-one")):
        server = make_server("a", base=base, place=place)
        method.write(server, {"a": adapter(1.0)})
        parcel = method.distil(server)["a"]
        texts = parcel.items["texts"]
        counts = [texts.columns["arm"].count(arm) for arm in (*free, "knowledgesg")]
        seen.append((counts, [recipe for _, recipe, *_ in base.log["trained"]], [parcel.items[arm] for arm in free]))
    (many, recipes, adapters), (one, others, same) = seen
    assert many[:3] == one[:3]
    assert many[3] > one[3]
    assert recipes[:3] == others[:3]
    assert [found.files for found in adapters] == [found.files for found in same]


def test_copies_are_looked_for_in_all_that_the_adapter_wrote_and_came_back(play):
    mine = value_of(play(rows(0, 24)).release.payload)
    said = f"says {mine}"  # by the adapter's responses, which only the arms without a teacher have
    found = play(rows(0, 24), canaries=(said,)).outcome.notes["overlap"]
    assert (found["instructions"]["canaries_repeated"], found["responses"]["canaries_repeated"]) == (0, 1)
    taught = play(rows(0, 24)).parcel.items["texts"]
    released = {q for q, arm in zip(taught.text, taught.columns["arm"], strict=True) if Arm(arm).is_released}
    assert found["instructions"]["texts"] == len(released) > sum(arm == "knowledgesg" for arm in taught.columns["arm"])


def test_together_no_pair_is_learnt_twice(block, make_server):
    config = KnowledgeSGConfig.model_validate(block(together=True, baselines=["no-private-data", "teacher-on-seeds"]))
    base = Base()
    server = make_server("a", "b", base=base)
    KnowledgeSG(config).write(server, {"a": adapter(1.0), "b": adapter(2.0)})
    KnowledgeSG(config).distil(server)
    trained = [examples for examples, *_ in base.log["trained"]][:3]
    assert all(len(set(examples)) == len(examples) for examples in trained)
    # Six public seeds for both clients; of each more instructions than one of them writes, with its adapter or without.
    seeds, without, ours = map(len, trained)
    assert seeds <= 6
    assert min(without, ours) > 12


def test_several_clients_learn_apart_or_together(block, make_client, make_server):
    for together in (False, True):
        config = KnowledgeSGConfig.model_validate(block(together=together, baselines=[]))
        server = make_server("a", "b", base=Base())
        sent = {"a": adapter(1.0), "b": adapter(2.0)}
        KnowledgeSG(config).write(server, sent)
        parcels = KnowledgeSG(config).distil(server)
        found = {value_of(parcels[name].items["knowledgesg"]) for name in "ab"}
        assert len(found) == (1 if together else 2)
        assert parcels["a"].items["texts"] != parcels["b"].items["texts"]


def test_an_adapter_of_all_clients_says_what_it_owes_somebody_with_rows_at_two(play):
    assert "sum of theirs" in play(rows(0, 24), together=True).outcome.notes["statement"]
    assert "sum of theirs" not in play(rows(0, 24)).outcome.notes["statement"]
