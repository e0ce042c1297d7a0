"""transformers' Trainer with private training inside: the same weights, the same charge, and a list of refusals."""

import dataclasses
import json

import pytest
import torch
from datasets import Dataset
from transformers import EarlyStoppingCallback, Trainer, TrainerCallback, TrainingArguments

from privkt.dpsgd.errors import RefusedTraining
from privkt.dpsgd.trainer import TrainerPrivacy, private
from privkt.privacy import Budget

PrivateTrainer = private(Trainer)


def collator(rows):
    from torch.nn.utils.rnn import pad_sequence

    ids = pad_sequence([torch.tensor(row["input_ids"]) for row in rows], batch_first=True)
    return {"input_ids": ids, "attention_mask": (ids > 0).long(), "labels": ids.masked_fill(ids == 0, -100)}


def make(dp, folder, *, model=None, budget=None, options=None, kind=PrivateTrainer, kwargs=None, **changes):
    settings = {
        "output_dir": str(folder),
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 3,
        "max_steps": 3,
        "learning_rate": 0.1,
        "optim": "sgd",
        "lr_scheduler_type": "constant",
        "save_strategy": "no",
        "report_to": "none",
        "use_cpu": True,
        "disable_tqdm": True,
        "logging_steps": 1,
    }
    rows = [{"input_ids": ids, "unused": "text of a record"} for ids in dp.records()]
    return kind(
        model=model if model is not None else dp.make("llama-lora"),
        args=TrainingArguments(**{**settings, **changes}),
        train_dataset=Dataset.from_list(rows),
        data_collator=collator,
        privacy=TrainerPrivacy(budget or Budget(8.0, 1e-3), size=60, options={"verify": False, **(options or {})}),
        **(kwargs or {}),
    )


def test_it_trains_what_the_loop_trains(dp, tmp_path):
    keys = dp.keys(5)
    trainer = make(dp, tmp_path, options={"test_keys": keys})
    trainer.train()
    model = dp.make("llama-lora")
    training = dp.training(model, test_keys=keys)
    dp.run(training)
    assert torch.equal(dp.weights(trainer.model), dp.weights(model))
    assert trainer.release.provenance.details == training.finish().provenance.details


def test_noise_of_another_kind_and_its_correction_are_the_loops(dp, tmp_path):
    keys = dp.keys(6)
    settings = {"optim": "adamw_torch_fused", "learning_rate": 0.01, "weight_decay": 0.1}
    trainer = make(dp, tmp_path, options={"test_keys": keys, "noise": "discrete"}, **settings)
    trainer.privacy = dataclasses.replace(trainer.privacy, noise_bias_correction=True)
    trainer.train()
    model = dp.make("llama-lora")
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.01, weight_decay=0.1)
    training = dp.training(
        model, optimizer=optimizer, test_keys=keys, noise="discrete", noise_bias_correction=True, scheduler=None
    )
    dp.run(training)
    assert torch.equal(dp.weights(trainer.model), dp.weights(model))
    assert "exact discrete Gaussian noise" in trainer.release.payload.files["README.md"].decode()


def test_it_charges_the_ledger_and_logs_nothing_of_the_data(dp, ledger, tmp_path):
    trainer = make(
        dp,
        tmp_path,
        budget=Budget(8.0, 1e-3, ledger=ledger),
        eval_strategy="steps",
        eval_steps=2,
        kwargs={"eval_dataset": Dataset.from_list([{"input_ids": [3, 4, 5]}])},
    )
    trainer.train()
    assert trainer.release.charge == ledger.charges()[0].id
    assert ledger.status(trainer.release.charge).taken == 3
    steps = [set(line) for line in trainer.state.log_history if "learning_rate" in line]
    assert steps == [{"learning_rate", "epoch", "step"}] * 3
    assert [line for line in trainer.state.log_history if "eval_loss" in line]
    assert trainer.model.training


