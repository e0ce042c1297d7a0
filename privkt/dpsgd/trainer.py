"""Private training inside transformers' `Trainer` and its subclasses (TRL's `SFTTrainer`): three changed lines.

    from privkt.dpsgd.trainer import TrainerPrivacy, private
    trainer = private(Trainer)(model=model, args=args, train_dataset=data, privacy=TrainerPrivacy(budget, size=2000))
    trainer.train()
    trainer.release

The model, arguments, data set, collator, optimizer, schedule, callbacks and evaluation are the trainer's. Sampling,
clipping, noise, accounting and checkpoints are `PrivateTraining`'s, and what would break their guarantee is refused.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datasets import Dataset
from torch import Tensor
from transformers import EarlyStoppingCallback, Trainer
from transformers.trainer_utils import TrainOutput
from transformers.utils import logging

from privkt.contracts.messages import Model
from privkt.dpsgd.errors import RefusedTraining, TrainingError
from privkt.dpsgd.losses import causal_lm_losses_from_hidden, classification_losses
from privkt.dpsgd.ranks import Ranks
from privkt.dpsgd.training import PrivateTraining
from privkt.privacy import Budget, Release, state

_ONE_SEQUENCE = "records of a batch would share one sequence: padding_free=False"
_LOG = logging.get_logger("transformers.trainer.private")  # its level is that of the trainer's arguments
_FOLDER, _RUN = "private-training", "run.json"


@dataclass(frozen=True)
class TrainerPrivacy:
    """What a `Trainer` has no argument for.

    size: the declared number of records (units). purpose: names the charge. noise_bias_correction: takes the noise's
    variance off Adam's second moment (DP-AdamBC). options: further arguments of `PrivateTraining` (clipping, sampling,
    noise, verify, ...).
    """

    budget: Budget
    size: int
    purpose: str = "trainer"
    data_changed: bool = False
    noise_bias_correction: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)


def private(trainer: type[Trainer]) -> type[Any]:
    """`trainer` with private training; its `train`, `release` and `compute_losses` are `PrivateTrainerMixin`'s."""
    return type(f"Private{trainer.__name__}", (PrivateTrainerMixin, trainer), {})


