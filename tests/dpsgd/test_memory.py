"""How much memory a training says it takes, and what it really takes."""

import gc
import logging

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from privkt.dpsgd import RefusedTraining, memory
from privkt.dpsgd.checks import samples_at_once
from privkt.dpsgd.layout import lay_out
from privkt.dpsgd.memory import MemoryPlan, in_words

PLAN = MemoryPlan(weights=1000, rows=400, sums=300, optimizer=200, samples=4, kept=600, activations=800)


class Told:
    """A progress that remembers its titles."""

    def __init__(self):
        self.titles = []

    def task(self, title, total, unit=""):
        self.titles.append(title)
        return self

    def advance(self, amount=1, note=""):
        return None


def test_the_total_counts_kept_and_activations_once():
    assert PLAN.total == 1000 + 400 + 300 + 200 + 800
    assert MemoryPlan(1, 2, 3, 4, samples=1).total == 10


@pytest.mark.parametrize(
    ("free", "advice"),
    [
        (1700, None),
        (1699, "use microbatch_size=3, or model.gradient_checkpointing_enable()"),
        (900, "use microbatch_size=1, or"),
        (799, "use an adapter (LoRA), or"),
        (None, None),
    ],
)
def test_advice_comes_where_memory_is_short_and_fits(free, advice):
    found = PLAN.advice(free)
    assert (found is None) == (advice is None)
    if advice is not None:
        assert advice in found
        assert f"got {in_words(free)} where about 1.66 KiB more" in found


def test_bytes_in_words():
    assert [in_words(x) for x in (0, 999, 1000, 2**20, 1.5 * 2**30)] == [
        "0 B",
        "999 B",
        "0.977 KiB",
        "1 MiB",
        "1.5 GiB",
    ]


def test_it_is_said_once_before_the_charge_and_holds_activations_then(dp, caplog):
    progress = Told()
    training = dp.training(verify=True, progress=progress)
    before = training.memory_plan
    assert (before.kept, before.activations, before.samples) == (None, None, 4)
    with caplog.at_level(logging.INFO, logger="privkt.dpsgd"):
        dp.run(training)
    said = training.memory_plan
    assert said.activations > said.kept >= 0
    assert [title for title in progress.titles if title.startswith("memory")] == [f"memory: {said}"]
    assert [record.message for record in caplog.records if "memory" in record.message] == [f"memory: {said}"]
    assert "weights" in str(said)


def test_a_machine_with_less_is_warned_of(dp, monkeypatch, caplog):
    monkeypatch.setattr(memory, "free_memory", lambda device: 5000)
    with caplog.at_level(logging.WARNING, logger="privkt.dpsgd"):
        dp.run(dp.training(verify=True))
    assert [record.message for record in caplog.records if record.message.startswith("PrivateTraining: memory")]


def test_free_memory_of_this_machine_is_known():
    assert memory.free_memory(torch.device("cpu")) > 2**20
    assert memory.free_memory(torch.device("meta")) is None


def _llama(**changes):
    torch.manual_seed(0)
    sizes = {"hidden_size": 96, "intermediate_size": 256, "num_hidden_layers": 3, "num_attention_heads": 4}
    config = LlamaConfig(vocab_size=1500, **sizes, num_key_value_heads=4, tie_word_embeddings=False)
    return LlamaForCausalLM(config)


def _live_peak(training):
    """The most that torch's allocator had handed out at once from making to the end of two steps, in bytes."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as found:
        made = training()
        batches = iter(made)
        for batch in batches:
            made.step(made.causal_lm_losses(batch))
    events = [event for event in found.profiler.kineto_results.events() if event.name() == "[memory]"]
    most = now = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return most, made


CASES = ["full", "full checkpointed", "lora", "lora checkpointed"]


@pytest.mark.parametrize("name", CASES)
def test_the_plan_is_near_the_measured_peak(dp, name):
    model = _llama()
    if name.startswith("lora"):
        from peft import LoraConfig, get_peft_model

        model = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
    if "checkpointed" in name:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    ids = torch.randint(1, 1500, (40, 48))

    def collate(rows):
        ids = torch.stack(rows)
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids}

    settings = {"dataset": list(ids), "collate_fn": collate, "size": 40, "batch_size": 24, "steps": 2}
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    seen = dp.training(model, **settings, optimizer=optimizer, microbatch_size=8, verify=True)
    for batch in seen:
        seen.step(seen.causal_lm_losses(batch))
        if seen.memory_plan.activations is not None:
            break
    plan = seen.memory_plan
    del seen, batch
    gc.collect()  # or what is freed while the other training runs would count against it
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    peak, _ = _live_peak(lambda: dp.training(model, **settings, optimizer=optimizer, microbatch_size=8, run_id="other"))
    assert peak / 1.6 <= plan.total - plan.weights <= 1.6 * peak


def test_rows_that_no_shape_asks_for_do_not_limit_the_microbatch(dp):
    layout = lay_out(dp.make("llama"))
    rows = sum(p.numel() for name, p in layout.named() if "norm" in name)
    assert samples_at_once("auto", layout, 100, 2**31) == 16
    assert samples_at_once("auto", layout, 100, 4 * rows * 5) == 5
    assert samples_at_once(5, layout, 100, 4 * rows * 5) == 5
    with pytest.raises(RefusedTraining, match=f"6 rows of {rows} trainable values must fit"):
        samples_at_once(6, layout, 100, 4 * rows * 5)


def test_all_rows_limit_it_where_they_are_stored(dp, monkeypatch):
    layout = lay_out(dp.make("llama"))
    assert samples_at_once("auto", layout, 100, 4 * layout.width, records_per_user=40) == 16  # one user in pieces
    with pytest.raises(RefusedTraining, match=f"1 rows of {layout.width} trainable values"):
        samples_at_once("auto", layout, 100, 4 * layout.width - 1, records_per_user=40)
    assert samples_at_once("auto", layout, 100, 2**31, records_per_user=3) == 16
    monkeypatch.setattr("privkt.kernels.runs_on", lambda kernel, device: False)
    assert samples_at_once("auto", layout, 100, 4 * layout.width * 7) == 7
