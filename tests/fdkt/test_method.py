import pytest
from privkt_fdkt.arms import Arm
from privkt_fdkt.config import FDKTConfig
from privkt_fdkt.method import FDKT

from privkt.contracts import Adapter, BackendError, Generation, PublicFacts, Side
from privkt.privacy import Budget, PrivateAccessLocked, RefusedInput
from privkt.testing import MemoryState

LABELS = ("negative", "positive")


@pytest.fixture
def config(template_block):
    def make(**changes):
        return FDKTConfig.model_validate(
            {"template": template_block, "samples_per_label": 8, "prompts": 12, "baselines": []} | changes
        )

    return make


def play(method_config, clients, server):
    """The protocol by hand, a new method object for each step."""
    for client in clients:
        assert FDKT(method_config).tune(client) is None
    released = {client.id: FDKT(method_config).synthesize(client) for client in clients}
    answers = FDKT(method_config).augment(server, {name: release.payload for name, release in released.items()})
    outcomes = {client.id: FDKT(method_config).learn(client, answers[client.id]) for client in clients}
    return released, answers, outcomes


def test_the_protocol_is_as_on_the_page():
    assert [(s.name, s.side, s.once) for s in FDKT.steps()] == [
        ("tune", Side.CLIENT, True),
        ("synthesize", Side.CLIENT, False),
        ("augment", Side.SERVER, False),
        ("learn", Side.CLIENT, False),
    ]
    assert all(step.title and not step.title.endswith(".") for step in FDKT.steps())


def test_all_seven_steps(config, make_client, make_server):
    client, server = make_client(), make_server("a")
    released, answers, outcomes = play(config(), [client], server)
    release = released["a"]
    assert release.charge == "charge-1"
    assert release.guarantee.epsilon == 8.0
    assert release.payload.label == ("negative",) * 8 + ("positive",) * 8
    assert not release.payload.columns
    assert set(answers["a"].columns["arm"]) == {"fdkt"}
    assert len(answers["a"]) == 12
    outcome = outcomes["a"]
    assert set(outcome.scores) == {"FDKT"}
    assert outcome.scores["FDKT"]["accuracy"] > 0.9
    assert "not private" in outcome.notes["statement"]
    assert outcome.notes["arms"]["FDKT"]["rows"] == {"private": 40, "foreign": 12}


def test_the_generator_learns_code_then_text_under_the_declared_privacy(config, make_client):
    client = make_client()
    FDKT(config(generator={"batch_size": 20, "lora": {"rank": 4}})).tune(client)
    ((examples, recipe, privacy),) = client.models["generator"].trained
    assert len(examples) == 40
    assert {e.prompt for e in examples} == {f"Product type: Cafes | Review: {label}\n" for label in LABELS}
    assert (recipe.task, recipe.batch_size, recipe.lora, recipe.train_on_prompt) == (
        "causal-lm", 20, {"rank": 4}, False,
    )  # fmt: skip
    assert (privacy.size, privacy.run_id, privacy.data_set_id) == (40, "run", "id")


def test_drawing_reads_no_private_row(config, make_client):
    client = make_client()
    FDKT(config()).tune(client)
    client.data.reader = lambda: pytest.fail("synthesize must not read private rows")
    first = FDKT(config()).synthesize(client)
    assert first.payload == FDKT(config()).synthesize(client).payload


def test_post_processing_cannot_reach_private_rows(config, make_client, monkeypatch):
    client = make_client()
    FDKT(config()).tune(client)
    generator = client.models["generator"]
    monkeypatch.setattr(generator, "generate", lambda *a, **k: client.data.load())
    with pytest.raises(PrivateAccessLocked):
        FDKT(config()).synthesize(client)


def test_a_seed_draws_its_own_texts_from_the_same_generator(config, make_client):
    first = make_client(seed=0)
    FDKT(config()).tune(first)
    second = make_client(seed=1, state=MemoryState(first.state.stored))
    one, other = FDKT(config()).synthesize(first), FDKT(config()).synthesize(second)
    assert one.payload != other.payload
    assert one.charge == other.charge
    assert not second.models["generator"].trained


