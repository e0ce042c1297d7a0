"""Ordinary training: it learns, repeats, resumes, and leaves what it shares alone."""

import dataclasses
import json

import pytest
import torch
from privkt_transformers import checkpoints, loop
from privkt_transformers.examples import encode_examples, row_losses
from safetensors.torch import load

from privkt.contracts import Adapter, BackendError, Example, Model, NoProgress, Recipe, Sampling
from privkt.privacy import RefusedInput

EXAMPLES = [Example("Say:", f" {'ab' * (1 + i % 3)} and so on") for i in range(12)]
LORA = Recipe(epochs=4, batch_size=4, max_length=32, learning_rate=3e-2, lora={"rank": 4})
GREEDY = Sampling(max_new_tokens=6, temperature=0)


def mean_loss(backend, examples=EXAMPLES):
    with torch.no_grad():
        rows = encode_examples(backend.loaded, examples, LORA)
        return row_losses(backend.loaded, rows).mean().item()


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"lora": {"rank": 2, "targets": "all-linear", "layers": 1}},
        {"lora": {"rank": 2, "targets": ("o_proj",), "dropout": 0.1}, "schedule": "cosine", "warmup": 0.1},
        {"lora": None, "trainable": "all", "learning_rate": 1e-2},
        {"lora": None, "trainable": "last:1", "learning_rate": 1e-2, "schedule": "linear", "warmup": 2},
    ],
    ids=["lora", "lora-last-layer", "lora-dropout", "all", "last:1"],
)
def test_training_lowers_the_loss_and_leaves_the_base_alone(llama, tmp_path, changes, progress):
    backend = llama()
    before, answer = mean_loss(backend), backend.generate(["Say:"], GREEDY)
    recipe = dataclasses.replace(LORA, **changes)
    weights = backend.train(EXAMPLES, recipe, folder=tmp_path, progress=progress)
    assert isinstance(weights, Model if recipe.lora is None else Adapter)
    assert mean_loss(backend.with_weights(weights)) < 0.8 * before
    assert mean_loss(backend) == before
    assert backend.generate(["Say:"], GREEDY) == answer
    assert progress.tasks[-1]["done"] == progress.tasks[-1]["total"] == 12


def test_last_layers_are_all_that_moves(llama, tiny_llama, tmp_path):
    recipe = dataclasses.replace(LORA, lora=None, trainable="last:1", epochs=1)
    model = llama().train(EXAMPLES, recipe, folder=tmp_path)
    before = load((tiny_llama / "model.safetensors").read_bytes())
    after = load((model.folder / "model.safetensors").read_bytes())
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved
    assert all(".layers.2." in name or name == "model.norm.weight" for name in moved)


def test_the_models_own_lora_option_is_the_default(llama, tmp_path):
    recipe = dataclasses.replace(LORA, lora=None, epochs=1)
    adapter = llama(lora={"rank": 3}).train(EXAMPLES, recipe, folder=tmp_path)
    assert json.loads(adapter.files["adapter_config.json"])["r"] == 3


def test_the_microbatch_changes_the_weights_by_rounding_alone(llama, tmp_path):
    one, all_ = (
        llama().train(EXAMPLES, dataclasses.replace(LORA, microbatch_size=m, epochs=1), folder=tmp_path / str(m))
        for m in (1, 4)
    )
    left, right = (load(a.files["adapter_model.safetensors"]) for a in (one, all_))
    for name in left:
        torch.testing.assert_close(left[name], right[name], atol=2e-4, rtol=1e-2)