def test_its_log_says_how_much_memory_a_step_takes(dp, tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr("privkt.dpsgd.trainer._LOG.info", said.append)
    trainer = make(dp, tmp_path, max_steps=1)
    trainer.train()
    assert len([line for line in said if line.startswith("  memory: about ")]) == 1


def test_a_checkpoint_is_gone_on_from_under_the_same_charge_and_never_by_accident(dp, ledger, tmp_path):
    class Stop(TrainerCallback):
        def on_step_end(self, args, state, control, **_):
            if state.global_step == 2:
                raise KeyboardInterrupt

    budget, settings = Budget(8.0, 1e-3, ledger=ledger), {"save_strategy": "steps", "save_steps": 1}
    with pytest.raises(KeyboardInterrupt):
        make(dp, tmp_path, budget=budget, kwargs={"callbacks": [Stop()]}, **settings).train()
    with pytest.raises(RefusedTraining, match="must hold no earlier private training"):
        make(dp, tmp_path, budget=budget, **settings).train()
    trainer = make(dp, tmp_path, budget=budget, **settings)
    trainer.train(resume_from_checkpoint=True)
    assert trainer.state.global_step == 3
    assert len(ledger.charges()) == 1
    with pytest.raises(RefusedTraining, match="needs a checkpoint"):
        make(dp, tmp_path / "new", budget=budget, **settings).train(resume_from_checkpoint=True)
    assert "text of a record" not in json.dumps(trainer.state.log_history)


@pytest.mark.parametrize(
    ("changes", "kwargs", "said"),
    [
        ({"bf16": True}, {}, "fp16 / bf16"),
        ({"label_smoothing_factor": 0.1}, {}, "label_smoothing_factor"),
        ({"train_sampling_strategy": "group_by_length"}, {}, "train_sampling_strategy"),
        ({"push_to_hub": True}, {}, "push_to_hub"),
        ({"report_to": "tensorboard"}, {}, "report_to"),
        ({"auto_find_batch_size": True}, {}, "auto_find_batch_size"),
        ({"neftune_noise_alpha": 5.0}, {}, "neftune_noise_alpha"),
        ({"load_best_model_at_end": True, "eval_strategy": "steps", "save_strategy": "steps"}, {}, "load_best"),
        ({}, {"callbacks": [EarlyStoppingCallback()]}, "early stopping"),
        ({}, {"compute_loss_func": lambda *_: None}, "compute_loss_func"),
    ],
)
def test_what_breaks_the_guarantee_is_refused_by_name(dp, tmp_path, changes, kwargs, said):
    if "eval_strategy" in changes:
        kwargs = {"eval_dataset": Dataset.from_list([{"input_ids": [3, 4]}])}
    if changes.get("report_to") == "tensorboard":
        pytest.importorskip("tensorboard")
    with pytest.raises(RefusedTraining, match=said):
        make(dp, tmp_path, kwargs=kwargs, **changes)


def test_an_own_compute_loss_is_refused_and_own_losses_are_taken(dp, tmp_path):
    class Own(Trainer):
        def compute_loss(self, model, inputs, **_):
            return model(**inputs).logits.mean()

    with pytest.raises(RefusedTraining, match="compute_loss must be off or changed"):
        make(dp, tmp_path, kind=private(Own))

    class PerSample(PrivateTrainer):
        asked = 0

        def compute_losses(self, model, inputs):
            self.asked += 1
            return super().compute_losses(model, inputs) * 2

    trainer = make(dp, tmp_path, kind=PerSample)
    trainer.train()
    assert trainer.asked >= 3


def test_a_callback_that_stops_is_refused(dp, tmp_path):
    class Stop(TrainerCallback):
        def on_step_end(self, args, state, control, **_):
            control.should_training_stop = True

    trainer = make(dp, tmp_path, kwargs={"callbacks": [Stop()]})
    with pytest.raises(RefusedTraining, match="stopping because of private data has no accounting"):
        trainer.train()
    assert trainer.release is None


def test_trls_sft_trainer_trains_privately_and_refuses_packing(dp, ledger, tmp_path):
    """The example's three changes, on a tiny model: TRL's own templates, masks and checkpointing around our step."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast
    from trl import SFTConfig, SFTTrainer

    words = [f"w{i}" for i in range(55)]
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(["<pad>", "<eos>", "<unk>", *words])}, "<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>")
    rows = [
        {"prompt": " ".join(words[i % 9 : i % 9 + 4]), "completion": " ".join(words[i % 7 : i % 7 + 3])}
        for i in range(60)
    ]

    def trainer(**changes):
        settings = {
            "output_dir": str(tmp_path / "out"),
            "per_device_train_batch_size": 4,
            "gradient_accumulation_steps": 3,
            "max_steps": 2,
            "max_length": 8,
            "bf16": False,
            "report_to": "none",
            "use_cpu": True,
            "disable_tqdm": True,
        }
        return private(SFTTrainer)(
            model=dp.make("llama-lora"),
            args=SFTConfig(**{**settings, **changes}),
            train_dataset=Dataset.from_list(rows),
            processing_class=fast,
            privacy=TrainerPrivacy(Budget(8.0, 1e-3, ledger=ledger), size=60),
        )

    with pytest.raises(RefusedTraining, match="packing must be off"):
        trainer(packing=True)
    trained = trainer()
    before = dp.weights(trained.model)
    trained.train()
    folder = trained.save_release(tmp_path / "released")
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    assert not torch.equal(dp.weights(trained.model), before)
    assert trained.release.charge == ledger.charges()[0].id
