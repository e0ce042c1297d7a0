"""What could only fail once the prompt has left is refused before anything is spent."""

import pytest
from post_models import LABELS, make_model
from privkt_post.config import POSTConfig
from privkt_post.method import POST

from privkt.config import parse_config
from privkt.contracts import PublicFacts
from privkt.plugins import get_manager
from privkt.privacy import Budget, PrivacyError, RefusedInput
from privkt.privacy.ledger import Ledger
from privkt.runtime.local import LocalRuntime, RunFailed

ASKED = {"mechanism": "exponential", "tokens": 4, "epsilon": 3.0}


def runtime(settings, folder):
    return LocalRuntime(parse_config(settings), folder, get_manager())


def spent(settings):
    """Charges of the client's ledger, if it has one."""
    try:
        return len(Ledger.open(settings["clients"][0]["data"]["name"]).charges())
    except RefusedInput:
        return 0


@pytest.mark.parametrize(
    ("mechanism", "options", "said"),
    [
        ("exponential", {"nonsense": 1}, "unknown parameter 'nonsense'"),
        ("santext_plus", {}, "'ordinary'"),
    ],
)
def test_options_that_a_mechanism_does_not_take_are_refused_when_planned(raw, tmp_path, mechanism, options, said):
    settings = raw(inference=ASKED | {"mechanism": mechanism, "options": options})
    with pytest.raises(PrivacyError, match=said):
        runtime(settings, tmp_path / "run").preflight()


def test_options_with_impossible_values_are_refused_before_the_charge(raw, tmp_path):
    settings = raw(inference=ASKED | {"options": {"calibrate": "wrong"}}, baselines=["private-queries"])
    with pytest.raises(RefusedInput, match="calibrate"):
        runtime(settings, tmp_path / "run").run()
    assert spent(settings) == 0
    settings["post"]["inference"] = ASKED  # corrected, the same run goes on
    assert runtime(settings, tmp_path / "run").run().outcomes["a"][0].scores
    assert spent(settings) == 1


def test_what_the_evaluation_alone_reads_may_be_corrected_after_the_charge(raw, tmp_path, monkeypatch):
    settings = raw(inference=ASKED, baselines=[])
    with monkeypatch.context() as patched:
        patched.setattr("privkt_post.results.Arms.judge", lambda *_: 1 / 0)
        with pytest.raises(RunFailed):
            runtime(settings, tmp_path / "run").run()
    settings["post"] |= {"inference": ASKED | {"epsilon": 2.0}, "baselines": ["private-queries"]}
    result = runtime(settings, tmp_path / "run").run()
    assert len(result.outcomes["a"][0].scores) == 2
    assert spent(settings) == 1
    settings["post"]["transfer"]["steps"] += 1
    with pytest.raises(RefusedInput, match=r"post\.transfer\.steps differs"):
        runtime(settings, tmp_path / "run").run()


def test_a_local_target_of_another_width_is_refused_before_the_charge(raw, tmp_path):
    settings = raw()
    other = make_model("llama", tmp_path / "wide", width=48)
    settings["models"]["local_target"] = {**settings["models"]["target"], "model": str(other)}
    with pytest.raises(RefusedInput, match=r"local_target: must be .* whose embeddings have 32 .* own have 48"):
        runtime(settings, tmp_path / "run").run()
    assert spent(settings) == 0


def test_a_plan_wants_a_corpus_or_a_student_and_weights(raw, tmp_path):
    settings = raw()
    settings["post"]["distillation"] |= {"corpus": None}
    with pytest.raises(RefusedInput, match=r"distillation\.corpus: must name public texts"):
        runtime(settings, tmp_path / "run").preflight()
    settings["models"]["student"] = settings["models"]["target"]
    assert runtime(settings, tmp_path / "run").preflight()
    remote = {"backend": "openai", "model": "m", "base_url": "http://localhost:9/v1"}
    settings["models"]["target"] = remote
    with pytest.raises(RefusedInput, match=r"models\.target: method 'post' works on this model's own weights"):
        runtime(settings, tmp_path / "run").preflight()


def test_a_wrong_path_of_public_texts_is_named(raw, tmp_path):
    settings = raw()
    settings["post"]["distillation"]["corpus"]["path"] = str(tmp_path / "nowhere.jsonl")
    with pytest.raises(RefusedInput, match=r"post, public data '.*nowhere\.jsonl' \(json\): `path` names no file"):
        runtime(settings, tmp_path / "run").preflight()


def test_a_plan_warns_of_what_predict_will_miss_and_of_a_choice_among_one(raw):
    def warnings(roles, **changes):
        config = POSTConfig.model_validate(raw(**changes)["post"])
        facts = PublicFacts("a", 48, tuple(LABELS), roles=frozenset(roles))
        return " ".join(POST(config).plan(facts, Budget(8.0, 1e-3)).warnings)

    calibrated = {"task": {"calibrate": True}, "missing_models": "skip"}
    assert "`privkt predict` cannot use it" in warnings({"target"}, **calibrated)
    assert "cannot use it" not in warnings({"target", "local_target"}, **calibrated)
    assert "one public set to choose from" in warnings({"target", "local_target"}, transfer={"choose": "statistic"})


def test_arms_without_a_large_model_are_named_with_the_reason(raw, tmp_path):
    from privkt.evaluation.report.build import build_report
    from privkt.evaluation.report.render import notices

    settings = raw(task={"calibrate": True}, transfer={"match": "words"}, missing_models="skip")
    del settings["models"]["local_target"]
    result = runtime(settings, tmp_path / "run").run()
    found = notices(build_report(result.path)["clients"]["a"])
    assert "not measured: POST (no large model in this process: the role `local_target`)" in found
    assert len(found) == 4
    card = result.outcomes["a"][0].model.files["README.md"].decode()
    assert "Scores are meant calibrated, and were not" in card


def test_no_votes_are_bought_that_nobody_reads(raw, files):
    public = raw()["post"]["transfer"]["public"]
    for variant, counts in (("both", True), ("inference", False)):
        wanted = {"choose": "statistic", "public": public * 2, "variant": variant}
        config = POSTConfig.model_validate(raw(transfer=wanted, statistic={"epsilon": 2.0})["post"])
        plan = POST(config).plan(PublicFacts("a", 48, tuple(LABELS)), Budget(8.0, 1e-3))
        assert bool(plan.statistics) is counts
        assert plan.trainings[0].guarantee.epsilon == pytest.approx(6.0 if counts else 8.0, abs=1e-3)


def test_the_prompt_tuned_on_the_large_model_has_the_whole_budget(raw, tmp_path, monkeypatch):
    from privkt_post import results

    tuned, original = {}, results.tune_privately

    def tune(net, lesson, verbalizer, start, tuning, privacy, **rest):
        tuned[rest["name"]] = privacy.budget.epsilon
        return original(net, lesson, verbalizer, start, tuning, privacy, **rest)

    monkeypatch.setattr(results, "tune_privately", tune)
    settings = raw(
        transfer={"alpha": "heuristic"}, statistic={"epsilon": 2.0}, baselines=["target-prompt"],
        membership={"models": 4},
    )  # fmt: skip
    runtime(settings, tmp_path / "run").run()
    whole = settings["budget"]["epsilon"]
    assert tuned == {"target-prompt": whole, **{f"half-{k}": whole - 2 for k in range(4)}}


@pytest.mark.parametrize("count", [2, 5])
def test_an_attack_wants_pairs_of_models(raw, count):
    with pytest.raises(ValueError, match=f"even number of at least 4, got {count}"):
        POSTConfig.model_validate(raw(membership={"models": count})["post"])