def test_a_seed_repeats_a_training_and_touches_no_other_random_state(llama, tmp_path):
    state = torch.random.get_rng_state()
    first, second = (llama().train(EXAMPLES, LORA, folder=tmp_path / name) for name in "ab")
    other = llama().train(EXAMPLES, dataclasses.replace(LORA, seed=1), folder=tmp_path / "c")
    assert first == second
    assert other != first
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_crash_resumes_to_the_same_weights(llama, tmp_path, monkeypatch):
    recipe = dataclasses.replace(LORA, lora={"rank": 4, "dropout": 0.2})
    whole = llama().train(EXAMPLES, recipe, folder=tmp_path / "whole")
    monkeypatch.setattr(checkpoints, "_SECONDS_BETWEEN", 0)
    note = checkpoints.Checkpoint.note

    def crash(self, step, *rest):
        note(self, step, *rest)
        if step == 7:
            raise KeyboardInterrupt

    monkeypatch.setattr(checkpoints.Checkpoint, "note", crash)
    with pytest.raises(KeyboardInterrupt):
        llama().train(EXAMPLES, recipe, folder=tmp_path / "cut")
    steps = []
    monkeypatch.setattr(checkpoints.Checkpoint, "note", lambda self, step, *rest: steps.append(step))
    assert llama().train(EXAMPLES, recipe, folder=tmp_path / "cut") == whole
    assert steps == [8, 9, 10, 11, 12]


def test_a_finished_training_is_not_repeated_and_another_one_is(llama, tmp_path, monkeypatch):
    first = llama().train(EXAMPLES, LORA, folder=tmp_path)
    monkeypatch.setattr(loop, "run", lambda *a: pytest.fail("trained again"))
    assert llama().train(EXAMPLES, LORA, folder=tmp_path) == first
    monkeypatch.undo()
    assert llama().train(EXAMPLES[:-1], LORA, folder=tmp_path) != first


def test_a_damaged_checkpoint_is_refused(llama, tmp_path):
    tmp_path.joinpath("checkpoint.pt").write_bytes(b"PK\x03\x04 not a checkpoint")
    with pytest.raises(BackendError, match="checkpoint must be readable"):
        llama().train(EXAMPLES, LORA, folder=tmp_path)


def test_weight_zero_is_as_good_as_absent(llama, tmp_path):
    """Two steps over eight rows of which four weigh nothing: whatever those hold, the weights are the same."""
    recipe = dataclasses.replace(LORA, batch_size=8, epochs=2, microbatch_size=1)
    results = []
    for name, other in (("a", " zzzzz"), ("b", " qqqqq")):
        rows = EXAMPLES[:4] + [Example("Say:", other, weight=0.0)] * 4
        results.append(llama().train(rows, recipe, folder=tmp_path / name))
    left, right = (load(a.files["adapter_model.safetensors"]) for a in results)
    for name in left:
        torch.testing.assert_close(left[name], right[name])


def test_weights_scale_the_gradient(llama):
    """mean(w x CE): a batch of one row weighing w has w times its gradient."""
    parameter = torch.nn.Parameter(torch.ones(1))
    seen = []
    work = loop.Work(
        {"p": parameter},
        lambda part: parameter * torch.ones(len(part)),
        weights=[0.25, 1, 1, 1],
        lengths=[1] * 4,
        device=parameter.device,
    )
    recipe = Recipe(epochs=1, batch_size=4, learning_rate=1.0, max_grad_norm=1e9)

    class Nothing:
        def restore(self, *a):
            return 0

        def note(self, *a):
            pass

    hook = parameter.register_post_accumulate_grad_hook(lambda p: seen.append(p.grad.item()))
    loop.run(work, recipe, Nothing(), NoProgress().task("", 1))
    hook.remove()
    assert seen[-1] == pytest.approx((0.25 + 3) / 4)


