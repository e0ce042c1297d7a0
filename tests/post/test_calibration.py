"""`task.calibrate`: constants of public texts alone, taken anew behind the prompt that answers, in every arm."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from post_models import LABELS, public_texts, sentences, write
from privkt_post import clients, results, serving
from privkt_post.answering import ShiftedReader, make_reader
from privkt_post.candidates import sampled
from privkt_post.config import POSTConfig
from privkt_post.method import POST
from privkt_post.networks import open_net
from privkt_post.prompts import initial_rows, rows_of
from privkt_post.readers import reader_of
from privkt_post.store import StudentStore
from privkt_post.tasks import Task, make_task
from privkt_post.transferring import transfer
from privkt_post.tuning import tune_plainly, tune_privately

from privkt.config import parse_config
from privkt.contracts import PublicFacts, Rows
from privkt.plugins import get_manager
from privkt.privacy import Budget, RefusedInput
from privkt.runtime.local import LocalRuntime
from privkt.runtime.prediction import predict_texts
from privkt.synthesis.arms import ArmResults

TASK = Task(tuple(LABELS), " it was", (("bad",), ("good",)))
FLOAT32 = {"dtype": "float32", "device": "cpu"}
HEADINGS = {
    "large model, no prompt (ZS)",
    "small model, its prompt (cPT)",
    "large model, the small one's prompt as it is (direct)",
    "large model, shifted by the small one at inference",
    "large model, prompt tuned on it (PT)",
    "POST",
}


@pytest.fixture
def kept(monkeypatch):
    """What a step keeps of every arm while it runs."""
    found = {}
    original = ArmResults.put

    def put(self, arm, result):
        found[arm] = result
        original(self, arm, result)

    monkeypatch.setattr(ArmResults, "put", put)
    return found


@pytest.fixture
def calibrated(raw):
    """Makes a config with calibration; keyword arguments as in `raw`."""

    def make(**changes):
        words = {"match": "words", **changes.pop("transfer", {})}
        return raw(task={"calibrate": True}, transfer=words, **changes)

    return make


def run(settings, folder):
    return LocalRuntime(parse_config(settings), folder, get_manager()).run()


def lines(path):
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def layers(net):
    return net.network.config.num_hidden_layers


def the_texts(files, count=16):
    """What constants are taken over."""
    texts = [row["text"] for row in lines(files["public"])]
    return [texts[i] for i in sampled(Rows(tuple(texts)), count, 0)]


def test_constants_come_from_the_first_public_set_and_as_many_texts_as_it_says(llama, block, files, tmp_path):
    second = {"source": "json", "text": "text", "public": True}
    second["path"] = write(tmp_path / "second.jsonl", public_texts(30, seed=9))
    found = block(task={"calibrate": True}, transfer={"samples": 5})
    found["transfer"]["public"].append(second)
    config = POSTConfig.model_validate(found)
    net = open_net(llama, FLOAT32)
    reader = reader_of(net, make_task(config.task, tuple(LABELS)), config)
    assert list(reader.public) == the_texts(files, 5)
    assert reader_of(net, TASK, POSTConfig.model_validate(block())).public == ()


def test_a_count_of_correct_answers_is_a_sum_over_records(llama):
    """Constants taken over the counted rows would let one record move every answer."""
    net = open_net(llama, FLOAT32)
    made = [row for row in sentences(40, seed=6) if row["mood"] == "negative"] + sentences(4, seed=7)
    rows = Rows(tuple(r["text"] for r in made), tuple(r["mood"] for r in made))
    reader = make_reader(net, TASK, 16, prompt_tokens=4, public=[row["text"] for row in public_texts(12, seed=8)])
    for one in (reader, reader.behind(initial_rows(net, "it was", 4))):
        alone = [clients.correct(one, Rows((text,), (mood,))) for text, mood in zip(rows.text, rows.label, strict=True)]
        assert clients.correct(one, rows) == sum(alone)
        middle = one.class_scores(rows.text).argmax(-1).tolist()
        assert sum(alone) == sum(LABELS[i] == label for i, label in zip(middle, rows.label, strict=True))


def test_every_arm_and_every_tuning_is_calibrated(calibrated, llama, files, tmp_path, monkeypatch, store, kept):
    tuned, transfers, attacked = [], [], []

    def spy(original):
        def watched(net, lesson, verbalizer, *rest, **named):
            found = original(net, lesson, verbalizer, *rest, **named)
            tuned.append((net, verbalizer.offset, found))
            return found

        return watched

    def moving(pair, *rest, **named):
        transfers.append(pair.calibrated)
        return transfer(pair, *rest, **named)

    def reading(net, rows, verbalizer, prompt):
        attacked.append((verbalizer.offset, prompt))
        return original_reading(net, rows, verbalizer, prompt)

    original_reading = results.class_probabilities
    for module in (clients, results):
        monkeypatch.setattr(module, "tune_privately", spy(tune_privately))
        monkeypatch.setattr(module, "tune_plainly", spy(tune_plainly))
    monkeypatch.setattr(serving, "transfer", moving)
    monkeypatch.setattr(results, "class_probabilities", reading)
    arms = ["zero-shot", "student-prompt", "direct", "inference-time", "target-prompt"]
    result = run(calibrated(baselines=arms, membership={"models": 4}), tmp_path / "run")
    outcome = result.outcomes["a"][0]
    assert set(outcome.scores) == HEADINGS

    public = the_texts(files)
    student = outcome.notes["student"]
    nets = [open_net(StudentStore(str(store)).path(student["name"]), FLOAT32), open_net(llama, FLOAT32)]
    small, large = (make_reader(net, TASK, 16, prompt_tokens=4, public=public) for net in nets)
    assert len(tuned) == 6  # the prompt, that on the large model, four halves
    for net, offset, _ in tuned:
        wanted = max((small, large), key=lambda reader: layers(reader.net) == layers(net))
        torch.testing.assert_close(offset, wanted.offset.float(), rtol=1e-4, atol=1e-4)
    assert transfers == [True]
    assert len(attacked) == 4
    for offset, prompt in attacked:
        torch.testing.assert_close(offset, small.behind(prompt).offset.float(), rtol=1e-4, atol=1e-4)

    held = lines(files["test"])
    texts, moods = [row["text"] for row in held], [row["mood"] for row in held]
    released = rows_of(tuned[0][2].payload)
    judges = {
        "large model, no prompt (ZS)": large,
        "small model, its prompt (cPT)": small.behind(released),
        "large model, the small one's prompt as it is (direct)": large.behind(released),
        "large model, shifted by the small one at inference": ShiftedReader(large, small, released, True),
        "POST": large.behind(rows_of(outcome.model)),
    }
    by_arm = dict(zip(judges, ("zero-shot", "student-prompt", "direct", "inference-time", "post"), strict=True))
    for heading, judge in judges.items():
        found = [LABELS[i] for i in judge.class_scores(texts).argmax(-1).tolist()]
        assert outcome.scores[heading]["accuracy"] == pytest.approx(np.mean(np.array(found) == np.array(moods)))
        assert list(kept[by_arm[heading]]["offset"].values()) == pytest.approx(judge.offset.tolist(), abs=1e-4)
    assert outcome.notes["calibration"] == kept["post"]["offset"]
    card = outcome.model.files["README.md"].decode()
    assert all(f"- {label}: {value:.6f}" in card for label, value in outcome.notes["calibration"].items())


@pytest.mark.parametrize("score", ["probability", "logit"])
def test_the_card_is_all_that_it_takes_to_label_texts_as_predict_does(raw, tmp_path, llama, score):
    """Read as somebody would who has the prompt, its card and the large model, and no privkt."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    words = {"negative": ["bad", "cold"], "positive": ["good"]}  # a class of two, whose mean differs from its sum
    settings = raw(task={"calibrate": True, "words": words, "score": score}, transfer={"match": "words"}, baselines=[])
    result = run(settings, tmp_path / "run")
    prompt = result.outcomes["a"][0].model
    card = prompt.files["README.md"].decode()
    assert f"score is the {'mean logit' if score == 'logit' else 'log of the mean probability'} of" in card
    assert "then ' it was'; text and cue are tokenised apart and have at\nmost 16 tokens" in card
    lists = [block.splitlines() for block in card.split("\n\n") if block.startswith("- ")]
    read, less = ({line[2:].split(": ")[0]: line.split(": ")[1] for line in block} for block in lists)
    assert read == {"negative": "bad, cold", "positive": "good"}

    tokenizer = AutoTokenizer.from_pretrained(llama)
    model = AutoModelForCausalLM.from_pretrained(llama, dtype=torch.float32)
    rows, texts, found = rows_of(prompt)[None], ["the meal was cold", "a good film"], []
    for text in texts:
        ids = [i for part in (text, " it was") for i in tokenizer(part, add_special_tokens=False)["input_ids"]]
        embedded = torch.cat([rows, model.get_input_embeddings()(torch.tensor([ids]))], 1)
        logits = model(inputs_embeds=embedded).logits[0, -1].detach().double()
        scores = []
        for label, named in read.items():
            first = [tokenizer(f" {word}", add_special_tokens=False)["input_ids"][0] for word in named.split(", ")]
            mean = logits[first].mean() if score == "logit" else logits.softmax(-1)[first].mean().log()
            scores.append(mean - float(less[label]))
        found.append(torch.stack(scores).softmax(-1))
    for mine, theirs in zip(found, predict_texts(result.path, texts), strict=True):
        assert LABELS[int(mine.argmax())] == theirs.label
        assert float(mine.max()) == pytest.approx(theirs.probability, abs=1e-4)