def test_every_arm_sees_what_its_name_says(config, make_client, make_server, fakes):
    every = [arm.value for arm in Arm]
    client = make_client(models={"local_llm": fakes["llm"]()})
    server = make_server("a", embedder=fakes["embedder"]())
    _, answers, outcomes = play(config(baselines=every, slm={"weights": [1.0]}), [client], server)
    assert set(answers["a"].columns["arm"]) == {"zero-shot", "no-selection", "fdkt"}
    assert list(outcomes["a"].scores) == [arm.heading for arm in Arm]
    rows = {name: arm["rows"] for name, arm in outcomes["a"].notes["arms"].items()}
    assert rows["private data alone"] == {"private": 40, "foreign": 0}
    assert rows["DP synthetic alone"] == {"private": 0, "foreign": 16}
    assert rows["private + DP synthetic"] == {"private": 40, "foreign": 16}
    writing = [p for p in server.models["llm"].prompts if not p.endswith("Keep:")]
    assert len(writing) == 3 * 12
    assert sum("Cafes" in p and p.count("Review:") == 1 for p in writing) == 12
    recipes = [recipe for _, recipe, _ in client.models["slm"].trained]
    assert {r.seed for r in recipes} == {0}
    assert len(recipes) == len(Arm)


def test_open_arms_stay_in_the_clients_process(config, make_client, make_server, fakes):
    local = fakes["llm"]()
    client, server = make_client(models={"local_llm": local}), make_server("a")
    released, _, _ = play(config(baselines=["no-noise", "raw-demonstrations"]), [client], server)
    private = set(client.data.load().text)
    assert any(text in prompt for prompt in local.prompts for text in private)
    assert not any(text in prompt for prompt in server.models["llm"].prompts for text in private)
    assert not any(text in private for text in released["a"].payload.text)
    assert [bool(privacy) for *_, privacy in client.models["generator"].trained] == [True, False]
    kept = [p for p in client.folder.rglob("*") if p.is_file()]
    assert not any(text.encode() in p.read_bytes() for p in kept for text in private if p.suffix == ".jsonl")


def test_raw_demonstrations_are_as_many_as_synthetic_ones_and_cost_what_the_plan_says(
    config, make_client, make_server, fakes
):
    local, asked = fakes["llm"](), config(baselines=["raw-demonstrations"], generator={"batch_size": 20})
    client, server = make_client(models={"local_llm": local}), make_server("a")
    play(asked, [client], server)
    choosing = [p for p in local.prompts if p.endswith("Keep:")]
    private = set(client.data.load().text)
    assert sum(text in prompt for text in private for prompt in choosing) == 2 * 8
    planned = FDKT(asked).plan(PublicFacts("a", 40, LABELS), Budget(8.0, 1e-3))
    assert planned.llm_requests == len(local.prompts) + len(server.models["llm"].prompts)


@pytest.mark.parametrize("arm", ["no-noise", "raw-demonstrations"])
def test_open_arms_without_a_model_in_process_are_refused_before_training(config, make_client, fakes, arm):
    client = make_client()
    with pytest.raises(RefusedInput, match="needs the role 'local_llm'"):
        FDKT(config(baselines=[arm])).tune(client)
    remote = fakes["llm"]()
    remote.remote = True
    for public, raised in ((False, True), (True, False)):
        client = make_client(models={"local_llm": remote}, public=public)
        if raised:
            with pytest.raises(RefusedInput, match="may not see"):
                FDKT(config(baselines=[arm])).tune(client)
            assert not client.models["generator"].trained
        else:
            FDKT(config(baselines=[arm])).tune(client)
            assert client.models["generator"].trained


def test_a_comparison_skips_what_it_has_no_model_for_and_says_so(config, make_client, make_server):
    compared = FDKT(config()).comparison()
    assert set(compared.arms) == set(Arm)
    client = make_client()
    _, _, outcomes = play(compared, [client], make_server("a"))
    assert len(outcomes["a"].scores) == 6
    assert outcomes["a"].notes["not_measured"] == [Arm.NO_NOISE.heading, Arm.RAW.heading]