def test_a_loss_that_is_no_number_stops_the_training(llama, tmp_path):
    recipe = dataclasses.replace(LORA, lora=None, learning_rate=1e30)
    with pytest.raises(BackendError, match=r"lower recipe\.learning_rate"):
        llama().train(EXAMPLES, recipe, folder=tmp_path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"task": "poetry"}, "recipe.task"),
        ({"schedule": "stairs"}, "recipe.schedule"),
        ({"epochs": 0}, "recipe.epochs"),
        ({"batch_size": 0}, "recipe.batch_size"),
        ({"max_length": 1}, "recipe.max_length"),
        ({"microbatch_size": "big"}, "recipe.microbatch_size"),
        ({"lora": {"rang": 3}}, "did you mean 'rank'?"),
        ({"lora": None, "trainable": "head"}, "belongs to the task classification"),
        ({"lora": None, "trainable": "last:9"}, "K from 1 to 3"),
        ({"task": "classification", "labels": ("a",)}, "at least two different labels"),
        ({"task": "classification", "labels": ("a", "b")}, "must be one of the 2 declared ones, got 12 others"),
    ],
)
def test_recipes_that_make_no_sense_are_refused(llama, tmp_path, changes, words):
    with pytest.raises(RefusedInput) as caught:
        llama().train(EXAMPLES, dataclasses.replace(LORA, **changes), folder=tmp_path)
    assert words in str(caught.value)
    assert "abab" not in str(caught.value)


def test_lora_targets_that_do_not_exist_are_named(llama, tmp_path):
    with pytest.raises(BackendError, match=r"lora\.targets"):
        llama().train(EXAMPLES, dataclasses.replace(LORA, lora={"targets": ["w_none"]}), folder=tmp_path)


def test_no_examples_are_refused(llama, tmp_path):
    with pytest.raises(RefusedInput, match="there must be examples"):
        llama().train([], LORA, folder=tmp_path)


def weights_of(adapter):
    return load(adapter.files["adapter_model.safetensors"])


def test_a_plain_training_goes_on_with_an_adapter(llama, tmp_path):
    """It begins at that adapter: a step of no length changes nothing, a longer one does."""
    backend = llama()
    first = backend.train(EXAMPLES, dataclasses.replace(LORA, epochs=1), folder=tmp_path / "a")
    here = backend.with_weights(first)
    still = here.train(EXAMPLES, dataclasses.replace(LORA, epochs=1, learning_rate=1e-30), folder=tmp_path / "b")
    before, after = weights_of(first), weights_of(still)
    assert before.keys() == after.keys()
    assert all(torch.allclose(before[name], after[name], atol=1e-6) for name in before)
    assert any(bool(tensor.any()) for name, tensor in before.items() if "lora_B" in name)
    # Another rank is no reason to begin anew.
    moved = weights_of(here.train(EXAMPLES, dataclasses.replace(LORA, lora={"rank": 2}), folder=tmp_path / "c"))
    assert {name: t.shape for name, t in moved.items()} == {name: t.shape for name, t in before.items()}
    assert not all(torch.allclose(before[name], moved[name]) for name in before)
    prompts, texts = [e.prompt for e in EXAMPLES], [e.completion for e in EXAMPLES]
    likelier = backend.with_weights(here.train(EXAMPLES, LORA, folder=tmp_path / "d")).score(prompts, texts)
    assert sum(s.logprob for s in likelier) > sum(s.logprob for s in here.score(prompts, texts))


def test_a_finished_training_of_one_adapter_is_not_another_ones(llama, tmp_path):
    backend = llama()
    recipe = dataclasses.replace(LORA, epochs=1)
    one = backend.train(EXAMPLES, recipe, folder=tmp_path / "a")
    other = backend.train(EXAMPLES, dataclasses.replace(recipe, seed=5), folder=tmp_path / "b")
    found = [backend.with_weights(a).train(EXAMPLES, recipe, folder=tmp_path / "c") for a in (one, other)]
    assert found[0] != found[1]


def test_private_and_classifying_trainings_want_whole_weights(llama, tmp_path):
    backend = llama()
    adapter = backend.train(EXAMPLES, dataclasses.replace(LORA, epochs=1), folder=tmp_path / "a")
    classifier = dataclasses.replace(LORA, task="classification", labels=("a", "b"))
    with pytest.raises(RefusedInput, match="from whole weights"):
        backend.with_weights(adapter).train([Example("x", "a")], classifier, folder=tmp_path / "b")
    with pytest.raises(RefusedInput, match="from whole weights"):
        backend.with_weights(adapter).train(EXAMPLES, LORA, folder=tmp_path / "c", privacy=object())