class PrivateTrainerMixin:
    """What `private` puts before a trainer class.

    Units: per_device_train_batch_size is the physical microbatch; times gradient_accumulation_steps and processes it is
        the expected logical batch. max_grad_norm is the clipping norm.
    Guarantee: that of `PrivateTraining`; logs hold steps, learning rate and epoch, never a loss.
    Raises: RefusedTraining, before anything is spent, for packing, padding-free batches, length grouping, batch-coupled
        losses, best-checkpoint selection, early stopping, external loggers, autocast and pushing to a hub.
    """

    args: Any
    model: Any
    release: Release[Any] | None = None

    def __init__(self, *args: Any, privacy: TrainerPrivacy, **kwargs: Any) -> None:
        self.privacy = privacy
        settings = kwargs.get("args", args[1] if len(args) > 1 else None)
        if settings is not None:
            refuse_settings(settings)  # before the trainer acts on them: it would make a repository on the hub
        super().__init__(*args, **kwargs)
        refuse(self)

    def compute_losses(self, model: Any, inputs: Mapping[str, Any]) -> Tensor:
        """One loss a sample, [B]: next tokens for labels [B, T], classes for labels [B]. Override for another loss."""
        labels = inputs["labels"]
        rest = {name: value for name, value in inputs.items() if name != "labels"}
        if labels.dim() == 1:
            return classification_losses(model(**rest).logits, labels)
        return causal_lm_losses_from_hidden(model, rest, labels)

    def train(self, resume_from_checkpoint: str | bool | None = None, **_: Any) -> TrainOutput:
        """Trains privately to the planned end.

        Edge cases: `resume_from_checkpoint=True` goes on from the last checkpoint under the same charge.
        Raises: RefusedTraining, TrainingError, CheckpointError.
        """
        refuse(self)
        trainer: Any = self
        trainer._move_model_to_device(self.model, self.args.device)
        self.model.train()
        training = self._training(bool(resume_from_checkpoint))
        trainer.is_in_train = True
        trainer.state.max_steps, trainer.state.global_step = len(training), training.steps_taken
        trainer.state.num_train_epochs = -(-len(training) * training.plan.batch_size // training.plan.n)
        trainer.state.compute_steps(self.args, len(training))
        trainer.state.is_local_process_zero = trainer.is_local_process_zero()
        trainer.state.is_world_process_zero = trainer.is_world_process_zero()
        call = trainer.callback_handler
        trainer.control = call.on_train_begin(self.args, trainer.state, trainer.control)
        begun = -1
        for batch in training:
            if begun < training.steps_taken:
                begun = training.steps_taken
                trainer.control = call.on_step_begin(self.args, trainer.state, trainer.control)
            training.step(self.compute_losses(self.model, trainer._prepare_inputs(batch)))
            if training.steps_taken > trainer.state.global_step:
                self._after_step(training)
        self.release = training.finish(folder=Path(self.args.output_dir) / "model")
        trainer.is_in_train = False
        trainer.control = call.on_train_end(self.args, trainer.state, trainer.control)
        return TrainOutput(training.steps_taken, float("nan"), {"epsilon": training.plan.epsilon})

    def save_release(self, folder: str | Path) -> Path:
        """Writes the released adapter or soft prompt and its privacy card, in PEFT's format, to `folder`.

        Edge cases: a fully trained model was written to output_dir/model already, which is returned.
        Raises: TrainingError, before `train` has ended.
        """
        if self.release is None:
            raise TrainingError("PrivateTrainer.save_release: there must be a release, got none; call train() first")
        if isinstance(self.release.payload, Model):
            return Path(self.args.output_dir) / "model"
        place = Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        for name, content in self.release.payload.files.items():
            (place / name).write_bytes(content)
        return place

    def _after_step(self, training: PrivateTraining) -> None:
        trainer: Any = self
        trainer.state.global_step = training.steps_taken
        trainer.state.epoch = training.steps_taken * training.plan.batch_size / training.plan.n
        trainer.control = trainer.callback_handler.on_step_end(self.args, trainer.state, trainer.control)
        if trainer.control.should_log:
            trainer.control.should_log = False
            trainer.log({"learning_rate": trainer._get_learning_rate()})
        if trainer.control.should_evaluate:
            trainer.control.should_evaluate = False
            trainer.evaluate()
            self.model.train()
        trainer.control.should_save = False  # PrivateTraining keeps the checkpoints
        if trainer.control.should_training_stop and training.steps_taken < len(training):
            raise RefusedTraining(
                f"PrivateTrainer: all {len(training)} planned steps must be done, got a callback that stops after "
                f"{training.steps_taken}; stopping because of private data has no accounting: plan fewer steps instead"
            )

    def _training(self, resume: bool) -> PrivateTraining:
        trainer: Any = self
        args, privacy = self.args, self.privacy
        rows, collate = trainer.train_dataset, trainer.data_collator
        if isinstance(rows, Dataset):
            rows = trainer._remove_unused_columns(rows, description="training")
        else:
            collate = trainer._get_collator_with_removed_columns(collate, description="training")
        batch = args.per_device_train_batch_size * args.gradient_accumulation_steps * max(1, args.world_size)
        length = {"steps": args.max_steps} if args.max_steps > 0 else {"epochs": args.num_train_epochs}
        steps = args.max_steps if args.max_steps > 0 else -(-int(args.num_train_epochs * privacy.size) // batch)
        trainer.create_optimizer_and_scheduler(num_training_steps=steps)
        ledger = privacy.budget.ledger
        folder = None if str(args.save_strategy) in ("no", "SaveStrategy.NO") else Path(args.output_dir) / _FOLDER
        hashed = _bytes_of(rows)
        return PrivateTraining(
            self.model,
            trainer.optimizer,
            rows,
            collate_fn=collate,
            budget=privacy.budget,
            size=privacy.size,
            batch_size=batch,
            microbatch_size=args.per_device_train_batch_size,
            max_grad_norm=args.max_grad_norm,
            run_id=Ranks().first_alone(lambda: _run_id(folder, resume), "finding its run"),
            purpose=privacy.purpose,
            fingerprint=state.fingerprint(hashed) if ledger is None else ledger.fingerprint(hashed),
            data_set_id=secrets.token_hex(16) if ledger is None else ledger.data_set_id,
            data_changed=privacy.data_changed,
            noise_bias_correction=privacy.noise_bias_correction,
            checkpoint=folder,
            checkpoint_every=int(args.save_steps) if args.save_steps >= 1 else None,
            scheduler=trainer.lr_scheduler,
            **{"progress": _Logged(), **length, **privacy.options},
        )


class _Logged:
    """contracts.Progress as lines of the trainer's log: what begins, and how much memory a step takes."""

    def task(self, title: str, total: float | None, unit: str = "") -> _Logged:
        _LOG.info(f"  {title}")
        return self

    def advance(self, amount: float = 1, note: str = "") -> None:
        """The trainer has a bar of its own."""


def refuse_settings(args: Any) -> None:
    """Refuses training arguments that break the guarantee, naming what to use instead (docs/training.md)."""
    loggers = [name for name in _listed(getattr(args, "report_to", None)) if name != "none"]
    by_length = str(getattr(args, "train_sampling_strategy", "random")) == "group_by_length"
    _refuse_first(
        {
            "packing": (getattr(args, "packing", False), "one row must be one record: packing=False"),
            "padding_free": (getattr(args, "padding_free", False), _ONE_SEQUENCE),
            "train_sampling_strategy": (by_length, "batches are drawn by Poisson sampling: leave length grouping off"),
            "load_best_model_at_end": (args.load_best_model_at_end, "choosing a checkpoint is outside the epsilon"),
            "report_to": (loggers, f"training logs are private and {', '.join(loggers)} may leave: report_to='none'"),
            "push_to_hub": (args.push_to_hub, "nothing may cross but a release: use trainer.release"),
            "fp16 / bf16": (args.fp16 or args.bf16, "autocast is decided by the model: cast it, the guarantee says so"),
            "label_smoothing_factor": (args.label_smoothing_factor != 0, "override compute_losses for another loss"),
            "auto_find_batch_size": (args.auto_find_batch_size, "the batch is part of the plan: choose one"),
            "neftune_noise_alpha": (args.neftune_noise_alpha, "its hooks are not known to treat samples alone"),
            "use_liger_kernel": (args.use_liger_kernel, "its fused losses mix samples"),
            "deepspeed / fsdp": (args.deepspeed or args.fsdp, "parameters must be whole in each process"),
        }
    )


def refuse(trainer: Any) -> None:
    """As `refuse_settings`, for what the trainer was made of."""
    refuse_settings(trainer.args)
    data, callbacks = trainer.train_dataset, trainer.callback_handler.callbacks
    loss = next(c for c in type(trainer).__mro__ if "compute_loss" in vars(c))
    known = loss.__module__.split(".")[0] in ("transformers", "trl")
    own_losses = type(trainer).compute_losses is not PrivateTrainerMixin.compute_losses
    per_sample = "give one loss a sample: override compute_losses"
    early = any(isinstance(c, EarlyStoppingCallback) for c in callbacks)
    _refuse_first(
        {
            "padding_free": (getattr(trainer, "padding_free", False), _ONE_SEQUENCE),
            "early stopping": (early, "stopping because of private data has no accounting: plan fewer steps"),
            "compute_loss_func": (trainer.compute_loss_func is not None, per_sample),
            "compute_loss": (not known and not own_losses, per_sample),
            "train_dataset": (data is None or not hasattr(data, "__getitem__"), "it must have len() and [i]"),
        }
    )


def _refuse_first(settings: Mapping[str, tuple[Any, str]]) -> None:
    for setting, (wrong, why) in settings.items():
        if wrong:
            raise RefusedTraining(f"PrivateTrainer: {setting} must be off or changed, got it set; {why}")


def _listed(value: Any) -> list[str]:
    if value is None:
        return []
    return [value] if isinstance(value, str) else list(value)


def _bytes_of(rows: Any) -> Iterator[bytes]:
    """Each record's content, for a fingerprint under a local secret."""
    for index in range(len(rows)):
        yield json.dumps(rows[index], sort_keys=True, default=_plain).encode()


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else str(value)


def _run_id(folder: Path | None, resume: bool) -> str:
    """A fresh id, kept beside the checkpoint, or the one that is there.

    Raises: RefusedTraining, if a checkpoint waits and `resume` was not asked for, or the other way round.
    """
    place = None if folder is None else folder / _RUN
    waiting = place is not None and place.exists()
    if resume and not waiting:
        raise RefusedTraining(
            "PrivateTrainer.train: resume_from_checkpoint=True needs a checkpoint of private training in output_dir, "
            "got none; leave it out to begin (a new spend)"
        )
    if waiting and place is not None:
        if not resume:
            raise RefusedTraining(
                "PrivateTrainer.train: output_dir must hold no earlier private training, got one; pass "
                "resume_from_checkpoint=True to go on under its charge, or choose another output_dir (a new spend)"
            )
        return str(json.loads(place.read_text(encoding="utf-8"))["run_id"])
    run_id = f"trainer-{secrets.token_hex(8)}"
    if place is not None:
        place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        place.write_text(json.dumps({"run_id": run_id}), encoding="utf-8")
    return run_id