def test_without_calibration_nothing_of_it_is_kept(raw, tmp_path):
    outcome = run(raw(), tmp_path / "run").outcomes["a"][0]
    assert "calibration" not in outcome.notes
    assert b"constants" not in outcome.model.files["README.md"]


def test_perturbed_texts_are_calibrated_over_perturbed_texts(calibrated, tmp_path, kept):
    asked = {"mechanism": "santext", "tokens": 4, "epsilon": 0.5}  # mostly other words
    settings = calibrated(baselines=["private-queries"], inference=asked)
    run(settings, tmp_path / "run")
    own, perturbed = (np.array(list(kept[arm]["offset"].values())) for arm in ("post", "private-queries"))
    assert np.abs((own - perturbed) - (own - perturbed).mean()).max() > 1e-3


def test_a_run_without_constants_does_not_predict(calibrated, tmp_path, monkeypatch):
    result = run(calibrated(), tmp_path / "run")
    kept = next(p for p in result.path.rglob("*.json") if '"calibration"' in p.read_text())
    kept.write_text(kept.read_text().replace('"calibration"', '"other"'))
    with pytest.raises(RefusedInput, match="kept no calibration"):
        predict_texts(result.path, ["the meal was cold"])


@pytest.mark.parametrize(("match", "warned"), [("words", False), ("auto", True)])
def test_a_plan_warns_of_a_whole_vocabulary(raw, match, warned):
    config = POSTConfig.model_validate(raw(task={"calibrate": True}, transfer={"match": match})["post"])
    found = POST(config).plan(PublicFacts("a", 48, tuple(LABELS)), Budget(8.0, 1e-3)).warnings
    assert any("match: words" in line for line in found) is warned