def test_clients_are_served_apart(config, make_client, make_server):
    clients = [make_client(name="a"), make_client(name="b")]
    server = make_server("a", "b")
    _, answers, _ = play(config(domains={"b": "Hotels"}), clients, server)
    assert sorted(answers) == ["a", "b"]
    writing = [p for p in server.models["llm"].prompts if not p.endswith("Keep:")]
    assert len(writing) == 24
    assert not any("Cafes" in p and "Hotels" in p for p in writing)
    assert "Hotels" in clients[1].models["generator"].prompts[0]


def test_a_resumed_server_asks_only_what_is_missing(config, make_client, make_server):
    client, server = make_client(), make_server("a")
    chosen = config(llm={"portion": 5})
    FDKT(chosen).tune(client)
    received = {"a": FDKT(chosen).synthesize(client).payload}
    llm, answer, left = server.models["llm"], type(server.models["llm"]).generate, [12]

    def dying(prompts, sampling, progress=None):
        left[0] -= len(prompts)
        if left[0] < 0:
            raise BackendError("gone")
        return answer(llm, prompts, sampling)

    llm.generate = dying
    with pytest.raises(BackendError):
        FDKT(chosen).augment(server, received)
    asked = len(llm.prompts)
    left[0] = 1000
    resumed = FDKT(chosen).augment(server, received)
    assert asked >= 9
    assert len(llm.prompts) == 4 + 12
    whole = FDKT(chosen).augment(make_server("a", seed=0, llm=type(llm)()), received)
    assert resumed == whole


def test_a_resumed_client_trains_only_the_arms_that_are_left(config, make_client, make_server, monkeypatch):
    chosen = config(baselines=["private"], slm={"weights": [1.0]})
    client, server = make_client(), make_server("a")
    _, answers, outcomes = play(chosen, [client], server)
    trained = len(client.models["slm"].trained)
    again = FDKT(chosen).learn(client, answers["a"])
    assert len(client.models["slm"].trained) == trained == 2
    assert again.scores == outcomes["a"].scores


def test_the_weight_of_foreign_texts_is_chosen_on_private_rows(config, make_client, make_server):
    _, _, outcomes = play(config(slm={"weights": [1.0, 0.5, 0.1]}), [make_client()], make_server("a"))
    arm = outcomes["a"].notes["arms"]["FDKT"]
    assert set(arm["weights_tried"]) == {"0.1", "0.5", "1"}
    assert f"{arm['weight']:g}" in arm["weights_tried"]


def test_no_valid_text_stops_the_run(config, make_client, monkeypatch):
    client = make_client()
    FDKT(config()).tune(client)
    monkeypatch.setattr(
        client.models["generator"], "generate", lambda prompts, sampling: [Generation("no")] * len(prompts)
    )
    with pytest.raises(BackendError, match="must write at least one valid text"):
        FDKT(config()).synthesize(client)


def test_predictions_come_from_the_final_model(config, make_client, make_server):
    client = make_client()
    _, _, outcomes = play(config(), [client], make_server("a"))
    found = FDKT(config()).predict(
        {"slm": client.models["slm"]}, outcomes["a"], ["stale bland awful", "lovely tasty fresh"], LABELS
    )
    assert [p.label for p in found] == list(LABELS)
    assert all(0.5 < p.probability <= 1 for p in found)
    assert FDKT(config()).predict({"slm": client.models["slm"]}, outcomes["a"], [], LABELS) == []


def test_one_label_is_refused_in_the_plan(config):
    with pytest.raises(RefusedInput, match="at least two labels"):
        FDKT(config()).plan(PublicFacts("a", 1000, ("only",)), Budget(8.0, 1e-5))


def test_without_evaluation_only_fdkt_is_trained(config, make_client, make_server):
    client = make_client()
    client.evaluation = None
    _, _, outcomes = play(config(baselines=["private"]), [client], make_server("a"))
    assert outcomes["a"].scores == {}
    assert outcomes["a"].model is not None
    assert outcomes["a"].notes["not_measured"] == ["private data alone"]


def test_adapters_are_what_the_generator_keeps(config, make_client):
    client = make_client()
    FDKT(config()).tune(client)
    assert isinstance(client.state.load_release("generator").payload, Adapter)
